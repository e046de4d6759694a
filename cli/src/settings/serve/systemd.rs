//! The environment that systemd gives a service.

use std::ffi::OsString;

/// The descriptors of sockets that systemd passes to a process.
#[derive(Debug)]
pub(crate) struct PassedSockets {
    /// The ID of the process that they are for.
    pub(crate) process: String,
    /// The number of descriptors.
    pub(crate) count: String,
    /// The names, separated by colons.
    pub(crate) names: String,
}

impl PassedSockets {
    /// Reads the environment.
    pub(crate) fn from_environment() -> Self {
        let variable = |name| std::env::var(name).unwrap_or_default();
        Self {
            process: variable("LISTEN_PID"),
            count: variable("LISTEN_FDS"),
            names: variable("LISTEN_FDNAMES"),
        }
    }
}

/// Returns the address of the socket that systemd reads the state of a service from.
pub(crate) fn notify_socket() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET")
}

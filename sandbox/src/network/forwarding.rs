//! IP forwarding: kiln turns it on if the host has it off, for the bridge only.
//!
//! The kernel checks the setting of the interface on which a packet arrives, so answers from
//! outside need it on the outer interfaces too. A rule keeps dropping packets between the
//! interfaces that the host did not forward before.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::io;
use std::path::Path;

use super::error::NetworkError;
use super::namespace::is_port;

const SWITCH: &str = "/proc/sys/net/ipv4/ip_forward";

/// Returns `true` if the host forwards packets.
pub(super) fn is_on() -> Result<bool, NetworkError> {
    let text =
        std::fs::read_to_string(SWITCH).map_err(NetworkError::doing(format!("read {SWITCH}")))?;
    Ok(text.trim() != "0")
}

/// Turns forwarding on for all interfaces.
pub(super) fn turn_on() -> Result<(), NetworkError> {
    std::fs::write(SWITCH, "1").map_err(NetworkError::doing("turn forwarding on"))
}

/// Returns the names of all interfaces except the bridge and its ports.
pub(super) fn interfaces(bridge: &str) -> Result<Vec<String>, NetworkError> {
    let directory = Path::new("/proc/sys/net/ipv4/conf");
    let names = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            // Names that would end the string in the rule are left out.
            let plain = !name.contains(['"', '\\', '\n']);
            let is_ours = name == bridge || is_port(&name);
            if plain && !matches!(name.as_str(), "all" | "default" | "lo") && !is_ours {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    };
    names().map_err(NetworkError::doing("list network interfaces"))
}

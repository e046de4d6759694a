//! The requirements of tests on the machine.

use std::path::Path;

/// A requirement of a test that a machine may not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The test runs as root.
    Root,
    /// The test runs as root, and the users that run kiln without root exist.
    Accounts,
    /// A program is on the search path.
    Program(&'static str),
    /// Debian's package mirror can be reached, for debootstrap and apt-get.
    PackageMirror,
    /// The kernel holds an emulator of qemu open, such as `aarch64`.
    Emulator(&'static str),
}

impl Need {
    fn is_met(self) -> bool {
        match self {
            Self::Root => rustix::process::geteuid().is_root(),
            Self::Accounts => {
                let is_there = |name| crate::Account::find(name).is_some();
                Self::Root.is_met()
                    && find_program("newuidmap").is_some()
                    && is_there(crate::Account::MANY_IDS)
                    && is_there(crate::Account::SINGLE_ID)
            }
            Self::Program(name) => find_program(name).is_some(),
            Self::PackageMirror => std::process::Command::new("python3")
                .args(["-c", "import socket; socket.create_connection(('deb.debian.org', 80), 5)"])
                .output()
                .is_ok_and(|output| output.status.success()),
            Self::Emulator(name) => {
                let entry = emulators().join(format!("qemu-{name}"));
                let entry = std::fs::read_to_string(entry).unwrap_or_default();
                let is_open =
                    |line: &str| line.strip_prefix("flags:").is_some_and(|f| f.contains('F'));
                entry.starts_with("enabled") && entry.lines().any(is_open)
            }
        }
    }
}

/// Returns the directory in which the kernel lists its emulators.
pub fn emulators() -> &'static Path {
    Path::new("/proc/sys/fs/binfmt_misc")
}

/// Returns the path of a program on the search path or in the system's directories.
pub fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin"])
        .map(|directory| Path::new(directory).join(name))
        .find(|candidate| candidate.is_file())
}

/// Returns `true` if a test must be skipped, and prints its name.
///
/// # Panics
/// Panics in CI (`CI=true`), where no test may be skipped.
pub fn skip(test: &str, needs: &[Need]) -> bool {
    let Some(missing) = needs.iter().find(|need| !need.is_met()) else { return false };
    assert!(std::env::var_os("CI").is_none(), "{test} needs {missing:?}, and CI may skip nothing");
    eprintln!("skipped: {test} needs {missing:?}");
    true
}

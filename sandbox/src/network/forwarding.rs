//! Forwarding of packets: where the host doesn't do it, it is turned on, and for the bridge alone.
//!
//! The kernel asks the interface on which a packet arrives, so that answers from outside need it
//! on the outer interfaces, too. What the host didn't forward between the interfaces that it had,
//! a rule then goes on to drop.

use std::io;
use std::path::Path;

use super::error::NetworkError;
use super::namespace::is_port;

const SWITCH: &str = "/proc/sys/net/ipv4/ip_forward";

/// Tells whether the host forwards.
pub(super) fn is_on() -> Result<bool, NetworkError> {
    let text =
        std::fs::read_to_string(SWITCH).map_err(NetworkError::doing(format!("read {SWITCH}")))?;
    Ok(text.trim() != "0")
}

/// Turns it on.
pub(super) fn turn_on() -> Result<(), NetworkError> {
    std::fs::write(SWITCH, "1").map_err(NetworkError::doing("turn forwarding on"))
}

/// Returns the names of the interfaces that there are, but for the bridge and what belongs to it.
pub(super) fn interfaces(bridge: &str) -> Result<Vec<String>, NetworkError> {
    let directory = Path::new("/proc/sys/net/ipv4/conf");
    let names = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            // A name that would end the string that it is written in is nobody's.
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

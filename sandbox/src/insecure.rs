//! The devices of insecure and privileged programs.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

/// A device node in `/dev`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    /// The path below `/dev`.
    pub(super) path: String,
    /// The node's type: character or block device.
    pub(super) kind: FileType,
    /// The major and minor number.
    pub(super) number: (u32, u32),
}

/// The number of loop devices beyond those in use.
const FREE_LOOPS: u32 = 8;
/// The maximum number of loop devices.
const MAX_LOOPS: u32 = 256;

/// Returns the devices that BuildKit gives to insecure programs.
pub(super) fn devices() -> Vec<Device> {
    let named = [
        ("kmsg", (1, 11)),
        ("cuse", (10, 203)),
        ("fuse", (10, 229)),
        ("kvm", (10, 232)),
        ("net/tun", (10, 200)),
        ("loop-control", (10, 237)),
    ];
    let named = named.map(|(path, number)| Device {
        path: path.to_owned(),
        kind: FileType::CharacterDevice,
        number,
    });
    let loops = (0..first_free_loop() + FREE_LOOPS).map(|minor| Device {
        path: format!("loop{minor}"),
        kind: FileType::BlockDevice,
        number: (7, minor),
    });
    named.into_iter().chain(loops).collect()
}

/// The names in `/dev` that are no devices of the host, or that each container has its own of.
const OWN: [&str; 6] = ["console", "fd", "mqueue", "pts", "shm", "ptmx"];

/// Returns the paths of all device nodes below a directory, except for those that every container
/// has its own of.
pub(super) fn nodes(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let is_own = OWN.iter().any(|own| entry.file_name() == *own);
        let Ok(kind) = entry.file_type() else { continue };
        if is_own || entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if kind.is_dir() {
            found.extend(nodes(&entry.path()));
        } else if kind.is_char_device() || kind.is_block_device() {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

fn first_free_loop() -> u32 {
    let is_free = |minor: &u32| {
        !std::path::Path::new(&format!("/sys/block/loop{minor}/loop/backing_file")).exists()
    };
    (0..MAX_LOOPS).find(is_free).unwrap_or(MAX_LOOPS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_devices_alone() {
        let nodes = nodes(Path::new("/dev"));
        assert!(nodes.contains(&PathBuf::from("/dev/null")), "{nodes:?}");
        assert!(!nodes.iter().any(|node| node.starts_with("/dev/pts") || node.ends_with("fd")));
    }

    #[test]
    fn there_are_free_loop_devices() {
        let devices = devices();
        let loops = devices.iter().filter(|device| device.number.0 == 7).count();
        assert!(loops >= 8, "{devices:?}");
    }
}

//! Devices of programs that run without limits.

use rustix::fs::FileType;

/// A device node in `/dev`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    /// Its path below `/dev`.
    pub(super) path: String,
    /// What it is.
    pub(super) kind: FileType,
    /// Its number.
    pub(super) number: (u32, u32),
}

/// How many loop devices there are beyond those in use.
const FREE_LOOPS: u32 = 8;
/// Most loop devices.
const MAX_LOOPS: u32 = 256;

/// Returns the devices that BuildKit gives to such programs.
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
    fn there_are_free_loop_devices() {
        let devices = devices();
        let loops = devices.iter().filter(|device| device.number.0 == 7).count();
        assert!(loops >= 8, "{devices:?}");
    }
}

//! Detection of the platforms whose programs this machine can run.
//!
//! A machine runs programs of its own architecture and of the older one that it includes. Other
//! programs need an emulator in the kernel: an entry of `binfmt_misc` whose pattern matches the
//! head of the program. The sandbox has a root of its own, in which the emulator's path doesn't
//! exist. The entry therefore needs the flag F, which makes the kernel open the emulator at
//! registration.
//!
//! An entry works even if `binfmt_misc` isn't mounted. In that case, kiln creates a detached
//! read-only mount of it to read the entries. It can't do so in a user namespace, where a new mount
//! would show an empty instance instead of the machine's.

use std::io::Read;
use std::path::Path;

use kiln_oci::Platform;
use kiln_tree::{Dir, Ids};
use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::error::{Error, Result};

/// The usual mount point of `binfmt_misc`.
const PLACE: &str = "/proc/sys/fs/binfmt_misc";

/// The maximum number of bytes that are read of an entry. Patterns are short.
const ENTRY_LIMIT: u64 = 16 << 10;

/// The size in bytes of the program head that patterns can match.
const HEAD: usize = 128;

/// Checks that programs of `platform` can run on this machine.
///
/// # Errors
/// Fails if they can't. The error gives the reason.
pub fn check(platform: &Platform) -> Result<()> {
    let host = Platform::host();
    if runs_natively(&host, platform) {
        return Ok(());
    }
    let refuse = |problem: &str| {
        Err(Error::NoEmulator { platform: platform.to_string(), problem: problem.to_owned() })
    };
    if platform.os != host.os {
        return refuse(&format!("this machine runs {}", host.os));
    }
    let Some(head) = program_head(platform) else {
        return refuse("it is no architecture that kiln knows");
    };
    let entries = match entries() {
        Ok(entries) => entries,
        Err(problem) => return refuse(&problem),
    };
    let fitting: Vec<&Entry> = entries.iter().filter(|entry| entry.fits(&head)).collect();
    match fitting.first() {
        None => refuse("no emulator is registered"),
        Some(_) if fitting.iter().any(|entry| entry.is_enabled && entry.is_open) => Ok(()),
        Some(entry) if entry.is_enabled => refuse(&format!(
            "{} is registered without the flag F, and can't be found from inside of a container",
            entry.name
        )),
        Some(entry) => refuse(&format!("{} is registered, but disabled", entry.name)),
    }
}

fn runs_natively(host: &Platform, platform: &Platform) -> bool {
    let family = match host.architecture.as_str() {
        "amd64" => &["amd64", "386"][..],
        "arm64" => &["arm64", "arm"],
        other => &[other],
    };
    host.os == platform.os && family.contains(&platform.architecture.as_str())
}

/// Returns the first bytes of a platform's program: the part of the ELF header that patterns match.
/// (System V ABI, "ELF Header".)
fn program_head(platform: &Platform) -> Option<[u8; HEAD]> {
    const WIDE: u8 = 2;
    const NARROW: u8 = 1;
    // The class, `true` for big-endian numbers, and the machine.
    let (class, is_big, machine): (u8, bool, u16) = match platform.architecture.as_str() {
        "386" => (NARROW, false, 3),
        "amd64" => (WIDE, false, 62),
        "arm" => (NARROW, false, 40),
        "arm64" => (WIDE, false, 183),
        "loong64" => (WIDE, false, 258),
        "mips" => (NARROW, true, 8),
        "mipsle" => (NARROW, false, 8),
        "mips64" => (WIDE, true, 8),
        "mips64le" => (WIDE, false, 8),
        "ppc" => (NARROW, true, 20),
        "ppc64" => (WIDE, true, 21),
        "ppc64le" => (WIDE, false, 21),
        "riscv64" => (WIDE, false, 243),
        "s390x" => (WIDE, true, 22),
        "sparc64" => (WIDE, true, 43),
        _ => return None,
    };
    // The type of an executable with fixed addresses.
    let kind = 2_u16;
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(b"\x7fELF");
    head[4..7].copy_from_slice(&[class, if is_big { 2 } else { 1 }, 1]);
    let number = |number: u16| if is_big { number.to_be_bytes() } else { number.to_le_bytes() };
    head[16..18].copy_from_slice(&number(kind));
    head[18..20].copy_from_slice(&number(machine));
    head[20..24].copy_from_slice(&if is_big { [0, 0, 0, 1] } else { [1, 0, 0, 0] });
    Some(head)
}

/// An emulator that is registered with the kernel.
#[derive(Debug, Default, PartialEq, Eq)]
struct Entry {
    name: String,
    is_enabled: bool,
    /// `true` if the kernel holds the emulator open (flag F).
    is_open: bool,
    offset: usize,
    magic: Vec<u8>,
    mask: Option<Vec<u8>>,
}

impl Entry {
    /// Parses the kernel's text of an entry. Returns `None` for an entry that matches file names.
    fn parse(name: &str, text: &str) -> Option<Self> {
        let mut entry = Self { name: name.to_owned(), ..Self::default() };
        for line in text.lines() {
            match line.split_once(' ') {
                None => entry.is_enabled |= line == "enabled",
                Some(("flags:", flags)) => entry.is_open = flags.contains('F'),
                Some(("offset", offset)) => entry.offset = offset.parse().ok()?,
                Some(("magic", digits)) => entry.magic = bytes(digits)?,
                Some(("mask", digits)) => entry.mask = Some(bytes(digits)?),
                Some(_) => {}
            }
        }
        let masks = entry.mask.as_ref().is_none_or(|mask| mask.len() == entry.magic.len());
        (!entry.magic.is_empty() && masks).then_some(entry)
    }

    /// Returns `true` if the kernel runs programs with this head by the emulator.
    fn fits(&self, head: &[u8; HEAD]) -> bool {
        let end = self.offset.checked_add(self.magic.len());
        let Some(part) = end.and_then(|end| head.get(self.offset..end)) else { return false };
        part.iter().zip(&self.magic).enumerate().all(|(number, (byte, magic))| {
            let mask = self.mask.as_ref().map_or(0xff, |mask| mask[number]);
            (byte ^ magic) & mask == 0
        })
    }
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let pairs = digits.trim().as_bytes();
    pairs.len().is_multiple_of(2).then(|| pairs.chunks(2).map(pair).collect()).flatten()
}

/// Returns the registered emulators.
///
/// # Errors
/// Fails with a message if they can't be read.
fn entries() -> std::result::Result<Vec<Entry>, String> {
    let unknown = |why: &dyn std::fmt::Display| {
        format!("what emulators are registered can't be read: {PLACE}: {why}")
    };
    let directory = match Dir::open(Path::new(PLACE)) {
        Ok(directory) if is_mounted(&directory) => directory,
        _ if Ids::current().is_namespace() => return Err(unknown(&"not mounted")),
        _ => mount().map_err(|error| unknown(&error))?,
    };
    if read(&directory, "status").map_err(|error| unknown(&error))?.trim() != "enabled" {
        return Err(format!("{PLACE} is disabled"));
    }
    list(&directory).map_err(|error| unknown(&error))
}

fn list(directory: &Dir) -> rustix::io::Result<Vec<Entry>> {
    // The descriptor of a new mount can't be read itself, like one opened with `O_PATH`.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let names = rustix::fs::Dir::new(openat(directory, ".", flags, Mode::empty())?)?;
    let mut entries = Vec::new();
    for name in names {
        let name = name?.file_name().to_string_lossy().into_owned();
        if matches!(name.as_str(), "." | ".." | "register" | "status") {
            continue;
        }
        // An entry that disappears meanwhile is skipped.
        let text = read(directory, &name);
        entries.extend(text.ok().and_then(|text| Entry::parse(&name, &text)));
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn is_mounted(directory: &Dir) -> bool {
    directory.open_file(Path::new("status")).is_ok()
}

/// Creates a mount of `binfmt_misc` that no other process sees.
fn mount() -> rustix::io::Result<Dir> {
    let context = fsopen("binfmt_misc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(Dir::from_fd(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?))
}

fn read(directory: &Dir, name: &str) -> std::result::Result<String, String> {
    let file = directory.open_file(Path::new(name)).map_err(|error| error.to_string())?;
    let mut text = String::new();
    file.take(ENTRY_LIMIT).read_to_string(&mut text).map_err(|error| error.to_string())?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use kiln_testkit::{Need, skip};

    use super::*;

    const AARCH64: &str = "enabled\ninterpreter /usr/bin/qemu-aarch64\nflags: POF\noffset 0\n\
                           magic 7f454c460201010000000000000000000200b700\n\
                           mask ffffffffffffff00fffffffffffffffffeffffff\n";

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn entries_fit_their_architecture_alone() {
        let entry = Entry::parse("qemu-aarch64", AARCH64).unwrap();
        assert!(entry.is_enabled && entry.is_open);
        let known = [
            "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle",
            "ppc", "ppc64", "ppc64le", "riscv64", "s390x", "sparc64",
        ];
        for architecture in known {
            let head = program_head(&platform(&format!("linux/{architecture}"))).unwrap();
            assert_eq!(entry.fits(&head), architecture == "arm64", "{architecture}");
        }
        // Programs of the system itself may be position-independent.
        let mut head = program_head(&platform("linux/arm64")).unwrap();
        head[16] = 3;
        assert!(entry.fits(&head));
        assert!(program_head(&platform("linux/wasm")).is_none());
    }

    #[test]
    fn entries_are_read_as_the_kernel_shows_them() {
        let disabled = AARCH64.replace("enabled", "disabled").replace("POF", "OC");
        let entry = Entry::parse("x", &disabled).unwrap();
        assert!(!entry.is_enabled && !entry.is_open);
        let unmasked = "enabled\ninterpreter /x\nflags: \noffset 1\nmagic 454c46\n";
        let entry = Entry::parse("x", unmasked).unwrap();
        assert_eq!((entry.offset, entry.mask.as_ref()), (1, None));
        assert!(entry.fits(&program_head(&platform("linux/amd64")).unwrap()));
        for text in [
            "",
            "enabled\ninterpreter /usr/bin/wine\nflags: \nextension .exe\n",
            "enabled\noffset 0\nmagic 7f4\n",
            "enabled\noffset 0\nmagic 7f45\nmask ff\n",
            "enabled\noffset x\nmagic 7f45\n",
            "enabled\noffset 0\nmagic é7\n",
        ] {
            assert_eq!(Entry::parse("x", text), None, "{text}");
        }
        let far = Entry { offset: usize::MAX, magic: vec![1], ..Entry::default() };
        assert!(!far.fits(&[0; HEAD]));
    }

    #[test]
    fn entries_are_found_where_nothing_is_mounted() {
        let needs = [Need::Root, Need::Emulator("aarch64")];
        let name = "entries_are_found_where_nothing_is_mounted";
        if cfg!(not(target_arch = "x86_64")) || skip(name, &needs) {
            return;
        }
        let names = |directory: Dir| -> Vec<String> {
            list(&directory).unwrap().into_iter().map(|entry| entry.name).collect()
        };
        let mounted = names(Dir::open(Path::new(PLACE)).unwrap());
        assert!(mounted.contains(&"qemu-aarch64".to_owned()));
        assert_eq!(names(mount().unwrap()), mounted);
    }

    #[test]
    fn the_own_family_needs_no_emulator() {
        let (amd64, arm64) = (platform("linux/amd64"), platform("linux/arm64"));
        for (host, wanted, native) in [
            (&amd64, "linux/amd64/v3", true),
            (&amd64, "linux/386", true),
            (&amd64, "linux/arm64", false),
            (&arm64, "linux/arm/v7", true),
            (&arm64, "linux/amd64", false),
            (&amd64, "windows/amd64", false),
        ] {
            assert_eq!(runs_natively(host, &platform(wanted)), native, "{host} {wanted}");
        }
        assert!(check(&Platform::host()).is_ok());
        let error = check(&platform("windows/amd64")).unwrap_err().to_string();
        assert_eq!(error, "can't run programs for windows/amd64: this machine runs linux");
    }
}

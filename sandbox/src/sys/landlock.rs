//! Confinement by Landlock: `landlock(7)`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The kernel's `struct landlock_ruleset_attr` of version 6.
#[repr(C)]
#[derive(Debug, Default)]
struct Ruleset {
    files: u64,
    network: u64,
    scopes: u64,
}

/// The kernel's `struct landlock_path_beneath_attr`, which is packed.
#[repr(C, packed)]
#[derive(Debug)]
struct Beneath {
    allowed: u64,
    parent: i32,
}

const CREATE_RULESET: libc::c_long = 444;
const ADD_RULE: libc::c_long = 445;
const RESTRICT_SELF: libc::c_long = 446;
const ASK_VERSION: u32 = 1;
const RULE_BENEATH: u32 = 1;

/// The number of kinds of file accesses that a version of Landlock knows.
const KINDS: [(i64, u32); 4] = [(5, 16), (3, 15), (2, 14), (1, 13)];
/// The first version that allows moving files between directories.
const MOVES: i64 = 2;
/// The first version with scopes, and the size of its structure's beginning before them.
const SCOPES: i64 = 6;
const WITHOUT_SCOPES: usize = 8;
/// The scopes of abstract sockets and of signals.
const ALL_SCOPES: u64 = 3;

/// Confines this thread and its future children to the files below directories, and if the kernel can,
/// to signals and abstract sockets among themselves. Returns `false` if the kernel can't confine
/// without changing what programs can do with these files. Requires `no_new_privs`.
pub(crate) fn confine_to<'a>(
    directories: impl IntoIterator<Item = BorrowedFd<'a>>,
) -> io::Result<bool> {
    // SAFETY: with this flag the kernel takes no structure.
    let version =
        unsafe { libc::syscall(CREATE_RULESET, std::ptr::null::<u8>(), 0_usize, ASK_VERSION) };
    let Some((_, kinds)) = KINDS.iter().find(|(first, _)| *first <= version) else {
        return Ok(false);
    };
    if version < MOVES {
        return Ok(false);
    }
    let all = (1 << kinds) - 1;
    let has_scopes = version >= SCOPES;
    let scopes = if has_scopes { ALL_SCOPES } else { 0 };
    let rules = Ruleset { files: all, network: 0, scopes };
    let size = if has_scopes { size_of::<Ruleset>() } else { WITHOUT_SCOPES };
    // SAFETY: the structure lives until the call returns, and is at least as long as its given size.
    let fd = unsafe { libc::syscall(CREATE_RULESET, &raw const rules, size, 0_u32) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just created this descriptor, and no other code owns it.
    let rules = unsafe { OwnedFd::from_raw_fd(fd) };
    for directory in directories {
        let beneath = Beneath { allowed: all, parent: directory.as_raw_fd() };
        // SAFETY: the structure lives until the call returns.
        let added = unsafe {
            libc::syscall(ADD_RULE, rules.as_raw_fd(), RULE_BENEATH, &raw const beneath, 0_u32)
        };
        if added != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: the call takes integers.
    let restricted = unsafe { libc::syscall(RESTRICT_SELF, rules.as_raw_fd(), 0_u32) };
    if restricted == 0 { Ok(true) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn files_elsewhere_can_not_be_opened() {
        let temp = tempfile::tempdir().unwrap();
        for name in ["inside/a", "inside/b", "outside"] {
            fs::create_dir_all(temp.path().join(name)).unwrap();
        }
        let at = |name: &str| temp.path().join(name);
        fs::write(at("outside/secret"), "").unwrap();
        let directory = File::open(at("inside")).unwrap();
        let confined = || {
            rustix::thread::set_no_new_privs(true).unwrap();
            if !confine_to([directory.as_fd()]).unwrap() {
                return;
            }
            fs::write(at("inside/a/file"), "text").unwrap();
            fs::rename(at("inside/a/file"), at("inside/b/file")).unwrap();
            assert!(File::open(at("outside/secret")).is_err());
            assert!(fs::create_dir(at("outside/made")).is_err());
        };
        std::thread::scope(|scope| scope.spawn(confined).join().unwrap());
        assert!(File::open(at("outside/secret")).is_ok());
    }
}

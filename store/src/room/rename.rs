//! Renaming of a directory to a free name.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Mode, RenameFlags, mkdirat, renameat, renameat_with, unlinkat};
use rustix::io::Errno;
use rustix::path::Arg;

/// Renames a directory. Returns `true` if the new name was free; otherwise nothing changes.
///
/// Some file systems (in user space, or on a network) don't support renaming only to a free name.
/// There, an empty directory reserves the name, which only one process can create, and is then
/// replaced.
pub(crate) fn rename_directory(
    from: impl AsFd,
    name: impl Arg + Copy,
    to: impl AsFd,
    target: impl Arg + Copy,
) -> rustix::io::Result<bool> {
    match renameat_with(&from, name, &to, target, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            over_a_placeholder(from, name, to, target)
        }
        Err(errno) => Err(errno),
    }
}

fn over_a_placeholder(
    from: impl AsFd,
    name: impl Arg + Copy,
    to: impl AsFd,
    target: impl Arg + Copy,
) -> rustix::io::Result<bool> {
    match mkdirat(&to, target, Mode::RWXU) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(false),
        Err(errno) => return Err(errno),
    }
    let renamed = renameat(from, name, &to, target);
    if renamed.is_err() {
        // The original error is the one to report.
        let _ = unlinkat(to, target, AtFlags::REMOVEDIR);
    }
    renamed.map(|()| true)
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, write};

    use rustix::fs::CWD;

    use super::*;

    #[test]
    fn names_that_are_taken_stay_as_they_are() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        for name in ["a", "b", "taken"] {
            create_dir(at(name)).unwrap();
            write(at(name).join(name), "").unwrap();
        }
        let (a, b, taken, free) = (&at("a"), &at("b"), &at("taken"), &at("free"));
        assert_eq!(rename_directory(CWD, a, CWD, taken), Ok(false));
        assert_eq!(over_a_placeholder(CWD, a, CWD, taken), Ok(false));
        assert!(at("taken/taken").exists() && at("a/a").exists());
        assert_eq!(rename_directory(CWD, a, CWD, free), Ok(true));
        assert!(at("free/a").exists());
        assert_eq!(over_a_placeholder(CWD, b, CWD, a), Ok(true));
        assert!(at("a/b").exists() && !at("b").exists());
        assert!(over_a_placeholder(CWD, b, CWD, &at("other")).is_err());
        assert!(!at("other").exists(), "the placeholder stays");
    }
}

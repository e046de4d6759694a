//! Copies of trees that share the files of the original.
//!
//! A layer has one parent. To put a layer on another one, its tree is copied: directories are
//! created anew, and all other entries, including whiteouts, are hard links. Committed trees never
//! change, so sharing files between them is safe.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use kiln_tree::{Changes, FileKind};
use rustix::fs::{
    AtFlags, Dir as Entries, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid,
    XattrFlags, fchmod, fchown, fgetxattr, fgetxattr_query, flistxattr, flistxattr_query,
    fremovexattr, fsetxattr, fstat, futimens, linkat, mkdirat, mknodat, openat, statat, unlinkat,
};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// The prefixes of overlayfs's own attributes, for root and for other users.
const OVERLAY_PREFIXES: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
/// The attributes of overlayfs that have a meaning in a lower directory.
const KEPT_OVERLAY: [&[u8]; 2] = [b"opaque", b"whiteout"];

/// Copies the tree below `source` into the empty directory `dest`. Returns `true` if the tree
/// contains deletions.
fn relink(source: BorrowedFd<'_>, dest: BorrowedFd<'_>) -> Result<bool> {
    copy(&Alterations::default(), &[], source, dest)
}

/// Copies the changes of a layer into the empty directory `dest`, without the entries that are as
/// below. Instead of a mark that a directory replaces another one, each deletion has a mark, so the
/// directory can be merged with others. Returns `true` if the tree contains deletions, and its
/// changes.
///
/// Copies the whole tree if a process can't create the marks.
pub(crate) fn relink_changes(
    source: BorrowedFd<'_>,
    dest: BorrowedFd<'_>,
    changes: &Changes,
) -> Result<(bool, Changes)> {
    if !can_mark(dest) {
        return Ok((relink(source, dest)?, changes.clone()));
    }
    let mut alterations = Alterations { changes: Some(changes), deleted: BTreeMap::default() };
    for path in changes.deleted() {
        let start = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let parent = path[..start.saturating_sub(1)].to_vec();
        let name = CString::new(&path[start..])
            .map_err(|error| about("delete", c"")(io::Error::from(error)))?;
        alterations.deleted.entry(parent).or_default().push(name);
    }
    let deletions = copy(&alterations, &[], source, dest)?;
    Ok((deletions, changes.with_marked_deletions()))
}

/// Returns `true` if this process can create overlayfs's whiteouts.
fn can_mark(dest: BorrowedFd<'_>) -> bool {
    let mode = Mode::empty();
    mknodat(dest, c".mark", FileType::CharacterDevice, mode, 0).is_ok()
        && unlinkat(dest, c".mark", AtFlags::empty()).is_ok()
}

/// The differences between a tree and its copy.
#[derive(Default)]
struct Alterations<'a> {
    changes: Option<&'a Changes>,
    /// The names of the deleted entries of each directory.
    deleted: BTreeMap<Vec<u8>, Vec<CString>>,
}

fn copy(
    alterations: &Alterations<'_>,
    path: &[u8],
    source: BorrowedFd<'_>,
    dest: BorrowedFd<'_>,
) -> Result<bool> {
    let mut deletions = false;
    let entries = Entries::read_from(source).map_err(Error::kernel("read directory", "tree"))?;
    for entry in entries {
        let entry = entry.map_err(Error::kernel("read directory", "tree"))?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
        let child = [path, separator, name.to_bytes()].concat();
        let is_left_out = alterations.changes.is_some_and(|changes| changes.leaves_out(&child));
        let stat = statat(source, name, AtFlags::SYMLINK_NOFOLLOW).map_err(about("stat", name))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                mkdirat(dest, name, Mode::RWXU).map_err(about("create directory", name))?;
                let (from, to) = (open_dir(source, name)?, open_dir(dest, name)?);
                deletions |= copy(alterations, &child, from.as_fd(), to.as_fd())?;
                if is_left_out {
                    // A directory stays if an entry below it has changed.
                    let _ = unlinkat(dest, name, AtFlags::REMOVEDIR);
                }
            }
            _ if is_left_out => {}
            kind => {
                deletions |= is_mark(name, kind, &stat);
                link(source, dest, name, &stat).map_err(about("link", name))?;
            }
        }
    }
    for name in alterations.deleted.get(path).into_iter().flatten() {
        let made = mknodat(dest, name.as_c_str(), FileType::CharacterDevice, Mode::empty(), 0);
        made.map_err(about("delete", name))?;
        deletions = true;
    }
    copy_attributes(source, dest)?;
    if alterations.changes.is_some_and(|changes| changes.replaces(path)) {
        for prefix in OVERLAY_PREFIXES {
            let name = [prefix, b"opaque"].concat();
            // A process has one of the attributes, or none.
            let _ = fremovexattr(dest, name.as_slice());
        }
    }
    Ok(deletions | is_opaque(dest)?)
}

/// Returns `true` if an entry marks a deletion: overlayfs's whiteout, or a file on file systems
/// that refuse whiteouts.
fn is_mark(name: &CStr, kind: FileType, stat: &Stat) -> bool {
    let mode = Mode::from_raw_mode(stat.st_mode);
    // A mark has no permissions. An unprivileged process records that.
    let has_mode = if kiln_tree::Ids::current().is_unprivileged() {
        mode == Mode::from_raw_mode(kiln_tree::records::mode_on_disk(0, false))
    } else {
        mode.is_empty()
    };
    let is_nothing = stat.st_size == 0 && has_mode;
    match kind {
        FileType::CharacterDevice => stat.st_rdev == 0,
        FileType::RegularFile => is_nothing && name.to_bytes().starts_with(kiln_tree::FILE_MARK),
        _ => false,
    }
}

fn open_dir(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty()).map_err(about("open directory", name))
}

/// Links a file. At the link limit, creates a new whiteout or copies the file.
fn link(source: BorrowedFd<'_>, dest: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    match linkat(source, name, dest, name, AtFlags::empty()) {
        Err(Errno::MLINK) => {}
        result => return Ok(result?),
    }
    let kind = FileType::from_raw_mode(stat.st_mode);
    let mode = Mode::from_raw_mode(stat.st_mode);
    match kind {
        FileType::RegularFile => {
            let find = |flags| openat(source, name, flags | OFlags::NOFOLLOW, Mode::empty());
            let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let from = kiln_tree::open_inspected(OFlags::RDONLY, FileKind::is_file, find)?;
            let from = from.ok_or(Errno::STALE)?;
            let to = openat(dest, name, write, Mode::RUSR | Mode::WUSR)?;
            io::copy(
                &mut std::fs::File::from(from.try_clone()?),
                &mut std::fs::File::from(to.try_clone()?),
            )?;
            copy_attributes(from.as_fd(), to.as_fd()).map_err(io::Error::other)
        }
        kind if stat.st_rdev == 0 && kind == FileType::CharacterDevice => {
            Ok(mknodat(dest, name, kind, mode, 0)?)
        }
        // Other kinds of files don't occur in such numbers.
        _ => Err(Errno::MLINK.into()),
    }
}

/// Copies the owner, mode, extended attributes and times of `source` to `dest`.
///
/// # Errors
/// Fails if an attribute can't be read or set.
pub fn copy_attributes(source: BorrowedFd<'_>, dest: BorrowedFd<'_>) -> Result<()> {
    let failed = |errno: Errno| Error::kernel("copy attributes of", "tree")(errno);
    let stat = fstat(source).map_err(failed)?;
    let found = fstat(dest).map_err(failed)?;
    // A group that a user namespace doesn't have can't be set.
    let differs = (found.st_uid, found.st_gid) != (stat.st_uid, stat.st_gid);
    if differs && rustix::process::geteuid().is_root() {
        fchown(dest, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
            .map_err(failed)?;
    }
    fchmod(dest, Mode::from_raw_mode(stat.st_mode)).map_err(failed)?;
    for name in xattr_names(source).map_err(failed)? {
        // The entries of the copy may be others, with a record of their own.
        let is_recorded =
            name.to_bytes() == kiln_tree::records::ENTRIES && fgetxattr_query(dest, &*name).is_ok();
        if is_kept(name.to_bytes()) && !is_recorded {
            let size = fgetxattr_query(source, &*name).map_err(failed)?;
            let mut value = vec![0; size];
            let size = fgetxattr(source, &*name, value.as_mut_slice()).map_err(failed)?;
            fsetxattr(dest, &*name, &value[..size], XattrFlags::empty()).map_err(failed)?;
        }
    }
    let times = Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime as _, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec {
            tv_sec: stat.st_mtime as _,
            tv_nsec: stat.st_mtime_nsec as _,
        },
    };
    futimens(dest, &times).map_err(failed)
}

fn is_opaque(dir: BorrowedFd<'_>) -> Result<bool> {
    let names = xattr_names(dir).map_err(Error::kernel("list attributes of", "tree"))?;
    Ok(names.iter().any(|name| overlay_name(name.to_bytes()) == Some(b"opaque")))
}

fn xattr_names(file: BorrowedFd<'_>) -> rustix::io::Result<Vec<std::ffi::CString>> {
    let size = match flistxattr_query(file) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        result => result?,
    };
    let mut list = vec![0; size];
    let size = flistxattr(file, list.as_mut_slice())?;
    let names = list[..size].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.filter_map(|name| std::ffi::CString::new(name).ok()).collect())
}

fn overlay_name(name: &[u8]) -> Option<&[u8]> {
    OVERLAY_PREFIXES.iter().find_map(|prefix| name.strip_prefix(*prefix))
}

fn is_kept(name: &[u8]) -> bool {
    overlay_name(name).is_none_or(|name| KEPT_OVERLAY.contains(&name))
}

fn about<E: Into<io::Error>>(action: &'static str, name: &CStr) -> impl FnOnce(E) -> Error {
    Error::kernel(action, format!("{name:?}"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    use kiln_testkit::{Need, skip};
    use kiln_tree::Dir;

    use super::*;

    fn repeat(from: &Path, to: &Path) -> bool {
        std::fs::create_dir(to).unwrap();
        relink(Dir::open(from).unwrap().as_fd(), Dir::open(to).unwrap().as_fd()).unwrap()
    }

    #[test]
    fn trees_are_repeated_with_links() {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to"));
        std::fs::create_dir_all(from.join("d")).unwrap();
        std::fs::write(from.join("d/f"), "x").unwrap();
        symlink("/etc/passwd", from.join("link")).unwrap();
        std::fs::set_permissions(from.join("d"), PermissionsExt::from_mode(0o2750)).unwrap();
        std::fs::File::open(from.join("d")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert!(!repeat(&from, &to));
        let (old, new) = (from.join("d/f").metadata().unwrap(), to.join("d/f").metadata().unwrap());
        assert_eq!(old.ino(), new.ino());
        let dir = to.join("d").metadata().unwrap();
        assert_eq!((dir.mode() & 0o7777, dir.mtime()), (0o2750, 0));
        assert_eq!(std::fs::read_link(to.join("link")).unwrap(), Path::new("/etc/passwd"));
    }

    #[test]
    fn deletions_are_kept_and_told() {
        if skip("deletions_are_kept_and_told", &[Need::Root]) {
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to"));
        std::fs::create_dir_all(from.join("d")).unwrap();
        let dir = Dir::open(&from.join("d")).unwrap();
        mknodat(&dir, "gone", FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        assert!(repeat(&from, &to));
        assert!(to.join("d/gone").symlink_metadata().unwrap().file_type().is_char_device());

        std::fs::remove_file(from.join("d/gone")).unwrap();
        std::fs::write(from.join("d/.kiln-wh.gone"), "").unwrap();
        assert!(!repeat(&from, &temp.path().join("a file")));
        std::fs::set_permissions(from.join("d/.kiln-wh.gone"), PermissionsExt::from_mode(0o000))
            .unwrap();
        assert!(repeat(&from, &temp.path().join("a mark")));

        std::fs::remove_file(from.join("d/.kiln-wh.gone")).unwrap();
        fsetxattr(&dir, "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
        fsetxattr(&dir, "trusted.overlay.origin", b"x", XattrFlags::empty()).unwrap();
        let again = temp.path().join("again");
        assert!(repeat(&from, &again));
        let names = xattr_names(Dir::open(&again.join("d")).unwrap().as_fd()).unwrap();
        assert_eq!(names, [c"trusted.overlay.opaque".to_owned()]);
    }

    #[test]
    fn changes_are_copied_without_what_is_as_below() {
        let directory = tempfile::tempdir().unwrap();
        let (source, dest) = (directory.path().join("source"), directory.path().join("dest"));
        fs::create_dir_all(source.join("same/deep")).unwrap();
        fs::create_dir_all(source.join("refilled")).unwrap();
        fs::create_dir_all(source.join("empty")).unwrap();
        for file in ["new", "same/file", "same/deep/file", "refilled/new"] {
            fs::write(source.join(file), file).unwrap();
        }
        fs::create_dir(&dest).unwrap();
        let (from, to) = (Dir::open(&source).unwrap(), Dir::open(&dest).unwrap());
        let marks = b"usame\0usame/deep\0usame/deep/file\0prefilled\0drefilled/old\0uempty\0";
        let changes = Changes::from_bytes(marks).unwrap();
        if !can_mark(to.as_fd()) {
            let (deletions, kept) = relink_changes(from.as_fd(), to.as_fd(), &changes).unwrap();
            assert!(!deletions && kept == changes && dest.join("empty").is_dir());
            return;
        }
        let (deletions, kept) = relink_changes(from.as_fd(), to.as_fd(), &changes).unwrap();
        assert!(deletions && kept.deleted().next().is_none() && kept.leaves_out(b"refilled"));
        assert!(dest.join("new").is_file() && dest.join("same/file").is_file());
        assert!(!dest.join("same/deep").exists() && !dest.join("empty").exists());
        let deleted = fs::symlink_metadata(dest.join("refilled/old")).unwrap();
        assert!(deleted.file_type().is_char_device() && deleted.rdev() == 0);
    }
}

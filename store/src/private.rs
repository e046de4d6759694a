//! The store is its owner's alone.
//!
//! It holds set-user-ID files of images, secrets of cache mounts and logs of builds, so nobody else
//! may get in, whatever the mode of the directory that it was given. The store's own entries of that
//! directory are closed to others when they are made, and looked at again whenever the store is
//! opened: an older kiln, or a hand, may have made them.
//!
//! Whoever can rename these entries can give the store others. So the directory must belong to the
//! caller or to root, and if it is the caller's, others lose the right to write to it, unless it is
//! sticky as `/tmp`: there, nobody can rename what is another user's.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::error::{Error, Result};
use crate::{layout, snapshotter};

/// The entries that hold something. What else lies in the root isn't the store's.
const OWN: [&str; 16] = [
    layout::ANCHOR,
    "builds",
    "content",
    snapshotter::FILE_MARKS,
    "ids",
    "ingest",
    "keys",
    "kiln.db",
    "kiln.db-shm",
    "kiln.db-wal",
    "lock",
    "mounts",
    snapshotter::REMEMBERED,
    "snapshots",
    "tmp",
    "volumes",
];

/// The user that the kernel shows in place of those that a user namespace doesn't have.
const OVERFLOW: u32 = 65534;
const ROOT: u32 = 0;
const STICKY: u32 = 0o1000;
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Returns what makes directories that are the caller's alone.
pub(crate) fn directories() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

/// Makes a directory that is the caller's alone. It may be there already.
pub(crate) fn create_dir(path: &Path) -> Result<()> {
    match directories().create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.map_err(Error::io("create", path)),
    }
}

/// Writes a file that is the caller's alone.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(bytes)
}

/// Closes the root and what the store has in it to others.
///
/// # Errors
/// Fails where something belongs to somebody else, or can't be closed.
pub(crate) fn protect(root: &Path) -> Result<()> {
    let user = rustix::process::geteuid().as_raw();
    let found = fs::metadata(root).map_err(Error::io("look at", root))?;
    if found.uid() == user {
        if found.mode() & STICKY == 0 {
            forbid(root, &found, WRITABLE_BY_OTHERS)?;
        }
    } else if found.uid() != ROOT && is_known(found.uid()) {
        return Err(layout::foreign(root, root, found.uid()));
    }
    for name in OWN.into_iter().chain([layout::MOUNT_POINTS]) {
        let path = root.join(name);
        // A link to somewhere with more room is the owner's, too.
        for look in [fs::symlink_metadata, fs::metadata] {
            let found = match look(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                found => found.map_err(Error::io("look at", &path))?,
            };
            if found.uid() != user {
                return Err(layout::foreign(root, &path, found.uid()));
            }
            if !found.is_symlink() {
                // Mount points are empty, and their modes are what programs see.
                let forbidden = if name == layout::MOUNT_POINTS { 0o022 } else { 0o077 };
                forbid(&path, &found, forbidden)?;
                break;
            }
        }
    }
    Ok(())
}

/// Takes permissions away. What another process has removed in the meantime needs nothing.
fn forbid(path: &Path, found: &Metadata, forbidden: u32) -> Result<()> {
    let mode = found.mode() & 0o7777;
    if mode & forbidden == 0 {
        return Ok(());
    }
    match fs::set_permissions(path, fs::Permissions::from_mode(mode & !forbidden)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(Error::io("change the mode of", path)),
    }
}

/// Tells whether a number stands for one user.
fn is_known(user: u32) -> bool {
    user != OVERFLOW || kiln_tree::Ids::current().has_user(OVERFLOW)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;
    use crate::Store;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Returns the paths of a store that others can reach, but for the root and mount points.
    fn reachable(root: &Path) -> Vec<String> {
        let open = |entry: &fs::DirEntry| entry.metadata().unwrap().mode() & 0o077 != 0;
        let entries = fs::read_dir(root).unwrap().flatten();
        let names = entries.filter(open).map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| name != layout::MOUNT_POINTS).collect()
    }

    /// Has a store hold one thing of each kind.
    fn fill(root: &Path) -> Store {
        let store = Store::open(root).unwrap();
        store.content().put(b"blob").unwrap();
        store.use_ids(kiln_tree::Ids::current()).unwrap();
        store.note_file_marks().unwrap();
        drop(store.lock("key").unwrap());
        store.snapshotting().unwrap();
        let digest = kiln_oci::Digest::of(b"ahead");
        drop(store.content().resume(&digest).unwrap());
        store
    }

    #[test]
    fn others_reach_nothing_whatever_the_root_has() {
        for mode in [0o755, 0o777, 0o700] {
            let root = tempfile::tempdir().unwrap();
            set_mode(root.path(), mode);
            let store = fill(root.path());
            assert_eq!(reachable(root.path()), Vec::<String>::new());
            let after = fs::metadata(root.path()).unwrap().mode() & 0o777;
            assert_eq!(after, mode & !WRITABLE_BY_OTHERS);
            drop(store);
            assert_eq!(reachable(root.path()), Vec::<String>::new());
        }
    }

    #[test]
    fn a_store_that_was_open_is_closed_when_it_is_opened() {
        let root = tempfile::tempdir().unwrap();
        drop(fill(root.path()));
        std::fs::write(root.path().join("notes"), "").unwrap();
        for entry in fs::read_dir(root.path()).unwrap().flatten() {
            set_mode(&entry.path(), if entry.path().is_dir() { 0o777 } else { 0o666 });
        }
        let store = Store::open(root.path()).unwrap();
        assert_eq!(reachable(root.path()), ["notes"], "it isn't the store's");
        drop(store);
        let points = fs::metadata(root.path().join(layout::MOUNT_POINTS)).unwrap();
        assert_eq!(points.mode() & 0o777, 0o755);
    }

    #[test]
    fn a_sticky_root_stays_what_it_is() {
        let root = tempfile::tempdir().unwrap();
        set_mode(root.path(), 0o1777);
        drop(fill(root.path()));
        assert_eq!(fs::metadata(root.path()).unwrap().mode() & 0o7777, 0o1777);
        assert_eq!(reachable(root.path()), Vec::<String>::new());
    }

    #[test]
    fn what_belongs_to_somebody_else_is_refused() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: what_belongs_to_somebody_else_is_refused needs root");
            return;
        }
        let other = |root: &Path| Store::open(root).unwrap_err().to_string();
        for name in ["", "snapshots", "kiln.db", "content"] {
            let root = tempfile::tempdir().unwrap();
            drop(fill(root.path()));
            let path: std::path::PathBuf = root.path().join(name).components().collect();
            chown(&path, Some(4321), None).unwrap();
            let message = other(root.path());
            assert!(message.starts_with(&format!("{path:?} belongs to user 4321")), "{message}");
        }
        // A link that somebody has put where the store was to be.
        let root = tempfile::tempdir().unwrap();
        let link = root.path().join("builds");
        symlink("/etc", &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(4321), None).unwrap();
        let before = fs::metadata("/etc").unwrap().mode();
        assert!(other(root.path()).contains("belongs to user 4321"));
        assert_eq!(fs::metadata("/etc").unwrap().mode(), before);
    }
}

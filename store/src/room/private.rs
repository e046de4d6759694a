//! Protection of the store from other users.
//!
//! The store contains set-user-ID files of images, secrets in cache mounts, and logs of builds. So
//! other users must not have access, whatever the mode of the root directory. The store creates its
//! entries in that directory without permissions for others. It checks them again whenever it is
//! opened, because an older version of kiln, or a user, may have created them.
//!
//! A user who can rename these entries can replace parts of the store. So the root directory must
//! belong to the caller or to root. If it belongs to the caller, other users lose the permission to
//! write to it, unless it is sticky as `/tmp`: there, users can't rename the entries of others.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::layout;
use crate::error::{Error, Result};

/// The store's entries. Other entries in the root directory don't belong to the store.
const OWN: [&str; 17] = [
    layout::ANCHOR,
    "builds",
    "content",
    layout::FILE_MARKS,
    layout::HISTORY,
    "ids",
    "ingest",
    "keys",
    "kiln.db",
    "kiln.db-shm",
    "kiln.db-wal",
    "lock",
    "mounts",
    layout::OVERLAY,
    layout::TREES,
    "tmp",
    "volumes",
];

/// The user ID that the kernel shows for users that don't exist in a user namespace.
const OVERFLOW: u32 = 65534;
const ROOT: u32 = 0;
const STICKY: u32 = 0o1000;
const SETGID: u32 = 0o2000;
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Returns a builder of directories that only the caller can access.
pub(crate) fn directories() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

/// Creates a directory that only the caller can access, unless it exists.
pub(crate) fn create_dir(path: &Path) -> Result<()> {
    match directories().create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        result => result.map_err(Error::io("create", path))?,
    }
    let group = rustix::process::getegid().as_raw();
    let found = fs::metadata(path).map_err(Error::io("look at", path))?;
    if found.gid() != group || found.mode() & SETGID != 0 {
        // The directory above hands its group on, as in volumes of pods. Trees of images must not
        // inherit it. If the file system refuses, only such trees differ.
        let _ = std::os::unix::fs::chown(path, None, Some(group));
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    }
    Ok(())
}

/// Writes a file that only the caller can access.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(bytes)
}

/// Removes the permissions of other users on the root and its entries.
///
/// # Errors
/// Fails if an entry belongs to another user, or if its permissions can't be changed.
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
        // A link to a file system with more space must belong to the owner too.
        for look in [fs::symlink_metadata, fs::metadata] {
            let found = match look(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                found => found.map_err(Error::io("look at", &path))?,
            };
            if found.uid() != user {
                return Err(layout::foreign(root, &path, found.uid()));
            }
            if !found.is_symlink() {
                // Mount points are empty, and programs see their modes.
                let forbidden = if name == layout::MOUNT_POINTS { 0o022 } else { 0o077 };
                forbid(&path, &found, forbidden)?;
                break;
            }
        }
    }
    Ok(())
}

/// Removes permissions. Ignores an entry that another process has removed in the meantime.
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

/// Returns `true` if the ID belongs to a single user.
fn is_known(user: u32) -> bool {
    user != OVERFLOW || kiln_tree::Ids::current().has_user(OVERFLOW)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;
    use crate::Store;

    #[test]
    fn directories_do_not_inherit_a_group() {
        let temp = tempfile::tempdir().unwrap();
        set_mode(temp.path(), 0o2775);
        let store = temp.path().join("store");
        create_dir(&store).unwrap();
        create_dir(&store.join("below")).unwrap();
        let mode = fs::metadata(store.join("below")).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o700);
        let own = rustix::process::getegid().as_raw();
        assert_eq!(fs::metadata(&store).unwrap().gid(), own);
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Returns the paths of a store that other users can access, except the root and the mount
    /// points.
    fn reachable(root: &Path) -> Vec<String> {
        let open = |entry: &fs::DirEntry| entry.metadata().unwrap().mode() & 0o077 != 0;
        let entries = fs::read_dir(root).unwrap().flatten();
        let names = entries.filter(open).map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| name != layout::MOUNT_POINTS).collect()
    }

    /// Creates a store with an object of each kind.
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
        // A link that another user has created in place of a directory.
        let root = tempfile::tempdir().unwrap();
        let link = root.path().join("builds");
        symlink("/etc", &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(4321), None).unwrap();
        let before = fs::metadata("/etc").unwrap().mode();
        assert!(other(root.path()).contains("belongs to user 4321"));
        assert_eq!(fs::metadata("/etc").unwrap().mode(), before);
    }
}

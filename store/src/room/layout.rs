//! The fixed parts of a store: the OCI image layout `content/` (`oci-layout`, `index.json`,
//! `blobs/sha256`), `mount-points-2/` and `anchor/`.
//!
//! The SQLite index is the authority for images. `index.json` is written from it, for other tools
//! (`content::images::publication`).
//!
//! `mount-points-2/` is a tree of the mount points that every program needs, all empty and always
//! the same. It is the lowest directory of programs' root file systems, so that mount points need
//! not be created in each of them and removed again. Programs' root file systems are mounted on the
//! directory `anchor/`, each in a mount namespace of its own, so that no other process sees them.

use std::fs::{self, File, FileTimes};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

use kiln_oci::{Digest, media_type};
use kiln_tree::Ids;
use serde_json::json;

use super::{Room, private};
use crate::error::{Error, Result};

/// The directory of the layers' trees.
pub(crate) const TREES: &str = "snapshots";

/// The directory of the blobs.
pub(crate) const BLOBS: &str = "content/blobs/sha256";

/// The file that lists the named images.
pub(crate) const INDEX_JSON: &str = "content/index.json";

/// The name of a file that exists if files mark deletions.
pub(crate) const FILE_MARKS: &str = "file-marks";

/// The name of a file with the situation in which an overlay was mounted.
pub(crate) const OVERLAY: &str = "overlay";

/// The directory of a server's history.
///
/// The server defines its contents: files in `records` and in `blobs`.
pub(crate) const HISTORY: &str = "history";

/// The name of the empty directory.
pub(crate) const ANCHOR: &str = "anchor";

/// The name of the tree of mount points.
///
/// Stores of earlier versions also have a larger tree with another name.
pub(crate) const MOUNT_POINTS: &str = "mount-points-2";

/// Creates an empty layout unless one exists.
pub(crate) fn create(root: &Path) -> Result<()> {
    let content = root.join("content");
    let blobs = root.join(BLOBS);
    if !content.is_dir() {
        check_file_system(root)?;
        private::create_dir(&content)?;
    }
    if !blobs.is_dir() {
        let made = private::directories().recursive(true).create(&blobs);
        made.map_err(Error::io("create", &blobs))?;
    }
    let version = content.join("oci-layout");
    if !version.exists() {
        place(root, &version, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    }
    let index = root.join(INDEX_JSON);
    if !index.exists() {
        place(root, &index, &index_json(&[])?)?;
    }
    Ok(())
}

/// Checks that the file system supports everything that trees need.
fn check_file_system(root: &Path) -> Result<()> {
    let place = root.join(format!(".new-{}", crate::name::fresh()));
    fs::create_dir(&place).map_err(Error::io("create", &place))?;
    let lacks = lacking(&place);
    let _ = fs::remove_dir_all(&place);
    match lacks.map_err(Error::io("try", root))? {
        None => Ok(()),
        Some(problem) => Err(Error::Unsuitable { root: root.to_owned(), problem }),
    }
}

/// Returns the feature that the file system at `place` lacks.
fn lacking(place: &Path) -> io::Result<Option<String>> {
    const MODE: u32 = 0o4751;
    let file = place.join("file");
    fs::write(&file, "")?;
    let attempt = |what: &str, result: io::Result<()>| {
        result.err().map(|error| format!("it has no {what} ({})", error.kind()))
    };
    if let Some(problem) = attempt("hard links", fs::hard_link(&file, place.join("link")))
        .or_else(|| attempt("symbolic links", std::os::unix::fs::symlink("f", place.join("sym"))))
    {
        return Ok(Some(problem));
    }
    let owner = (Some(1), Some(1));
    let is_root = rustix::process::geteuid().is_root() && Ids::current().has_user(1);
    if is_root {
        let given = std::os::unix::fs::chown(&file, owner.0, owner.1);
        if let Some(problem) = attempt("owners", given) {
            return Ok(Some(problem));
        }
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(MODE))?;
    let found = fs::symlink_metadata(&file)?;
    if is_root && (Some(found.uid()), Some(found.gid())) != owner {
        return Ok(Some("it keeps no owners".to_owned()));
    }
    Ok((found.mode() & 0o7777 != MODE).then(|| "it keeps no modes".to_owned()))
}

/// Creates the tree of mount points if it doesn't exist.
pub(crate) fn create_mount_points(room: &Room) -> Result<()> {
    let path = room.root().join(MOUNT_POINTS);
    if path.is_dir() {
        return Ok(());
    }
    let temporary = room.process().fresh_dir()?;
    for name in ["dev", "etc", "proc", "sys"] {
        let directory = temporary.join(name);
        fs::create_dir(&directory).map_err(Error::io("create", &directory))?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))
            .map_err(Error::io("change the mode of", &directory))?;
    }
    let etc = temporary.join("etc");
    for name in ["hosts", "resolv.conf"] {
        let file = etc.join(name);
        fs::write(&file, "").map_err(Error::io("create", &file))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644))
            .map_err(Error::io("change the mode of", &file))?;
    }
    // If a step changes a directory, the directory becomes a part of the layer, with its time.
    let times = FileTimes::new().set_modified(UNIX_EPOCH).set_accessed(UNIX_EPOCH);
    for name in ["dev", "etc", "proc", "sys"] {
        let directory = temporary.join(name);
        let dated = File::open(&directory).and_then(|directory| directory.set_times(times));
        dated.map_err(Error::io("set the times of", &directory))?;
    }
    match fs::rename(&temporary, &path) {
        // Another process was faster. The temporary tree is removed with this process.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        other => other.map_err(Error::io("create", &path)),
    }
}

/// Returns the contents of `index.json` for the named images: their names, media types, digests and
/// sizes.
pub(crate) fn index_json(named: &[(String, String, Digest, i64)]) -> Result<Vec<u8>> {
    let manifests: Vec<_> = named
        .iter()
        .map(|(name, media_type, digest, size)| {
            json!({
                "mediaType": media_type,
                "digest": digest,
                "size": size,
                "annotations": { "org.opencontainers.image.ref.name": name },
            })
        })
        .collect();
    let index = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": manifests,
    });
    serde_json::to_vec(&index).map_err(|error| Error::io("encode", "index.json")(error))
}

/// Records the IDs with which the trees are written, or checks that they equal the recorded ones.
pub(crate) fn use_ids(root: &Path, ids: &Ids) -> Result<()> {
    let path = root.join("ids");
    let is_single = ids.is_single();
    let ids = ids.on_disk();
    let ids = ids.as_str();
    let known = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if is_single {
                check_records(root)?;
            }
            place(root, &path, ids.as_bytes())?;
            fs::read_to_string(&path)
        }
        other => other,
    };
    let known = known.map_err(Error::io("read", &path))?;
    if known == ids { Ok(()) } else { Err(other_ids(root, &known, ids)) }
}

/// Checks that the file system keeps records of what the kernel refuses.
fn check_records(root: &Path) -> Result<()> {
    let file = root.join("tmp").join(format!(".new-{}", crate::name::fresh()));
    private::write(&file, b"").map_err(Error::io("create", &file))?;
    let (record, value) = ("user.kiln.owner", b"0:1");
    let kept = rustix::fs::setxattr(&file, record, value, rustix::fs::XattrFlags::empty());
    let _ = fs::remove_file(&file);
    kept.map_err(|errno| Error::Unsuitable {
        root: root.to_owned(),
        problem: format!(
            "it has no extended attributes of users ({}), in which kiln records the owners and \
             modes of files here; ext4, XFS, btrfs and the tmpfs of Linux 6.6 have them",
            io::Error::from(errno).kind()
        ),
    })
}

/// Returns the error for a part of the store with another owner: the store was created with other
/// IDs, or another user has created the part.
pub(crate) fn foreign(root: &Path, path: &Path, owner: u32) -> Error {
    let ids = Ids::current().on_disk();
    match fs::read_to_string(root.join("ids")) {
        Ok(known) if known != ids => other_ids(root, &known, &ids),
        _ => Error::Foreign { path: path.to_owned(), owner },
    }
}

fn other_ids(root: &Path, known: &str, ids: &str) -> Error {
    let (known, ids) = (known.trim().to_owned(), ids.trim().to_owned());
    Error::OtherIds { root: root.to_owned(), known, ids }
}

/// Writes a file under a temporary name first, since several processes may create a store at once.
fn place(root: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = root.join("content").join(format!(".new-{}", crate::name::fresh()));
    private::write(&temporary, bytes).map_err(Error::io("write", &temporary))?;
    // Linking fails if the file exists by now. Then the existing file is kept.
    let linked = match fs::hard_link(&temporary, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    };
    let _ = fs::remove_file(&temporary);
    linked.map_err(Error::io("create", path))
}

//! Stamps: fingerprints that detect changes to a tree.
//!
//! A stamp consists of the data that a walk sees without opening files: paths, types, modes,
//! owners, sizes, modification times, link targets, device numbers and `security.capability`.
//! Writing into a tree changes its stamp, unless the writer hides it. A bit error of a disk does
//! not; [`crate::content_digest`] detects those, but must read all files.
//!
//! Data that changes by itself is left out: inode numbers, access times, status change times (which
//! a further hard link changes), the sizes of directories.
//!
//! The same walk measures the disk space of the tree ([`survey`]).

use std::collections::HashMap;
use std::path::Path;

use kiln_oci::{Digest, DigestHasher};

use crate::copy::CopiedFiles;
use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::metadata::{FileKind, Metadata};
use crate::view::View;
use crate::walk::{self, Entry};

/// A prefix of the stream. It changes with the format.
const FORM: &[u8] = b"kiln stamp 1";

/// The fingerprint of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The number of entries, including the root.
    pub entries: u64,
    /// The digest of the entries' visible data.
    pub digest: Digest,
}

/// The disk space of a tree, in bytes of used blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUse {
    /// The space that is freed when the tree is removed: that of its directories and files. A file
    /// with several names counts once.
    pub own: u64,
    /// The space of files that also have names outside of the tree, and remain when the tree is
    /// removed.
    pub shared: u64,
}

/// Returns the stamp of a tree.
///
/// # Errors
/// Fails if a directory or an entry's attributes can't be read.
pub fn stamp(dir: &Dir) -> Result<Stamp> {
    survey(dir).map(|(stamp, _)| stamp)
}

/// Returns the stamp and the disk space of a tree.
///
/// # Errors
/// Fails if a directory or an entry's attributes can't be read.
pub fn survey(dir: &Dir) -> Result<(Stamp, DiskUse)> {
    survey_entries(dir).map(|(stamp, room, _)| (stamp, room))
}

/// Returns the stamp and the disk space of a tree, and the [record](crate::CopyRecord) of the
/// copies that created it. The record is `None` if the tree can't be compared with others.
///
/// # Errors
/// Fails if a directory or an entry's attributes can't be read.
pub fn survey_copied(dir: &Dir, copied: &CopiedFiles) -> Result<Surveyed> {
    let (stamp, room, entries) = survey_entries(dir)?;
    let record = copied.record(&entries);
    let record = record.map_err(|error| Error::io("record", Path::new("/"), error))?;
    Ok(Surveyed { stamp, room, record })
}

/// The result of [`survey_copied`].
#[derive(Debug)]
pub struct Surveyed {
    /// The stamp of the tree.
    pub stamp: Stamp,
    /// The disk space of the tree.
    pub room: DiskUse,
    /// The record of the tree, if it can be compared with others.
    pub record: Option<Vec<u8>>,
}

fn survey_entries(dir: &Dir) -> Result<(Stamp, DiskUse, Vec<Entry>)> {
    let view = View::of_layer(dir);
    let entries = walk::entries(view, Path::new("/"))?;
    let mut hasher = DigestHasher::new();
    hasher.update(FORM);
    let mut line = Vec::new();
    for entry in &entries {
        line.clear();
        describe(entry, &mut line);
        hasher.update(&(line.len() as u64).to_le_bytes());
        hasher.update(&line);
    }
    let stamp = Stamp { entries: entries.len() as u64, digest: hasher.finish() };
    let room = disk_use(&entries);
    Ok((stamp, room, entries))
}

fn disk_use(entries: &[Entry]) -> DiskUse {
    let mut room = DiskUse::default();
    let mut linked: HashMap<(u64, u64), u64> = HashMap::new();
    for Metadata { blocks, links, device, inode, kind, .. } in entries.iter().map(|e| &e.metadata) {
        let bytes = blocks * 512;
        if *links < 2 || *kind == FileKind::Directory {
            room.own += bytes;
            continue;
        }
        let seen = linked.entry((*device, *inode)).or_default();
        *seen += 1;
        if *seen == 1 {
            room.shared += bytes;
        }
        if *seen == *links {
            room.shared -= bytes;
            room.own += bytes;
        }
    }
    room
}

fn describe(entry: &Entry, line: &mut Vec<u8>) {
    let Metadata { kind, mode, owner, size, mtime, .. } = entry.metadata;
    let size = if kind == FileKind::File { size } else { 0 };
    let (kind, major, minor) = kind.letter();
    line.push(kind);
    for number in [mode, owner.uid, owner.gid, major, minor, mtime.nanoseconds] {
        line.extend(number.to_le_bytes());
    }
    line.extend(size.to_le_bytes());
    line.extend(mtime.seconds.to_le_bytes());
    let capability = entry.xattr(b"security.capability").unwrap_or_default();
    for bytes in [&entry.path.to_vec(), &entry.target, capability] {
        line.extend((bytes.len() as u64).to_le_bytes());
        line.extend(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn files_count_once_and_with_the_tree_that_has_all_their_names() {
        use std::os::unix::fs::MetadataExt;

        let temp = tempfile::tempdir().unwrap();
        let tree = temp.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(tree.join("a"), vec![1; 100_000]).unwrap();
        std::fs::hard_link(tree.join("a"), tree.join("b")).unwrap();
        let blocks = |path: &Path| path.metadata().unwrap().blocks() * 512;
        let (file, directory) = (blocks(&tree.join("a")), blocks(&tree));
        let room = || survey(&Dir::open(&tree).unwrap()).unwrap().1;
        assert_eq!(room(), DiskUse { own: file + directory, shared: 0 });
        std::fs::hard_link(tree.join("a"), temp.path().join("c")).unwrap();
        assert_eq!(room(), DiskUse { own: directory, shared: file });
    }

    #[test]
    fn a_touched_tree_has_another_stamp() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        std::fs::create_dir(at("d")).unwrap();
        std::fs::write(at("d/f"), "content").unwrap();
        symlink("f", at("d/l")).unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let mut last = stamp(&dir).unwrap();
        assert_eq!((stamp(&dir).unwrap(), last.entries), (last, 4));
        // Reading a file and linking to it from elsewhere are no changes.
        let elsewhere = tempfile::tempdir_in(temp.path().parent().unwrap()).unwrap();
        std::fs::read(at("d/f")).unwrap();
        std::fs::hard_link(at("d/f"), elsewhere.path().join("f")).unwrap();
        assert_eq!(stamp(&dir).unwrap(), last);
        let changes: [&dyn Fn(); 4] = [
            &|| std::fs::write(at("d/f"), "contenT").unwrap(),
            &|| std::fs::set_permissions(at("d/f"), PermissionsExt::from_mode(0o600)).unwrap(),
            &|| std::fs::rename(at("d/f"), at("d/g")).unwrap(),
            &|| std::fs::remove_file(at("d/l")).unwrap(),
        ];
        for change in changes {
            change();
            let now = stamp(&dir).unwrap();
            assert_ne!(now.digest, last.digest);
            last = now;
        }
    }
}

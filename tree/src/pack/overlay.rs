//! How overlayfs keeps deletions in an upper directory, and how a layer's tar does.

use crate::changes;
use crate::error::{Error, Result};
use crate::metadata::FileKind;
use crate::names;
use crate::walk::Entry;

/// What the name of a mark begins with in a tar.
const MARK: &[u8] = b".wh.";

/// What the name of a mark begins with where it is a file. Some file systems refuse the names that
/// tars use.
pub const FILE_MARK: &[u8] = b".kiln-wh.";

/// What an entry of an upper directory deletes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// Nothing.
    None,
    /// What has its name in the layers below.
    Whiteout,
    /// All that the layers below have in this directory.
    Opaque,
}

/// Tells what an entry deletes.
///
/// # Errors
/// Fails on entries that are not whole: with `redirect_dir` a directory's entries, with `metacopy` a
/// file's bytes are elsewhere.
pub(crate) fn deletion(entry: &Entry) -> Result<Deletion> {
    if entry.metadata.kind == (FileKind::CharDevice { major: 0, minor: 0 }) || is_file_mark(entry) {
        return Ok(Deletion::Whiteout);
    }
    for elsewhere in ["redirect", "metacopy"] {
        if attribute(entry, elsewhere.as_bytes()).is_some() {
            let problem = format!("overlayfs keeps it elsewhere ({elsewhere}), it can't be packed");
            return Err(Error::invalid(entry.shown(), problem));
        }
    }
    if entry.metadata.is_dir() && attribute(entry, b"opaque") == Some(b"y") {
        return Ok(Deletion::Opaque);
    }
    Ok(Deletion::None)
}

/// Returns an attribute of overlayfs, with either of its prefixes.
fn attribute<'a>(entry: &'a Entry, name: &[u8]) -> Option<&'a [u8]> {
    if entry.xattrs.is_empty() {
        return None;
    }
    let prefixes = [&b"trusted.overlay."[..], b"user.overlay."];
    prefixes.iter().find_map(|prefix| entry.xattr(&[prefix, name].concat()))
}

/// Tells whether an entry is the mark that file systems get which refuse overlayfs's.
fn is_file_mark(entry: &Entry) -> bool {
    let metadata = &entry.metadata;
    metadata.is_file()
        && (metadata.mode, metadata.size) == (0, 0)
        && entry.name().strip_prefix(FILE_MARK).is_some_and(|name| !name.is_empty())
}

/// Returns the entries of a walk with all marks as overlayfs has them, in the order that a walk then
/// has.
pub(crate) fn with_marks_of_overlayfs(mut entries: Vec<Entry>) -> Vec<Entry> {
    let mut found = false;
    for entry in entries.iter_mut().filter(|entry| is_file_mark(entry)) {
        found = true;
        entry.path = hidden(&entry.path.to_vec(), FileKind::File).into();
        entry.metadata.kind = FileKind::CharDevice { major: 0, minor: 0 };
    }
    if found {
        entries.sort_by_cached_key(|entry| changes::key(&entry.path.to_vec()));
    }
    entries
}

/// Returns the path of what a mark of this kind at `path` deletes. The path of anything else stays
/// as it is.
pub(crate) fn hidden(path: &[u8], kind: FileKind) -> Vec<u8> {
    let name = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    match path[name..].strip_prefix(FILE_MARK) {
        Some(hidden) if kind == FileKind::File => [&path[..name], hidden].concat(),
        _ => path.to_vec(),
    }
}

/// Returns the path of the file that marks the deletion of `path`, where it is one.
pub(crate) fn file_mark(path: &[u8]) -> Vec<u8> {
    let name = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    [&path[..name], FILE_MARK, &path[name..]].concat()
}

/// Returns the path of the mark that deletes `path`, in a tar.
pub(crate) fn whiteout(path: &[u8]) -> Vec<u8> {
    let name = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    [&path[..name], MARK, &path[name..]].concat()
}

/// Returns the number of bytes that the name of an entry in a tar has beyond its path: the slash of a
/// directory, the mark of a deletion.
pub(crate) fn added(kind: FileKind) -> usize {
    match kind {
        FileKind::Directory => 1,
        FileKind::CharDevice { major: 0, minor: 0 } => MARK.len(),
        _ => 0,
    }
}

/// Returns the path of the mark that makes the directory `path` opaque.
pub(super) fn opaque(path: &[u8]) -> Vec<u8> {
    names::join(path, b".wh..wh..opq")
}

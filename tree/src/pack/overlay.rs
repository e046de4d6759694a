//! The representations of deletions in upper directories and in tars.

use crate::changes;
use crate::error::{Error, Result};
use crate::metadata::FileKind;
use crate::names;
use crate::walk::Entry;

/// The prefix of a mark's name in a tar.
const MARK: &[u8] = b".wh.";

/// The prefix of a mark's name if it is a file in a tree. Some file systems refuse the names that
/// tars use.
pub const FILE_MARK: &[u8] = b".kiln-wh.";

/// The deletion that an entry of an upper directory represents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// No deletion at all.
    None,
    /// The deletion of the entry of the same name in the layers below.
    Whiteout,
    /// The deletion of all entries of this directory in the layers below.
    Opaque,
}

/// Returns the deletion that an entry represents.
///
/// # Errors
/// Fails on incomplete entries: with `redirect_dir` a directory's entries are elsewhere, with
/// `metacopy` a file's content is.
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

/// Returns an attribute of overlayfs, with either prefix.
fn attribute<'a>(entry: &'a Entry, name: &[u8]) -> Option<&'a [u8]> {
    if entry.xattrs.is_empty() {
        return None;
    }
    let prefixes = [&b"trusted.overlay."[..], b"user.overlay."];
    prefixes.iter().find_map(|prefix| entry.xattr(&[prefix, name].concat()))
}

/// Returns `true` for a file that marks a deletion in place of overlayfs's device.
fn is_file_mark(entry: &Entry) -> bool {
    let metadata = &entry.metadata;
    metadata.is_file()
        && (metadata.mode, metadata.size) == (0, 0)
        && entry.name().strip_prefix(FILE_MARK).is_some_and(|name| !name.is_empty())
}

/// Returns the entries of a walk with all marks replaced by overlayfs's devices, in the order that
/// a walk then has.
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

/// Returns the path that the mark at `path` deletes. Returns other paths unchanged.
pub(crate) fn hidden(path: &[u8], kind: FileKind) -> Vec<u8> {
    let name = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    match path[name..].strip_prefix(FILE_MARK) {
        Some(hidden) if kind == FileKind::File => [&path[..name], hidden].concat(),
        _ => path.to_vec(),
    }
}

/// Returns the path of the file that marks the deletion of `path`.
pub(crate) fn file_mark(path: &[u8]) -> Vec<u8> {
    let name = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    [&path[..name], FILE_MARK, &path[name..]].concat()
}

/// Returns the path of the tar entry that marks the deletion of `path`.
pub(crate) fn whiteout(path: &[u8]) -> Vec<u8> {
    let name = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    [&path[..name], MARK, &path[name..]].concat()
}

/// Returns the number of bytes that an entry's name in a tar exceeds its path: the slash of a
/// directory, or the prefix of a deletion's mark.
pub(crate) fn added(kind: FileKind) -> usize {
    match kind {
        FileKind::Directory => 1,
        FileKind::CharDevice { major: 0, minor: 0 } => MARK.len(),
        _ => 0,
    }
}

/// Returns the path of the tar entry that makes the directory `path` opaque.
pub(super) fn opaque(path: &[u8]) -> Vec<u8> {
    names::join(path, b".wh..wh..opq")
}

//! Paths that share their directories.
//!
//! A walk keeps a path for each entry of a tree. Whole paths would take memory in proportion to the
//! depth of the tree: a directory that is thousands of bytes deep and has a million files would take
//! gigabytes. So a path is a name and the directory that it is in, which all entries of the directory
//! share, and the bytes of the whole are put together where they are needed.

use std::fmt;
use std::sync::Arc;

use super::beneath;
use crate::names;

/// The path of an entry from the root of its view, without a slash in front; empty for the root.
#[derive(Clone, Default)]
pub struct EntryPath {
    /// The directory that the entry is in; `None` for the root.
    directory: Option<Arc<Directory>>,
    /// Its name there. The path of one that no walk has found may be whole here, with slashes.
    name: Box<[u8]>,
}

/// A directory that is in paths.
#[derive(Debug)]
pub(super) struct Directory(EntryPath);

impl Directory {
    /// Returns the bytes of its path.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        self.0.to_vec()
    }
}

impl EntryPath {
    /// Returns the path of an entry of a directory.
    pub(super) fn below(directory: Option<&Arc<Directory>>, name: &[u8]) -> Self {
        Self { directory: directory.cloned(), name: name.into() }
    }

    /// Returns the directory that the walk has found the entry in, where that isn't the root, and whose name
    /// the entry's own name doesn't hold.
    pub(super) fn directory(&self) -> Option<&Arc<Directory>> {
        self.directory.as_ref()
    }

    /// Returns the directory with this path; `None` for the root.
    pub(super) fn to_directory(&self) -> Option<Arc<Directory>> {
        (!self.is_empty()).then(|| Arc::new(Directory(self.clone())))
    }

    /// Returns the bytes of the whole path.
    pub fn to_vec(&self) -> Vec<u8> {
        // From its end, since names lead to the directories above.
        let mut bytes = vec![b'/'; self.len()];
        let (mut end, mut path) = (bytes.len(), self);
        loop {
            let start = end - path.name.len();
            bytes[start..end].copy_from_slice(&path.name);
            let Some(above) = &path.directory else { return bytes };
            (end, path) = (start - 1, &above.0);
        }
    }

    /// Returns the bytes of the whole path behind the first `start`.
    pub(crate) fn tail(&self, start: usize) -> Vec<u8> {
        let mut bytes = self.to_vec();
        bytes.drain(..start);
        bytes
    }

    /// Returns the number of its bytes.
    pub fn len(&self) -> usize {
        let mut length = self.name.len();
        let mut directory = self.directory.as_ref();
        while let Some(above) = directory {
            length += above.0.name.len() + 1;
            directory = above.0.directory.as_ref();
        }
        length
    }

    /// Tells whether it is the root's.
    pub fn is_empty(&self) -> bool {
        self.name.is_empty() && self.directory.is_none()
    }

    /// Returns its last name; empty for the root.
    pub fn name(&self) -> &[u8] {
        beneath::split(&self.name).1
    }
}

impl From<Vec<u8>> for EntryPath {
    fn from(path: Vec<u8>) -> Self {
        Self { directory: None, name: path.into() }
    }
}

impl PartialEq for EntryPath {
    fn eq(&self, other: &Self) -> bool {
        match (&self.directory, &other.directory) {
            (Some(one), Some(two)) if Arc::ptr_eq(one, two) => self.name == other.name,
            (None, None) => self.name == other.name,
            _ => self.len() == other.len() && self.to_vec() == other.to_vec(),
        }
    }
}

impl Eq for EntryPath {}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(names::path(&self.to_vec()), f)
    }
}

impl Drop for Directory {
    /// Drops the directories above one after the other: there may be more of them than a thread's
    /// stack can hold.
    fn drop(&mut self) {
        let mut next = self.0.directory.take();
        while let Some(mut directory) = next.and_then(Arc::into_inner) {
            next = directory.0.directory.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_put_together() {
        let a = EntryPath::below(None, b"a");
        let b = EntryPath::below(a.to_directory().as_ref(), b"b");
        let whole = EntryPath::from(b"a/b".to_vec());
        assert_eq!((b.to_vec(), b.len(), b.name()), (b"a/b".to_vec(), 3, &b"b"[..]));
        assert_eq!((whole.name(), whole.len()), (&b"b"[..], 3));
        assert_eq!(b, whole);
        assert_ne!(a, b);
        let root = EntryPath::default();
        assert!(root.is_empty() && root.to_directory().is_none() && root.to_vec().is_empty());
        assert_eq!(format!("{b:?}"), "\"a/b\"");
    }

    #[test]
    fn a_million_levels_are_dropped() {
        let mut directory = None;
        for _ in 0..1_000_000 {
            directory = EntryPath::below(directory.as_ref(), b"d").to_directory();
        }
        let deep = EntryPath::below(directory.as_ref(), b"d");
        drop(directory);
        assert_eq!(deep.len(), 2_000_001);
    }
}

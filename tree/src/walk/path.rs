//! Paths that share their directories.
//!
//! A walk keeps a path for each entry of a tree. With whole paths, the memory would grow with the
//! depth of the tree: a million files in a directory whose path has thousands of bytes would take
//! gigabytes. So a path consists of a name and a directory, which all of its entries share. The
//! whole path is assembled when it is needed.

use std::fmt;
use std::sync::Arc;

use super::beneath;
use crate::names;

/// The path of an entry from the root of its view, without a leading slash; empty for the root.
#[derive(Clone, Default)]
pub struct EntryPath {
    /// The directory that contains the entry; `None` for the root.
    directory: Option<Arc<Directory>>,
    /// The name in the directory. A path that doesn't come from a walk may be here as a whole, with
    /// slashes.
    name: Box<[u8]>,
}

/// The path of a directory that its entries share.
#[derive(Debug)]
pub(super) struct Directory(EntryPath);

impl Directory {
    /// Returns the bytes of the whole path.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        self.0.to_vec()
    }
}

impl EntryPath {
    /// Returns the path of the entry `name` of a directory.
    pub(super) fn below(directory: Option<&Arc<Directory>>, name: &[u8]) -> Self {
        Self { directory: directory.cloned(), name: name.into() }
    }

    /// Returns the directory that contains the entry, if the path comes from a walk and the
    /// directory isn't the root.
    pub(super) fn directory(&self) -> Option<&Arc<Directory>> {
        self.directory.as_ref()
    }

    /// Returns the directory with this path; `None` for the root.
    pub(super) fn to_directory(&self) -> Option<Arc<Directory>> {
        (!self.is_empty()).then(|| Arc::new(Directory(self.clone())))
    }

    /// Returns the bytes of the whole path.
    pub fn to_vec(&self) -> Vec<u8> {
        // The path is assembled from its end, since names refer to the directories above.
        let mut bytes = vec![b'/'; self.len()];
        let (mut end, mut path) = (bytes.len(), self);
        loop {
            let start = end - path.name.len();
            bytes[start..end].copy_from_slice(&path.name);
            let Some(above) = &path.directory else { return bytes };
            (end, path) = (start - 1, &above.0);
        }
    }

    /// Returns the whole path without its first `start` bytes.
    pub(crate) fn tail(&self, start: usize) -> Vec<u8> {
        let mut bytes = self.to_vec();
        bytes.drain(..start);
        bytes
    }

    /// Returns the length of the whole path in bytes.
    pub fn len(&self) -> usize {
        let mut length = self.name.len();
        let mut directory = self.directory.as_ref();
        while let Some(above) = directory {
            length += above.0.name.len() + 1;
            directory = above.0.directory.as_ref();
        }
        length
    }

    /// Returns `true` for the root.
    pub fn is_empty(&self) -> bool {
        self.name.is_empty() && self.directory.is_none()
    }

    /// Returns the last component; empty for the root.
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
    /// Drops the directories above in a loop. There may be too many of them for recursion on a
    /// thread's stack.
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

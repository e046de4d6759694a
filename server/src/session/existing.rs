//! The entries of the directory on the disk that a transfer compares with the client's.

use std::collections::HashMap;
use std::path::Path;

use kiln_tree::walk::{Entry, entries};
use kiln_tree::{Dir, Ids, Metadata, View};

use super::error::Result;
use super::stat::{compare, is_below};

/// An entry on the disk.
pub(super) struct Found {
    pub(super) metadata: Metadata,
    /// The target of a symbolic link.
    pub(super) target: Vec<u8>,
    /// The first path of the same file, if this is another one.
    pub(super) link: Option<Vec<u8>>,
}

/// The entries on the disk in the order of a transfer.
pub(super) struct Existing {
    entries: std::vec::IntoIter<Entry>,
    /// The first entry that is left, with its path.
    current: Option<(Vec<u8>, Entry)>,
    /// The first paths of files with several, by device and inode.
    first: HashMap<(u64, u64), Vec<u8>>,
}

impl Existing {
    /// Lists the entries of a directory and below.
    pub(super) fn list(dir: &Dir) -> Result<Self> {
        // Owners and modes may be recorded in extended attributes.
        let view = View { xattrs: Ids::current().has_records(), ..View::of(dir) };
        let mut entries = entries(view, Path::new("/"))?.into_iter();
        // The root.
        entries.next();
        let mut existing = Self { entries, current: None, first: HashMap::new() };
        existing.advance();
        Ok(existing)
    }

    fn advance(&mut self) {
        self.current = self.entries.next().map(|entry| (entry.path.to_vec(), entry));
    }

    /// Returns the path of the current entry if it is before `next`.
    pub(super) fn before(&self, next: Option<&[u8]>) -> Option<Vec<u8>> {
        let (path, _) = self.current.as_ref()?;
        next.is_none_or(|next| compare(path, next).is_lt()).then(|| path.clone())
    }

    /// Returns the current entry if it is at `path`.
    pub(super) fn take(&mut self, path: &[u8]) -> Option<Found> {
        let (path, entry) = self.current.take_if(|(current, _)| current == path)?;
        self.advance();
        let Entry { metadata, target, .. } = entry;
        let mut link = None;
        if metadata.is_file() && metadata.links > 1 {
            let inode = (metadata.device, metadata.inode);
            link = self.first.get(&inode).cloned();
            if link.is_none() {
                self.first.insert(inode, path);
            }
        }
        Some(Found { metadata, target, link })
    }

    /// Passes the current entry if it is at `path`, and all below.
    pub(super) fn skip_below(&mut self, path: &[u8]) {
        while self.current.as_ref().is_some_and(|(at, _)| at == path || is_below(at, path)) {
            self.advance();
        }
    }
}

//! The entries of a layer's tar, in the order of containerd's layer writer.
//!
//! Entries are in the order of a walk. Unchanged entries are skipped, but an unchanged directory
//! precedes the first written entry below it. In a replaced directory, an unchanged name of a file
//! waits until another name of the file is written, and follows it.

use std::collections::{HashMap, HashSet};

use super::overlay::{self, Deletion};
use super::{Item, Role};
use crate::changes::{Changes, Mark, key};
use crate::error::Result;
use crate::metadata::FileKind;
use crate::walk::Entry;

/// Returns the entries of the tar of an upper directory with the given entries.
pub(super) fn items(entries: Vec<Entry>, changes: &Changes) -> Result<Vec<Item>> {
    let mut layer = Layer::default();
    let mut deleted = changes.deleted().peekable();
    for entry in entries {
        let here = key(&entry.path.to_vec());
        while let Some(path) = deleted.next_if(|path| key(path) < here) {
            layer.delete(&path);
        }
        layer.add(entry, changes)?;
    }
    deleted.for_each(|path| layer.delete(&path));
    Ok(layer.items)
}

/// A file with several names.
#[derive(Default)]
struct Linked {
    /// The index of the item with the file's content.
    first: Option<usize>,
    /// The unchanged names that were met before that item.
    waiting: Vec<Entry>,
}

/// A layer under construction.
#[derive(Default)]
struct Layer {
    items: Vec<Item>,
    /// The unchanged directories in which nothing has changed so far.
    passed: HashMap<Vec<u8>, Entry>,
    files: HashMap<(u64, u64), Linked>,
    /// The parents of recent entries that need no further lookup.
    complete: HashSet<Vec<u8>>,
}

impl Layer {
    fn add(&mut self, entry: Entry, changes: &Changes) -> Result<()> {
        if entry.path.is_empty() || entry.metadata.kind == FileKind::Socket {
            return Ok(());
        }
        let mark = changes.of(&entry.path.to_vec());
        match (overlay::deletion(&entry)?, mark) {
            (Deletion::Whiteout, Some(_)) => {}
            (Deletion::Whiteout, None) => self.delete(&entry.path.to_vec()),
            (_, Some(Mark::Unchanged | Mark::Refilled)) if entry.metadata.is_dir() => {
                self.passed.insert(entry.path.to_vec(), entry);
            }
            (_, Some(Mark::Unchanged | Mark::Refilled)) => {}
            (_, Some(Mark::Linked)) => self.add_linked(entry),
            (Deletion::Opaque, None) => {
                let mark = overlay::opaque(&entry.path.to_vec());
                self.write(entry);
                self.items.push(Item::mark(mark));
            }
            (_, _) => self.write(entry),
        }
        Ok(())
    }

    /// Adds the deletion of `path`.
    fn delete(&mut self, path: &[u8]) {
        self.write_parents(path);
        self.items.push(Item::mark(overlay::whiteout(path)));
    }

    /// Adds an unchanged name of a file if another name was added already. Otherwise keeps it for
    /// later.
    fn add_linked(&mut self, entry: Entry) {
        let file = self.files.entry((entry.metadata.device, entry.metadata.inode)).or_default();
        match file.first {
            Some(first) => self.push(entry, Role::Link(first)),
            None => file.waiting.push(entry),
        }
    }

    /// Adds an entry, and the waiting names of its file.
    fn write(&mut self, entry: Entry) {
        if entry.metadata.links < 2 || entry.metadata.is_dir() {
            return self.push(entry, Role::Itself);
        }
        let file = self.files.entry((entry.metadata.device, entry.metadata.inode)).or_default();
        if let Some(first) = file.first {
            return self.push(entry, Role::Link(first));
        }
        let waiting = std::mem::take(&mut file.waiting);
        let (device, inode) = (entry.metadata.device, entry.metadata.inode);
        self.push(entry, Role::Itself);
        let first = self.items.len() - 1;
        self.files.entry((device, inode)).or_default().first = Some(first);
        for other in waiting {
            self.push(other, Role::Link(first));
        }
    }

    fn push(&mut self, entry: Entry, role: Role) {
        if !self.passed.is_empty() {
            self.write_parents(&entry.path.to_vec());
        }
        self.items.push(Item { entry, role, origin: None });
    }

    /// Adds the skipped directories above `path`.
    fn write_parents(&mut self, path: &[u8]) {
        let Some(end) = path.iter().rposition(|byte| *byte == b'/') else { return };
        let parent = &path[..end];
        if self.passed.is_empty() || self.complete.contains(parent) {
            return;
        }
        self.complete.insert(parent.to_vec());
        self.write_parents(parent);
        if let Some(entry) = self.passed.remove(parent) {
            self.items.push(Item { entry, role: Role::Itself, origin: None });
        }
    }
}

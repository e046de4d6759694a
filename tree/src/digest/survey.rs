//! The entries of a selected path in a compact form.

use super::filter::{Filter, Mark, Marks, Picked};
use super::select::Selected;
use crate::metadata::FileKind;
use crate::walk::{Cursor, Found, Pointed, Position, Seen};

/// A selected path and its entries.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The path that the wildcards matched; see [`Selected::path`].
    pub(super) path: Vec<u8>,
    pub(super) found: Found,
    /// The selected ones among the entries; `None` for all.
    marks: Option<Marks>,
    /// The number of selected entries.
    len: usize,
}

/// A selected entry.
pub(super) struct Surveyed<'a> {
    pub(super) seen: Seen<'a>,
    /// The path below the selected path; empty for the selected path itself.
    pub(super) path: &'a [u8],
    /// The length in bytes of the part of the whole path above `path`.
    above: usize,
    passed: bool,
    position: Position,
}

impl Survey {
    /// Selects entries of a walk.
    pub(super) fn new(path: Vec<u8>, found: Found, filter: &Filter) -> Self {
        let marks = filter.marks(&found);
        let len = marks.as_ref().map_or_else(|| found.len(), Marks::count);
        Self { path, found, marks, len }
    }

    /// Returns the number of selected entries.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the type of the first entry.
    pub(super) fn first_kind(&self) -> Option<FileKind> {
        self.entries().next().map(|first| first.seen.metadata.kind)
    }

    /// Returns a cursor over the selected entries.
    pub(super) fn entries(&self) -> Entries<'_> {
        Entries { cursor: self.found.cursor(), marks: self.marks.as_ref(), cut: None }
    }

    /// Converts the entries.
    pub(super) fn into_selected(self) -> Selected {
        let mut picked = Vec::with_capacity(self.len);
        let mut entries = self.entries();
        while let Some(Surveyed { above, passed, position, .. }) = entries.next() {
            picked.push(Picked { entry: self.found.entry(position), above, passed });
        }
        Selected { path: self.path, entries: picked }
    }
}

/// An iteration over selected entries.
pub(super) struct Entries<'a> {
    cursor: Cursor<'a>,
    marks: Option<&'a Marks>,
    /// The length of the part of the paths above the selected path, once the first entry is visited.
    cut: Option<usize>,
}

impl Entries<'_> {
    /// Moves to the next selected entry and returns it.
    pub(super) fn next(&mut self) -> Option<Surveyed<'_>> {
        let (position, passed) = self.advance()?;
        let Pointed { seen, path, .. } = self.cursor.current()?;
        let above = self.cut.unwrap_or(path.len());
        if self.cut.is_none() {
            self.cut = Some(if path.is_empty() { 0 } else { path.len() + 1 });
        }
        Some(Surveyed { seen, path: &path[above..], above, passed, position })
    }

    /// Moves to the next selected entry and returns its position, and whether it is only passed.
    pub(super) fn advance(&mut self) -> Option<(Position, bool)> {
        loop {
            let position = self.cursor.advance()?;
            match self.marks.map_or(Mark::Selected, |marks| marks.get(position)) {
                Mark::LeftOut => {}
                mark => return Some((position, mark == Mark::Passed)),
            }
        }
    }
}

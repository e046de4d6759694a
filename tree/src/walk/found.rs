//! The result of a walk.

use std::sync::Arc;

use super::Entry;
use super::path::{Directory, EntryPath};
use super::rows::{Rows, Seen};

/// A range of a directory's entries.
#[derive(Debug)]
pub(super) struct Part {
    /// The number of the directory. A directory has a higher number than the one that contains it.
    pub(super) directory: usize,
    /// The number of the directory that contains the directory.
    pub(super) parent: usize,
    pub(super) chunk: usize,
    /// The path that the entries share.
    pub(super) path: Option<Arc<Directory>>,
    pub(super) rows: Rows,
    /// The numbers of the directories among the entries, in order.
    pub(super) below: Vec<usize>,
}

/// The entries that a walk has found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The parts of all directories. The entry at which the walk starts is the only part of
    /// directory 0.
    parts: Vec<Part>,
    /// The index of the first part of each directory.
    first: Vec<usize>,
    /// `true` for the directories with an entry that is shown, below or in them.
    is_shown: Vec<bool>,
}

/// The place of an entry among the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The index of the part.
    pub(crate) part: u32,
    /// The index of the row.
    pub(crate) row: u32,
}

/// An entry that a [`Cursor`] points at.
pub(crate) struct Pointed<'a> {
    pub(crate) seen: Seen<'a>,
    /// The path from the view's root.
    pub(crate) path: &'a [u8],
    pub(crate) position: Position,
}

impl Found {
    /// Puts the parts of a walk in order.
    pub(super) fn of(mut parts: Vec<Part>) -> Self {
        parts.sort_unstable_by_key(|part| (part.directory, part.chunk));
        let highest = |part: &Part| part.below.iter().copied().max().unwrap_or(part.directory);
        let count = parts.iter().map(highest).max().map_or(0, |highest| highest + 1);
        let (mut first, mut next) = (Vec::with_capacity(count + 1), 0);
        for directory in 0..=count {
            while parts.get(next).is_some_and(|part| part.directory < directory) {
                next += 1;
            }
            first.push(next);
        }
        let mut is_shown = vec![false; count];
        // A directory comes after the one that contains it.
        for part in parts.iter().rev() {
            if is_shown[part.directory] || part.rows.has_shown() {
                is_shown[part.directory] = true;
                is_shown[part.parent] = true;
            }
        }
        Self { parts, first, is_shown }
    }

    /// Returns the number of visible entries.
    pub(crate) fn len(&self) -> usize {
        let count = |part: &Part| {
            let hidden = match part.rows.hidden() {
                0 => 0,
                // Excluded entries are directories.
                hidden => hidden - self.shown_directories(part),
            };
            part.rows.len() - hidden
        };
        self.parts.iter().map(count).sum()
    }

    /// Returns the number of excluded directories of a part that are shown.
    fn shown_directories(&self, part: &Part) -> usize {
        let is_directory = |row: &usize| part.rows.is_directory(*row);
        let directories = (0..part.rows.len()).filter(is_directory).zip(&part.below);
        let is_shown =
            |row: usize, number: usize| part.rows.is_hidden(row) && self.is_shown[number];
        directories.filter(|(row, number)| is_shown(*row, **number)).count()
    }

    /// Returns the number of regular files.
    pub(crate) fn files(&self) -> usize {
        self.parts.iter().map(|part| part.rows.files()).sum()
    }

    /// Returns the number of rows of each part.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().map(|part| part.rows.len())
    }

    /// Returns the rows of a part.
    pub(crate) fn rows(&self, position: Position) -> &Rows {
        &self.parts[position.part as usize].rows
    }

    /// Returns the path of an entry.
    pub(crate) fn path(&self, position: Position) -> EntryPath {
        let part = &self.parts[position.part as usize];
        EntryPath::below(part.path.as_ref(), part.rows.name(position.row as usize))
    }

    /// Returns the entry at a position.
    pub(crate) fn entry(&self, position: Position) -> Entry {
        let Seen { metadata, target, xattrs, .. } = self.rows(position).get(position.row as usize);
        let (target, xattrs) = (target.to_vec(), xattrs.to_vec());
        Entry { path: self.path(position), metadata, target, xattrs }
    }

    /// Returns a cursor in front of the first entry.
    pub(crate) fn cursor(&self) -> Cursor<'_> {
        let mut cursor =
            Cursor { found: self, levels: Vec::new(), path: Vec::new(), current: None };
        if let Some(part) = self.parts.first() {
            cursor.path = part.path.as_ref().map(|path| path.to_vec()).unwrap_or_default();
            cursor.enter(0);
        }
        cursor
    }

    /// Returns all visible entries, in order.
    pub(super) fn into_entries(self) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(self.len());
        let mut cursor = self.cursor();
        while let Some(Pointed { position, .. }) = cursor.next() {
            entries.push(self.entry(position));
        }
        entries
    }
}

/// An iteration over the visible entries of a walk: depth first, parents before their children, and
/// the names in a directory sorted bytewise.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    found: &'a Found,
    levels: Vec<Level>,
    /// The path of the current entry.
    path: Vec<u8>,
    current: Option<Position>,
}

/// A directory whose entries are being visited.
#[derive(Debug)]
struct Level {
    part: usize,
    /// The index after the directory's last part.
    end: usize,
    row: usize,
    /// The number of directories that were visited in the part.
    below: usize,
    /// The length of the directory's path.
    length: usize,
}

impl Cursor<'_> {
    /// Visits the entries of a directory next.
    fn enter(&mut self, directory: usize) {
        let (part, end) = (self.found.first[directory], self.found.first[directory + 1]);
        self.levels.push(Level { part, end, row: 0, below: 0, length: self.path.len() });
    }

    /// Moves to the next entry and returns it.
    pub(crate) fn next(&mut self) -> Option<Pointed<'_>> {
        self.advance()?;
        self.current()
    }

    /// Returns the entry that the last move led to.
    pub(crate) fn current(&self) -> Option<Pointed<'_>> {
        let position = self.current?;
        let seen = self.found.rows(position).get(position.row as usize);
        Some(Pointed { seen, path: &self.path, position })
    }

    /// Moves to the next entry and returns its position.
    pub(crate) fn advance(&mut self) -> Option<Position> {
        self.current = self.step();
        self.current
    }

    fn step(&mut self) -> Option<Position> {
        loop {
            let level = self.levels.last_mut()?;
            let part = self.found.parts.get(level.part).filter(|_| level.part < level.end);
            let Some(part) = part else {
                self.levels.pop();
                continue;
            };
            if level.row == part.rows.len() {
                (level.part, level.row, level.below) = (level.part + 1, 0, 0);
                continue;
            }
            let position = Position { part: level.part as u32, row: level.row as u32 };
            level.row += 1;
            let is_directory = part.rows.is_directory(position.row as usize);
            if !is_directory {
                let length = level.length;
                self.show(length, part.rows.name(position.row as usize));
                return Some(position);
            }
            let directory = part.below[level.below];
            level.below += 1;
            let length = level.length;
            if part.rows.is_hidden(position.row as usize) && !self.found.is_shown[directory] {
                continue;
            }
            self.show(length, part.rows.name(position.row as usize));
            self.enter(directory);
            return Some(position);
        }
    }

    /// Makes the path that of an entry in a directory whose path has `length` bytes.
    fn show(&mut self, length: usize, name: &[u8]) {
        self.path.truncate(length);
        if length > 0 {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
    }
}

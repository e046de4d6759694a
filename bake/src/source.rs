//! Places in files.

use std::rc::Rc;

/// A file of a definition, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileId(pub(crate) u32);

/// A place in a file. Lines and columns count from 1; a column is a grapheme cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// The line.
    pub(crate) line: u32,
    /// The column.
    pub(crate) column: u32,
}

impl Position {
    /// The first place of a file.
    pub(crate) const START: Self = Self { line: 1, column: 1 };
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// The file.
    pub(crate) file: FileId,
    /// The first place.
    pub(crate) start: Position,
    /// The place behind the last one.
    pub(crate) end: Position,
}

impl Range {
    /// Returns the range from the start of this one to the end of another one.
    pub(crate) fn to(self, last: Self) -> Self {
        Self { end: last.end, ..self }
    }

    /// Returns the empty range at the start.
    pub(crate) fn at_start(self) -> Self {
        Self { end: self.start, ..self }
    }

    /// Returns the empty range at the end.
    pub(crate) fn at_end(self) -> Self {
        Self { start: self.end, ..self }
    }
}

/// The names of the files of a definition.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileNames(Vec<Rc<str>>);

impl FileNames {
    /// Adds a file.
    pub(crate) fn add(&mut self, name: &str) -> FileId {
        self.0.push(name.into());
        FileId(self.0.len() as u32 - 1)
    }

    /// Returns the name of a file.
    pub(crate) fn name(&self, file: FileId) -> &str {
        self.0.get(file.0 as usize).map_or("", |name| name)
    }

    /// Writes a range as `file:line,column-column`.
    pub(crate) fn describe(&self, range: Range) -> String {
        let name = self.name(range.file);
        let Range { start, end, .. } = range;
        if start.line == end.line {
            format!("{name}:{},{}-{}", start.line, start.column, end.column)
        } else {
            format!("{name}:{},{}-{},{}", start.line, start.column, end.line, end.column)
        }
    }
}

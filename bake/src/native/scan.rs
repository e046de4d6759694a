//! The place of a scanner in a text.

use unicode_segmentation::UnicodeSegmentation;

use crate::source::{FileId, Position, Range};

/// A scanner's place, which knows its line and column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor {
    file: FileId,
    position: Position,
}

impl Cursor {
    /// Begins at a place.
    pub(crate) fn new(file: FileId, position: Position) -> Self {
        Self { file, position }
    }

    /// Passes over text and returns its range.
    pub(crate) fn pass(&mut self, text: &str) -> Range {
        let start = self.position;
        if text.is_ascii() && !text.contains(['\n', '\r']) {
            self.position.column += text.len() as u32;
        } else {
            for cluster in text.graphemes(true) {
                if cluster == "\n" || cluster == "\r\n" {
                    self.position.line += 1;
                    self.position.column = 1;
                } else {
                    self.position.column += 1;
                }
            }
        }
        Range { file: self.file, start, end: self.position }
    }
}

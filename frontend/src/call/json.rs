//! JSON as Go's encoder writes it.

use std::fmt::Write as _;

use serde::{Serialize, Serializer};

use crate::error::Span;

/// Places in a source file. A range for each line, as BuildKit has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Location {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<Range>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Position {
    line: u32,
}

impl Location {
    /// Returns the lines of all `spans`, each once.
    pub fn of(spans: &[Span]) -> Self {
        let lines: std::collections::BTreeSet<u32> =
            spans.iter().flat_map(|span| span.start..=span.end.max(span.start)).collect();
        let range = |line| Range { start: Position { line }, end: Position { line } };
        Self { ranges: lines.into_iter().map(range).collect() }
    }

    /// Returns the first line, zero where there is none.
    pub fn line(&self) -> u32 {
        self.ranges.first().map_or(0, |range| range.start.line)
    }

    /// Returns the lines in their order.
    pub(super) fn lines(&self) -> Vec<usize> {
        self.ranges.iter().map(|range| range.start.line as usize).collect()
    }
}

/// Writes `value` with an indent of two blanks. Characters that mean something in HTML are escaped,
/// as Go has it.
pub(super) fn to_string(value: &impl Serialize) -> String {
    // Structures of texts, numbers and lists always have a JSON form.
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                // Writing to a text can't fail.
                let _ = write!(escaped, "\\u{:04x}", c as u32);
            }
            _ => escaped.push(c),
        }
    }
    escaped
}

/// Writes bytes in base64.
pub(super) fn bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&kiln_llb::base64::encode(bytes))
}

/// Writes a list of bytes in base64.
pub(super) fn byte_lists<S: Serializer>(
    lists: &[Vec<u8>],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(lists.iter().map(|bytes| kiln_llb::base64::encode(bytes)))
}

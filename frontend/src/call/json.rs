//! JSON in the format of Go's encoder.

use std::fmt::Write as _;

use serde::{Serialize, Serializer};

use crate::error::Span;

/// A list of lines in a source file. Each line is a range of its own, as in BuildKit.
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
    /// Returns the lines of all `spans` in ascending order, each once.
    pub fn of(spans: &[Span]) -> Self {
        let lines: std::collections::BTreeSet<u32> =
            spans.iter().flat_map(|span| span.start..=span.end.max(span.start)).collect();
        let range = |line| Range { start: Position { line }, end: Position { line } };
        Self { ranges: lines.into_iter().map(range).collect() }
    }

    /// Returns the first line, or zero if there are no lines.
    pub fn line(&self) -> u32 {
        self.ranges.first().map_or(0, |range| range.start.line)
    }

    /// Returns the line numbers in ascending order.
    pub(super) fn lines(&self) -> Vec<usize> {
        self.ranges.iter().map(|range| range.start.line as usize).collect()
    }
}

/// Returns `value` as JSON, indented by two blanks. Characters that are special in HTML are
/// escaped, as in Go.
pub(super) fn to_string(value: &impl Serialize) -> String {
    // Serializing structures of strings, numbers and lists can't fail.
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                // Writing to a string can't fail.
                let _ = write!(escaped, "\\u{:04x}", c as u32);
            }
            _ => escaped.push(c),
        }
    }
    escaped
}

/// Serializes bytes as a base64 string.
pub(super) fn bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&kiln_llb::base64::encode(bytes))
}

/// Serializes a list of byte strings as a list of base64 strings.
pub(super) fn byte_lists<S: Serializer>(
    lists: &[Vec<u8>],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(lists.iter().map(|bytes| kiln_llb::base64::encode(bytes)))
}

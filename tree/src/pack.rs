// COLLEAGUE tree2 (worktree /work/wt/tree2) writes this file: engineer tree, leave it to them and merge main.
//! Packing a tree into a tar.

use std::io::Write;

use crate::dir::Dir;
use crate::error::Result;
use crate::metadata::Timestamp;

/// How deletions are kept in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// The tree is an overlay's upper directory: character devices 0/0 and `trusted.overlay.*` (or
    /// `user.overlay.*`) attributes become `.wh.` entries.
    Overlay,
    /// There are none.
    None,
}

/// How to pack.
#[derive(Clone, Copy, Debug)]
pub struct PackOptions {
    /// How deletions are kept.
    pub whiteouts: Whiteouts,
    /// Times later than this are set to this (`SOURCE_DATE_EPOCH`).
    pub clamp_mtime: Option<Timestamp>,
}

/// What was packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// How many entries.
    pub entries: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// Writes the tree below `dir` to `sink` as a tar whose bytes are a function of its content:
/// entries sorted by path, PAX headers only where needed, numeric owners, no access times.
///
/// # Errors
/// Fails where a file can't be read, or `sink` fails.
pub fn pack(dir: &Dir, sink: &mut dyn Write, options: PackOptions) -> Result<Packed> {
    let _ = (dir, sink, options);
    todo!()
}

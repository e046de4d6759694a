//! Unpacking a tar into a tree.

use std::io::Read;

use crate::dir::Dir;
use crate::error::Result;
use crate::metadata::Owner;

/// How to unpack.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnpackOptions {
    /// Whether `.wh.` entries delete: true for layers, false for `ADD`.
    pub whiteouts: bool,
    /// Who owns everything; `None` for the owners that the archive names.
    pub owner: Option<Owner>,
    /// Most bytes that files may have in all; `None` for no limit.
    pub max_bytes: Option<u64>,
    /// Most entries; `None` for no limit.
    pub max_entries: Option<u64>,
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// How many entries.
    pub entries: u64,
    /// How many bytes of files.
    pub bytes: u64,
}

/// Unpacks an uncompressed tar into the root file system `dest`, as the kernel and containerd see
/// it: links of the tree are followed inside it, deletions are made (on an overlay mount the kernel
/// turns them into whiteouts), missing parents are made.
///
/// # Errors
/// Fails on archives that are malformed, lead outside or exceed the limits.
pub fn unpack(archive: &mut dyn Read, dest: &Dir, options: UnpackOptions) -> Result<Unpacked> {
    let _ = (archive, dest, options);
    todo!()
}

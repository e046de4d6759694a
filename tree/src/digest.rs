// COLLEAGUE tree2 (worktree /work/wt/tree2) writes this file: engineer tree, leave it to them and merge main.
//! Content digests: what a step can tell of a tree.

use kiln_oci::Digest;

use crate::error::Result;
use crate::metadata::Metadata;
use crate::view::View;

/// What of a tree is digested.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// A path, or a pattern where `wildcard` is set.
    pub path: String,
    /// Whether `path` is a pattern.
    pub wildcard: bool,
    /// Whether a link at the end of `path` is followed.
    pub follow: bool,
    /// Only these are digested.
    pub include: Vec<String>,
    /// These are not.
    pub exclude: Vec<String>,
}

/// Remembers the digests of files that have not changed.
pub trait FileDigests: Send + Sync {
    /// Returns the digest of the file that has this metadata, if it is known.
    fn get(&self, metadata: &Metadata) -> Option<[u8; 32]>;
    /// Remembers the digest of the file that has this metadata.
    fn put(&self, metadata: &Metadata, digest: [u8; 32]);
}

/// Digests what `selections` select of a tree: paths, types, modes, owners, sizes, link targets,
/// device numbers, `security.capability` and bytes; no times. In parallel, files whose digests are
/// remembered are not read.
///
/// # Errors
/// Fails where a file can't be read. A path that isn't there is part of the digest, not an error.
pub fn content_digest(
    view: View<'_>,
    selections: &[Selection],
    remembered: Option<&dyn FileDigests>,
) -> Result<Digest> {
    let _ = (view, selections, remembered);
    todo!()
}

//! The size limits of an image's documents.
//!
//! They apply to reading and to writing, so that no build produces an image that can't be read.

/// The maximum size of a manifest, an index or a list of images in bytes.
pub const DOCUMENT_LIMIT: usize = 4 << 20;

/// The maximum size of an image config in bytes.
pub const CONFIG_LIMIT: usize = 16 << 20;

/// The error for a document that is larger than the limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {name} would have {size} bytes or more, beyond the limit of {} MiB", limit >> 20)]
pub struct TooLarge {
    /// The name of the document, such as `manifest`.
    pub name: &'static str,
    /// The size of the document in bytes.
    pub size: usize,
    /// The maximum size in bytes.
    pub limit: usize,
}

/// Checks the size of a manifest, an index or a list of images.
///
/// # Errors
/// Fails if it is larger than [`DOCUMENT_LIMIT`].
pub fn check_document(name: &'static str, bytes: usize) -> Result<(), TooLarge> {
    check(name, bytes, DOCUMENT_LIMIT)
}

/// Checks the size of an image config.
///
/// # Errors
/// Fails if it is larger than [`CONFIG_LIMIT`].
pub fn check_config(bytes: usize) -> Result<(), TooLarge> {
    check("image config", bytes, CONFIG_LIMIT)
}

fn check(name: &'static str, size: usize, limit: usize) -> Result<(), TooLarge> {
    if size <= limit { Ok(()) } else { Err(TooLarge { name, size, limit }) }
}

//! The sizes that documents of an image may have.
//!
//! They are the same in both directions: a document that would be refused when it is read is not
//! written either, so that no build makes an image that can't be used.

/// The number of bytes that a manifest, an index or a list of images may have.
pub const DOCUMENT_LIMIT: usize = 4 << 20;

/// The number of bytes that an image config may have.
pub const CONFIG_LIMIT: usize = 16 << 20;

/// A document that is larger than its readers allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {name} would have {size} bytes or more, beyond the limit of {} MiB", limit >> 20)]
pub struct TooLarge {
    /// The name of the document, as `manifest`.
    pub name: &'static str,
    /// The number of bytes that it has.
    pub size: usize,
    /// The number of bytes that it may have.
    pub limit: usize,
}

/// Checks that a manifest, an index or a list of images of this many bytes can be read again.
///
/// # Errors
/// Fails where it is too large.
pub fn check_document(name: &'static str, bytes: usize) -> Result<(), TooLarge> {
    check(name, bytes, DOCUMENT_LIMIT)
}

/// Checks that an image config of this many bytes can be read again.
///
/// # Errors
/// Fails where it is too large.
pub fn check_config(bytes: usize) -> Result<(), TooLarge> {
    check("image config", bytes, CONFIG_LIMIT)
}

fn check(name: &'static str, size: usize, limit: usize) -> Result<(), TooLarge> {
    if size <= limit { Ok(()) } else { Err(TooLarge { name, size, limit }) }
}

//! Compressed streams.

use std::io::Read;

/// Compressions that are recognised by their first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// None.
    None,
    /// gzip, several members too.
    Gzip,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// zstd, several frames too.
    Zstd,
}

/// Returns a reader of the uncompressed bytes of `reader`, and what compression it has.
///
/// # Errors
/// Fails where the first bytes can't be read.
pub fn decompress<'a, R: Read + Send + 'a>(
    reader: R,
) -> std::io::Result<(Box<dyn Read + Send + 'a>, Compression)> {
    let _ = reader;
    todo!()
}

//! Content digests, and readers and writers that compute them.

use std::fmt;
use std::io::{Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest. Its text is `sha256:` and 64 lower-case hexadecimal digits.
///
/// Other algorithms are rejected, because kiln can't verify them. The text contains no path
/// separator, so a digest is safe as a file name. (OCI image specification, descriptor, "Digests".)
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// The error for a text that isn't a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid digest {0:?}: expected sha256: and 64 lower-case hexadecimal digits")]
pub struct ParseDigestError(String);

impl Digest {
    /// Returns the digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Returns the digest with these 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the digest's 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the hexadecimal digits without the algorithm.
    pub fn hex(&self) -> String {
        digits_of(&self.0)
    }

    /// Returns the first 12 hexadecimal digits, for display.
    pub fn short(&self) -> String {
        digits_of(&self.0[..6])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseDigestError(text.chars().take(100).collect());
        let digits = text.strip_prefix("sha256:").ok_or_else(error)?;
        if digits.len() != 64 {
            return Err(error());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let value = value_of(pair[0]).zip(value_of(pair[1]));
            *byte = value.map(|(high, low)| high << 4 | low).ok_or_else(error)?;
        }
        Ok(Self(bytes))
    }
}

/// Returns bytes as hexadecimal digits.
fn digits_of(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// Returns the value of a hexadecimal digit in lower case.
fn value_of(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A hasher for content that arrives in pieces.
#[derive(Clone, Default)]
pub struct DigestHasher(Sha256);

impl DigestHasher {
    /// Creates a hasher of empty content.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes to the content.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the digest of the whole content.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }

    /// Returns the state after the bytes so far, from which [`DigestHasher::resume`] continues.
    pub fn state(&self) -> Vec<u8> {
        self.0.serialize().to_vec()
    }

    /// Returns a hasher that continues from a state. Returns `None` if `state` isn't one.
    pub fn resume(state: &[u8]) -> Option<Self> {
        let state = SerializedState::<Sha256>::try_from(state).ok()?;
        Sha256::deserialize(&state).ok().map(Self)
    }
}

impl fmt::Debug for DigestHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestHasher")
    }
}

/// A writer that digests and counts the written bytes.
#[derive(Debug)]
pub struct HashingWriter<W> {
    inner: W,
    hasher: DigestHasher,
    written: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Creates a writer on top of `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: DigestHasher::new(), written: 0 }
    }

    /// Returns the inner writer, the digest, and the number of bytes written.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.inner, self.hasher.finish(), self.written)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// A reader that digests and counts the read bytes.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    hasher: DigestHasher,
    read: u64,
}

impl<R: Read> HashingReader<R> {
    /// Creates a reader on top of `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, hasher: DigestHasher::new(), read: 0 }
    }

    /// Returns the inner reader, the hasher so far, and the number of bytes read.
    pub fn into_parts(self) -> (R, DigestHasher, u64) {
        (self.inner, self.hasher, self.read)
    }

    /// Returns the digest and the number of the read bytes.
    pub fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.read)
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.read += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        let digest = Digest::of(b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse(), Ok(digest));
        assert_eq!(digest.short(), "e3b0c44298fc");
    }

    #[test]
    fn hostile_texts_are_refused() {
        let upper = format!("sha256:{}", "A".repeat(64));
        let long = format!("sha256:{}", "a".repeat(66));
        for text in ["", "sha256:", "sha256:../../x", "sha256:abc", &upper, &long, "md5:00"] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn hashers_continue_from_states() {
        let content: Vec<u8> = (0..1000_u32).map(|number| number as u8).collect();
        for middle in [0, 1, 63, 64, 65, 640, 1000] {
            let mut first = DigestHasher::new();
            first.update(&content[..middle]);
            let mut second = DigestHasher::resume(&first.state()).unwrap();
            second.update(&content[middle..]);
            assert_eq!(second.finish(), Digest::of(&content));
        }
        assert!(DigestHasher::resume(b"").is_none());
        assert!(DigestHasher::resume(&[255; 105]).is_none());
    }

    #[test]
    fn streams_are_digested() {
        let mut writer = HashingWriter::new(Vec::new());
        writer.write_all(b"abc").unwrap();
        let (bytes, digest, written) = writer.finish();
        assert_eq!((bytes.as_slice(), digest, written), (&b"abc"[..], Digest::of(b"abc"), 3));
        let mut reader = HashingReader::new(&b"abc"[..]);
        std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
        assert_eq!(reader.finish(), (Digest::of(b"abc"), 3));
    }
}

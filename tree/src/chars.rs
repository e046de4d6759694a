//! Decoding of bytes to characters in the manner of Go: each byte that isn't UTF-8 becomes U+FFFD.

/// The character for a byte that isn't UTF-8.
pub(crate) const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// Returns the first character and its length in bytes, or `None` for empty input.
pub(crate) fn first(bytes: &[u8]) -> Option<(char, usize)> {
    let lead = *bytes.first()?;
    if lead < 0x80 {
        return Some((char::from(lead), 1));
    }
    for length in 2..=4.min(bytes.len()) {
        if let Ok(text) = std::str::from_utf8(&bytes[..length])
            && let Some(found) = text.chars().next()
        {
            return Some((found, length));
        }
    }
    Some((REPLACEMENT, 1))
}

/// Returns all characters of `bytes`, in order.
pub(crate) fn all(bytes: &[u8]) -> Vec<char> {
    let mut found = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((next, length)) = first(rest) {
        found.push(next);
        rest = &rest[length..];
    }
    found
}

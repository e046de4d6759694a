//! Decryption with a private RSA key.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use num_bigint::BigUint;
use num_traits::Zero;

use super::Failure;

/// The largest key, in bytes.
const LARGEST_KEY: usize = 1024;

/// Decrypts text that was padded as PKCS #1 version 1.5.
pub(super) fn decrypt(encrypted: &str, key: &str) -> Result<String, Failure> {
    let encrypted = STANDARD.decode(encrypted.trim()).map_err(|_| {
        Failure::argument(0, "failed to decode input: cipher text must be base64-encoded")
    })?;
    let key = Key::read(key)
        .ok_or_else(|| Failure::argument(1, "invalid private key: not an RSA key in PEM"))?;
    let failed = || Failure::new("failed to decrypt: crypto/rsa: decryption error");
    let encrypted = BigUint::from_bytes_be(&encrypted);
    if encrypted >= key.modulus {
        return Err(failed());
    }
    let plain = encrypted.modpow(&key.exponent, &key.modulus).to_bytes_be();
    // Without its leading zero, the padding is 2, at least 8 random bytes, and 0.
    let end = plain.iter().position(|byte| *byte == 0).filter(|end| *end >= 9);
    match end {
        Some(end) if plain[0] == 2 => {
            String::from_utf8(plain[end + 1..].to_vec()).map_err(|_| failed())
        }
        _ => Err(failed()),
    }
}

/// A private key.
struct Key {
    modulus: BigUint,
    exponent: BigUint,
}

impl Key {
    /// Reads a key in PEM, in the form of PKCS #1 or PKCS #8.
    fn read(text: &str) -> Option<Self> {
        let begin = text.find("-----BEGIN ")?;
        let rest = &text[begin + 11..];
        let body = &rest[rest.find("-----")? + 5..];
        let body = &body[..body.find("-----END")?];
        let digits: String = body.chars().filter(|character| !character.is_whitespace()).collect();
        let bytes = STANDARD.decode(digits).ok()?;
        let content = Der(&bytes).read(0x30)?.content;
        let version = Der(content).read(0x02)?;
        let second = Der(version.rest);
        if second.0.first() == Some(&0x30) {
            let algorithm = second.read(0x30)?;
            let key = Der(algorithm.rest).read(0x04)?.content;
            return Self::numbers(Der(key).read(0x30)?.content);
        }
        Self::numbers(content)
    }

    /// Reads the version, the modulus and the exponents.
    fn numbers(content: &[u8]) -> Option<Self> {
        let version = Der(content).read(0x02)?;
        let modulus = Der(version.rest).read(0x02)?;
        let public = Der(modulus.rest).read(0x02)?;
        let private = Der(public.rest).read(0x02)?;
        if modulus.content.len() > LARGEST_KEY || private.content.len() > LARGEST_KEY {
            return None;
        }
        let modulus = BigUint::from_bytes_be(modulus.content);
        let exponent = BigUint::from_bytes_be(private.content);
        (!modulus.is_zero()).then_some(Self { modulus, exponent })
    }
}

/// Bytes in DER.
struct Der<'a>(&'a [u8]);

/// A value in DER and what follows it.
struct Item<'a> {
    content: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Der<'a> {
    /// Reads a value with a tag.
    fn read(&self, tag: u8) -> Option<Item<'a>> {
        let bytes = self.0;
        if *bytes.first()? != tag {
            return None;
        }
        let first = *bytes.get(1)?;
        let mut length = usize::from(first);
        let mut begin = 2;
        if first >= 0x80 {
            let count = usize::from(first & 0x7f);
            if count == 0 || count > 4 {
                return None;
            }
            length = 0;
            for byte in bytes.get(2..2 + count)? {
                length = length << 8 | usize::from(*byte);
            }
            begin += count;
        }
        let end = begin.checked_add(length)?;
        Some(Item { content: bytes.get(begin..end)?, rest: &bytes[end..] })
    }
}

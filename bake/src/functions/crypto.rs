//! Digests, passwords and identifiers.

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use super::{Failure, Function, Parameter, ParameterKind, rsa, text, whole};
use crate::surroundings::Surroundings;
use crate::value::Value;

const STR: &[Parameter] = &[Parameter::string("str")];
const TEXT: ParameterKind = ParameterKind::String;
/// The cost of a password's hash, unless the call says another one.
const USUAL_COST: u32 = 10;
/// The costs that end within a second.
const COSTS: std::ops::RangeInclusive<i64> = 4..=13;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("bcrypt", STR, TEXT, bcrypt).with_more(Parameter::number("cost")),
    Function::new("md5", STR, TEXT, |_, values| {
        Ok(Value::text(hexadecimal(&Md5::digest(text(values, 0)?))))
    }),
    Function::new(
        "rsadecrypt",
        &[Parameter::string("ciphertext"), Parameter::string("privatekey")],
        TEXT,
        |_, values| rsa::decrypt(text(values, 0)?, text(values, 1)?).map(Value::text),
    ),
    Function::new("sha1", STR, TEXT, |_, values| {
        Ok(Value::text(hexadecimal(&Sha1::digest(text(values, 0)?))))
    }),
    Function::new("sha256", STR, TEXT, |_, values| {
        Ok(Value::text(hexadecimal(&Sha256::digest(text(values, 0)?))))
    }),
    Function::new("sha512", STR, TEXT, |_, values| {
        Ok(Value::text(hexadecimal(&Sha512::digest(text(values, 0)?))))
    }),
    Function::new("uuidv4", &[], TEXT, |surroundings, _| {
        let mut bytes = [0; 16];
        surroundings.random(&mut bytes);
        Ok(Value::text(identifier(bytes, 4)))
    }),
    Function::new(
        "uuidv5",
        &[Parameter::string("namespace"), Parameter::string("name")],
        TEXT,
        |_, values| named_identifier(text(values, 0)?, text(values, 1)?),
    ),
];

/// Writes bytes as hexadecimal digits.
fn hexadecimal(bytes: &[u8]) -> String {
    let digits = b"0123456789abcdef";
    let pairs = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    pairs.map(|digit| char::from(digits[usize::from(digit)])).collect()
}

/// Hashes a password.
fn bcrypt(surroundings: &dyn Surroundings, values: &[Value]) -> Result<Value, Failure> {
    if values.len() > 2 {
        return Err(Failure::new("bcrypt() takes no more than two arguments"));
    }
    let cost = if values.len() == 2 { whole(values, 1)? } else { i64::from(USUAL_COST) };
    if !COSTS.contains(&cost) {
        return Err(Failure::argument(
            1,
            format!("the cost must be between {} and {}", COSTS.start(), COSTS.end()),
        ));
    }
    let mut salt = [0; 16];
    surroundings.random(&mut salt);
    bcrypt::hash_with_salt(text(values, 0)?, cost as u32, salt)
        .map(|hash| Value::text(hash.format_for_version(bcrypt::Version::TwoA)))
        .map_err(|error| Failure::new(format!("error occurred generating password {error}")))
}

/// Writes an identifier of a version.
fn identifier(mut bytes: [u8; 16], version: u8) -> String {
    bytes[6] = (bytes[6] & 0x0f) | (version << 4);
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let digits = hexadecimal(&bytes);
    format!(
        "{}-{}-{}-{}-{}",
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..]
    )
}

/// Makes the identifier of a name.
fn named_identifier(namespace: &str, name: &str) -> Result<Value, Failure> {
    let known = |last: u8| {
        let mut bytes = *b"\x6b\xa7\xb8\x10\x9d\xad\x11\xd1\x80\xb4\x00\xc0\x4f\xd4\x30\xc8";
        bytes[3] = last;
        bytes
    };
    let namespace = match namespace {
        "dns" => known(0x10),
        "url" => known(0x11),
        "oid" => known(0x12),
        "x500" => known(0x14),
        other => parse_identifier(other).ok_or_else(|| {
            Failure::new(format!(
                "uuidv5() doesn't support namespace {other} (invalid UUID format)"
            ))
        })?,
    };
    let digest = Sha1::new().chain_update(namespace).chain_update(name).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Ok(Value::text(identifier(bytes, 5)))
}

/// Reads an identifier.
fn parse_identifier(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|character| *character != '-').collect();
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 16];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[index * 2..index * 2 + 2], 16).ok()?;
    }
    Some(bytes)
}

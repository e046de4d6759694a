//! Encodings of text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Failure, Function, Parameter, ParameterKind, text};
use crate::value::Value;

const STR: &[Parameter] = &[Parameter::string("str")];

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("base64decode", STR, ParameterKind::String, |_, values| {
        let bytes = STANDARD.decode(text(values, 0)?).map_err(|error| {
            let offset = match error {
                base64::DecodeError::InvalidByte(offset, _) => offset,
                _ => text(values, 0).map(str::len).unwrap_or_default(),
            };
            Failure::new(format!(
                "failed to decode base64 data: illegal base64 data at input byte {offset}"
            ))
        })?;
        String::from_utf8(bytes).map(Value::text).map_err(|_| {
            Failure::new("the result of decoding the provided string is not valid UTF-8")
        })
    }),
    Function::new("base64encode", STR, ParameterKind::String, |_, values| {
        Ok(Value::text(STANDARD.encode(text(values, 0)?)))
    }),
    Function::new("urlencode", STR, ParameterKind::String, |_, values| {
        Ok(Value::text(url_encode(text(values, 0)?)))
    }),
];

/// Writes text as a part of a query.
fn url_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            b' ' => encoded.push('+'),
            other => {
                let digit = |value: u8| char::from(b"0123456789ABCDEF"[usize::from(value)]);
                encoded.extend(['%', digit(other >> 4), digit(other & 15)]);
            }
        }
    }
    encoded
}

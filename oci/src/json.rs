//! JSON with a canonical form, and the limit on foreign documents.

mod nulls;

use serde::Serialize;
use serde::de::{DeserializeOwned, Error as _};

/// The maximum number of values in a foreign document. Each takes up to a hundred bytes in memory
/// but may take only two in the document.
const MOST_VALUES: usize = 1_000_000;

/// Checks that a document doesn't have too many values.
///
/// # Errors
/// Fails if the document has more than a million values. Doesn't check that it is valid JSON.
pub fn check_amount(document: &[u8]) -> Result<(), serde_json::Error> {
    let (mut values, mut is_text, mut is_escaped) = (0, false, false);
    for byte in document {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_text,
            b'"' => is_text = !is_text,
            b',' | b'[' | b'{' if !is_text => values += 1,
            _ => {}
        }
    }
    if values <= MOST_VALUES {
        return Ok(());
    }
    Err(serde_json::Error::custom(format!("it has more than {MOST_VALUES} values")))
}

/// Parses a document of an image as Go's decoder does: reads `null` as the zero value of the type, such
/// as an empty string, list or map, or the number 0.
///
/// # Errors
/// Fails if the bytes aren't JSON, or have another structure than `T`.
pub fn from_go<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = T::deserialize(nulls::Nullable(&mut deserializer))?;
    deserializer.end()?;
    Ok(value)
}

/// Encodes `value` as compact JSON with the keys of every object sorted.
///
/// Use it for documents that are named by their digest and whose types keep maps in hash order.
///
/// # Errors
/// Fails if a value can't be encoded, such as a map with keys that aren't strings.
pub fn to_vec<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&serde_json::to_value(value)?)
}

/// Encodes `value` as compact JSON with the escapes of Go's encoder.
///
/// # Errors
/// Fails if a value can't be encoded.
pub fn to_go<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_string(value).map(|text| escape(&text))
}

/// Encodes `value` as JSON with an indentation of two spaces and the escapes of Go's encoder.
///
/// # Errors
/// Fails if a value can't be encoded.
pub fn to_go_indented<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_string_pretty(value).map(|text| escape(&text))
}

/// Escapes the characters that Go's encoder escapes to make JSON safe in HTML and JavaScript. They
/// occur in JSON only inside strings.
fn escape(json: &str) -> Vec<u8> {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_a_limited_number_of_values() {
        let list = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
        assert!(check_amount(list(MOST_VALUES).as_bytes()).is_ok());
        assert!(check_amount(list(MOST_VALUES + 1).as_bytes()).is_err());
        assert!(check_amount("[".repeat(MOST_VALUES + 1).as_bytes()).is_err());
        let text = format!(r#"["\\\"{}", 1]"#, ",".repeat(MOST_VALUES + 1));
        assert!(check_amount(text.as_bytes()).is_ok(), "what stands in a text doesn't count");
    }

    #[test]
    fn escapes_are_those_of_go() {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let value = ["a && b > c </x>", "\u{2028}\u{2029}", "ä\u{7f}\u{1}\u{8}\u{c}\"\\\t"];
        let escaped = r#"["a \u0026\u0026 b \u003e c \u003c/x\u003e","\u2028\u2029","#;
        let rest = "\"ä\u{7f}\\u0001\\b\\f\\\"\\\\\\t\"]";
        assert_eq!(text(to_go(&value).unwrap()), format!("{escaped}{rest}"));
        let value = std::collections::BTreeMap::from([("a", vec!["<"]), ("b", vec![])]);
        let expected = "{\n  \"a\": [\n    \"\\u003c\"\n  ],\n  \"b\": []\n}";
        assert_eq!(text(to_go_indented(&value).unwrap()), expected);
    }
}

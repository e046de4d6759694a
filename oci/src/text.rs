//! Text in the formats of Go's standard library, for messages and values that must equal those of
//! other image tools.

use std::fmt::Write as _;

/// Returns `text` in double quotes with the escapes of Go's `%q`.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        push_quoted(&mut out, c);
    }
    out.push('"');
    out
}

fn push_quoted(out: &mut String, c: char) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        ' '..='~' => out.push(c),
        '\0'..='\x7f' => drop(write!(out, "\\x{:02x}", c as u32)),
        _ if is_print(c) => out.push(c),
        _ if (c as u32) < 0x1_0000 => drop(write!(out, "\\u{:04x}", c as u32)),
        _ => drop(write!(out, "\\U{:08x}", c as u32)),
    }
}

/// Returns `true` if a character outside of ASCII is printable. The letter before it prevents the
/// escape that Rust applies to a leading combining character.
fn is_print(c: char) -> bool {
    let mut pair = String::from("a");
    pair.push(c);
    pair.escape_debug().nth(1) == Some(c)
}

/// Decodes the percent-encoding of URLs.
///
/// # Errors
/// Fails on a `%` without two hexadecimal digits, and on bytes that aren't UTF-8.
pub fn unescape(text: &str) -> Result<String, String> {
    if !text.contains('%') {
        return Ok(text.to_owned());
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut position = 0;
    while let Some(&byte) = bytes.get(position) {
        if byte != b'%' {
            out.push(byte);
            position += 1;
            continue;
        }
        let digit = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
        let (Some(high), Some(low)) = (digit(position + 1), digit(position + 2)) else {
            let shown = String::from_utf8_lossy(&bytes[position..bytes.len().min(position + 3)]);
            return Err(format!("invalid URL escape {}", quote(&shown)));
        };
        out.push((high * 16 + low) as u8);
        position += 3;
    }
    String::from_utf8(out).map_err(|_| "invalid UTF-8 in URL".to_owned())
}

/// Parses a boolean as Go's `strconv.ParseBool` does, for options that Docker's tools and BuildKit
/// share with kiln. Returns `None` for other texts.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go() {
        for (text, expected) in [
            ("plain", r#""plain""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("\u{7}\n\t\u{1}\u{7f}", r#""\a\n\t\x01\x7f""#),
            ("안녕 é", "\"안녕 é\""),
            ("\u{a0}\u{200b}", "\"\\u00a0\\u200b\""),
            ("e\u{301}", "\"e\u{301}\""),
        ] {
            assert_eq!(quote(text), expected);
        }
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape("a%20b%2Fc").unwrap(), "a b/c");
        assert_eq!(unescape("a%2").unwrap_err(), "invalid URL escape \"%2\"");
        assert!(unescape("%ff").is_err());
    }
}

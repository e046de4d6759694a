//! Escapes in text.

use unicode_segmentation::UnicodeSegmentation;

use super::scan::Cursor;
use crate::diagnostic::Diagnostic;
use crate::quote::quote;
use crate::source::Range;

/// Resolves the escapes of a text.
///
/// In quotes, a backslash begins an escape. `$${` and `%%{` stand for `${` and `%{` everywhere.
pub(crate) fn unescape(text: &str, range: Range, in_quotes: bool) -> Result<String, Diagnostic> {
    if !text.contains(['\\', '$', '%']) {
        return Ok(text.to_owned());
    }
    let mut cursor = Cursor::new(range.file, range.start);
    let mut resolved = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let plain = rest.find(['\\', '$', '%']).unwrap_or(rest.len());
        if plain > 0 {
            cursor.pass(&rest[..plain]);
            resolved.push_str(&rest[..plain]);
            rest = &rest[plain..];
            continue;
        }
        if rest.starts_with("$${") || rest.starts_with("%%{") {
            cursor.pass(&rest[..3]);
            resolved.push_str(&rest[1..3]);
            rest = &rest[3..];
        } else if rest.starts_with('\\') && in_quotes {
            let length = escape_length(rest);
            let place = cursor.pass(&rest[..length]);
            escape(&rest[..length], place, &mut resolved)?;
            rest = &rest[length..];
        } else {
            cursor.pass(&rest[..1]);
            resolved.push_str(&rest[..1]);
            rest = &rest[1..];
        }
    }
    Ok(resolved)
}

/// Returns the length of the escape at the begin of a text.
fn escape_length(text: &str) -> usize {
    let most = match text.as_bytes().get(1) {
        None => return 1,
        Some(b'u') => 4,
        Some(b'U') => 8,
        Some(_) => return 1 + text[1..].graphemes(true).next().map_or(0, str::len),
    };
    2 + text[2..].bytes().take(most).take_while(u8::is_ascii_hexdigit).count()
}

/// Writes the character that an escape stands for.
fn escape(text: &str, range: Range, resolved: &mut String) -> Result<(), Diagnostic> {
    let invalid = |detail: &str| Diagnostic::new("Invalid escape sequence", detail, range);
    match text.as_bytes().get(1) {
        None => {
            return Err(invalid(
                "Backslash must be followed by an escape sequence selector character.",
            ));
        }
        Some(b'n') => resolved.push('\n'),
        Some(b'r') => resolved.push('\r'),
        Some(b't') => resolved.push('\t'),
        Some(b'"') => resolved.push('"'),
        Some(b'\\') => resolved.push('\\'),
        Some(b'u') if text.len() != 6 => {
            return Err(invalid(
                "The \\u escape sequence must be followed by four hexadecimal digits.",
            ));
        }
        Some(b'U') if text.len() != 10 => {
            return Err(invalid(
                "The \\U escape sequence must be followed by eight hexadecimal digits.",
            ));
        }
        Some(b'u' | b'U') => {
            let code = u32::from_str_radix(&text[2..], 16).unwrap_or(u32::MAX);
            match char::from_u32(code) {
                Some(character) => resolved.push(character),
                None => {
                    return Err(invalid(&format!(
                        "Cannot encode character U+{code:04x} in UTF-8."
                    )));
                }
            }
        }
        Some(_) => {
            return Err(invalid(&format!(
                "The symbol {} is not a valid escape sequence selector.",
                quote(&text[1..])
            )));
        }
    }
    Ok(())
}

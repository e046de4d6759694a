//! Text as Go's standard library writes and reads it, for messages and values that are the same in
//! every program that deals with images.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Returns `text` between double quotes, escaped as Go's `%q` does.
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

/// Tells whether a character outside of ASCII is printable. The letter in front keeps combining
/// characters from being escaped for standing first.
fn is_print(c: char) -> bool {
    let mut pair = String::from("a");
    pair.push(c);
    pair.escape_debug().nth(1) == Some(c)
}

/// Undoes percent-encoding.
///
/// # Errors
/// Fails on a `%` without two hexadecimal digits, and on bytes that are no UTF-8.
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

/// What stands for a value that isn't shown.
const MASK: &str = "***";
/// Parameters of a query that are credentials, in lower case.
const SECRET_PARAMETERS: [&str; 30] = [
    "access_key",
    "access_token",
    "api_key",
    "apikey",
    "api_token",
    "auth",
    "auth_token",
    "authorization",
    "awsaccesskeyid",
    "client_secret",
    "deploy_token",
    "id_token",
    "job_token",
    "jwt",
    "oauth_token",
    "passwd",
    "password",
    "private_token",
    "pwd",
    "refresh_token",
    "secret",
    "sig",
    "signature",
    "token",
    "x-amz-credential",
    "x-amz-security-token",
    "x-amz-signature",
    "x-goog-credential",
    "x-goog-signature",
    "x-oss-signature",
];

/// Returns a text in which the queries of URLs have no values of parameters that are known to be
/// credentials, as `?token=` or the signatures of S3, Google and Azure. All else stays as it is.
pub fn mask_queries(text: &str) -> Cow<'_, str> {
    let mut safe = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        let is_end = |c: char| c.is_whitespace() || c.is_control() || "\"'<>`\\".contains(c);
        let (url, behind) = after.split_at(after.find(is_end).unwrap_or(after.len()));
        safe.push_str(before);
        mask_query(url, &mut safe);
        rest = behind;
    }
    safe.push_str(rest);
    if safe == text { Cow::Borrowed(text) } else { Cow::Owned(safe) }
}

/// Appends a URL, without what is secret in its query.
fn mask_query(url: &str, safe: &mut String) {
    let Some((place, query)) = url.split_once('?') else { return safe.push_str(url) };
    safe.push_str(place);
    safe.push('?');
    for part in query.split_inclusive(['&', ';', '?', '#']) {
        let end = part.find(['&', ';', '?', '#']).unwrap_or(part.len());
        let (parameter, separator) = part.split_at(end);
        let name = parameter.split_once('=').map_or("", |(name, _)| name);
        let decoded = unescape(name).unwrap_or_default().to_ascii_lowercase();
        if SECRET_PARAMETERS.contains(&decoded.replace('-', "_").as_str())
            || SECRET_PARAMETERS.contains(&decoded.as_str())
        {
            safe.push_str(name);
            safe.push('=');
            safe.push_str(MASK);
        } else {
            safe.push_str(parameter);
        }
        safe.push_str(separator);
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

    #[test]
    fn queries_lose_their_credentials() {
        for (text, safe) in [
            ("https://h/a?token=x", "https://h/a?token=***"),
            (
                "ADD https://h/a?v=1&X-Amz-Signature=ab%2F&b=c#f /y",
                "ADD https://h/a?v=1&X-Amz-Signature=***&b=c#f /y",
            ),
            ("https://h/?sv=2&SIG=q;Private-Token=w", "https://h/?sv=2&SIG=***;Private-Token=***"),
            ("https://h/?%74oken=x", "https://h/?%74oken=***"),
            (
                "http://a/?password=x http://b/?access_token=y",
                "http://a/?password=*** http://b/?access_token=***",
            ),
            ("https://h/?v=1&tokens=2&key=3", "https://h/?v=1&tokens=2&key=3"),
            ("https://h/token=x", "https://h/token=x"),
            ("no?token=x", "no?token=x"),
        ] {
            assert_eq!(mask_queries(text), safe);
        }
    }
}

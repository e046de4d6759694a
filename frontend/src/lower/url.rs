//! URLs, as far as `ADD` and contexts need them: where the parts are, and percent-encoding.
//!
//! What counts as a URL, and how one is written again, follows Go's `net/url`: both end up in
//! digests.

use std::fmt::Write as _;

/// A URL in parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Url {
    /// The scheme in lower case.
    pub scheme: String,
    /// User and password as written, with the `@`; empty where there are none.
    pub user: String,
    /// Host and port.
    pub host: String,
    /// The path, decoded.
    pub path: String,
    /// The path as it is written again.
    pub encoded_path: String,
    /// The query as written.
    pub query: String,
    /// Whether a question mark stands there with nothing behind it.
    pub empty_query: bool,
    /// The fragment, decoded.
    pub fragment: String,
}

impl Url {
    /// Reads a URL with an authority.
    ///
    /// # Errors
    /// Says what is malformed.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
            return Err("invalid control character in URL".to_owned());
        }
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let empty_query = rest.find('?').is_some_and(|at| at + 1 == rest.len());
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (scheme, rest) = rest.split_once("://").ok_or("missing protocol scheme")?;
        let letter = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
        if !letter || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) {
            return Err("missing protocol scheme".to_owned());
        }
        let path_start = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(path_start);
        let host_start = authority.rfind('@').map_or(0, |at| at + 1);
        let (user, host) = authority.split_at(host_start);
        check_user(user)?;
        let scheme = scheme.to_ascii_lowercase();
        check_host(host, scheme.starts_with("http"))?;
        let decoded = unescape(path)?;
        Ok(Self {
            scheme,
            user: user.to_owned(),
            host: unescape(host)?,
            encoded_path: encode_path(path, &decoded),
            path: decoded,
            query: query.to_owned(),
            empty_query,
            fragment: unescape(fragment)?,
        })
    }

    /// Writes the URL again, without query and fragment; the mark of an empty query stays.
    pub(super) fn without_options(&self) -> String {
        let mark = if self.empty_query { "?" } else { "" };
        let mut host = String::with_capacity(self.host.len());
        for c in self.host.chars() {
            if c.is_ascii() {
                host.push(c);
                continue;
            }
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                // Writing to a text can't fail.
                let _ = write!(host, "%{byte:02X}");
            }
        }
        format!("{}://{}{host}{}{mark}", self.scheme, self.user, self.encoded_path)
    }
}

fn check_user(user: &str) -> Result<(), String> {
    let is_valid = |b: u8| b.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&b);
    if user.bytes().all(is_valid) { Ok(()) } else { Err("net/url: invalid userinfo".to_owned()) }
}

/// Checks host and port; a `strict` host has no colon but that of the port.
fn check_host(host: &str, strict: bool) -> Result<(), String> {
    let port = match host.strip_prefix('[').map(|_| host.rfind(']')) {
        Some(Some(end)) => &host[end + 1..],
        Some(None) => return Err("missing ']' in host".to_owned()),
        None if strict => host.find(':').map_or("", |colon| &host[colon..]),
        None => host.rfind(':').map_or("", |colon| &host[colon..]),
    };
    let escapes = host.match_indices('%').map(|(at, _)| &host[at..]);
    for escape in escapes {
        // Only what is not ASCII may be encoded, and the percent sign.
        let is_ascii = matches!(escape.as_bytes().get(1), Some(b'0'..=b'7'));
        if is_ascii && !escape.starts_with("%25") {
            let shown: String = escape.chars().take(3).collect();
            return Err(format!("invalid URL escape {}", crate::text::quote(&shown)));
        }
    }
    let digits = port.strip_prefix(':').unwrap_or(port);
    if digits.bytes().all(|b| b.is_ascii_digit()) && (port.is_empty() || port.starts_with(':')) {
        let bad = host.chars().find(|c| " \\^`{|}".contains(*c));
        return bad.map_or(Ok(()), |c| {
            Err(format!("invalid character {} in host name", crate::text::quote(&c.to_string())))
        });
    }
    Err(format!("invalid port {} after host", crate::text::quote(port)))
}

/// Undoes percent-encoding.
///
/// # Errors
/// Fails on a `%` without two hexadecimal digits, and on bytes that are no UTF-8.
pub(super) fn unescape(text: &str) -> Result<String, String> {
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
            return Err(format!("invalid URL escape {}", crate::text::quote(&shown)));
        };
        out.push((high * 16 + low) as u8);
        position += 3;
    }
    String::from_utf8(out).map_err(|_| "invalid UTF-8 in URL".to_owned())
}

/// Returns the keys and values of a query; malformed pairs are left out.
pub(super) fn query_pairs(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| unescape(&text.replace('+', " "));
    query
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.contains(';'))
        .filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(key).ok()?, decode(value).ok()?))
        })
        .collect()
}

/// Keeps a path as written where that is a valid encoding, and encodes it anew where it isn't.
fn encode_path(written: &str, decoded: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&b);
    if written.bytes().all(|b| plain(b) || b"!'()*[]%".contains(&b)) {
        return written.to_owned();
    }
    let mut out = String::with_capacity(decoded.len());
    for byte in decoded.bytes() {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string can't fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_fall_into_parts() {
        let url = Url::parse("HTTPS://me:pw@host:80/a%20b/c d?x=1&y#f%3Ag").unwrap();
        assert_eq!((url.scheme.as_str(), url.user.as_str()), ("https", "me:pw@"));
        assert_eq!((url.host.as_str(), url.path.as_str()), ("host:80", "/a b/c d"));
        assert_eq!((url.query.as_str(), url.fragment.as_str()), ("x=1&y", "f:g"));
        assert_eq!(url.without_options(), "https://me:pw@host:80/a%20b/c%20d");
        for text in
            ["no scheme", "http://h:x/", "http://h/%zz", "http://h/\n", "1a://x", "http://a b@h/"]
        {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn queries_are_decoded() {
        let pairs = query_pairs("a=b+c&d&e=%41&x;y&%=1");
        let pairs: Vec<(&str, &str)> =
            pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("a", "b c"), ("d", ""), ("e", "A")]);
    }
}

//! URLs for `ADD` and contexts: parsing and percent-encoding.
//!
//! The syntax of URLs and their normal form follow Go's `net/url`, because URLs are part of
//! digests.

use std::fmt::Write as _;

use kiln_oci::text::unescape;

/// The parts of a URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Url {
    /// The scheme, in lower case.
    pub scheme: String,
    /// The user and password as written, with the `@`; empty if there are none.
    pub user: String,
    /// The host, and the port after a colon.
    pub host: String,
    /// The path without percent-encoding.
    pub path: String,
    /// The path in the encoding that is written back.
    pub encoded_path: String,
    /// The query, as written.
    pub query: String,
    /// `true` if the URL has a question mark without a query.
    pub empty_query: bool,
    /// The fragment without percent-encoding, or empty.
    pub fragment: String,
}

impl Url {
    /// Parses a URL with an authority.
    ///
    /// # Errors
    /// Fails on a malformed URL.
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

    /// Returns the URL without query and fragment. The question mark of an empty query is kept.
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
                // Writing to a string can't fail.
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

/// Checks host and port. A `strict` host has no colon except before the port.
fn check_host(host: &str, strict: bool) -> Result<(), String> {
    let port = match host.strip_prefix('[').map(|_| host.rfind(']')) {
        Some(Some(end)) => &host[end + 1..],
        Some(None) => return Err("missing ']' in host".to_owned()),
        None if strict => host.find(':').map_or("", |colon| &host[colon..]),
        None => host.rfind(':').map_or("", |colon| &host[colon..]),
    };
    let escapes = host.match_indices('%').map(|(at, _)| &host[at..]);
    for escape in escapes {
        // Only non-ASCII bytes and the percent sign may be encoded.
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

/// Returns the keys and values of a query. Malformed pairs are skipped.
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

/// Returns a path as written if its encoding is valid, or encodes it again.
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

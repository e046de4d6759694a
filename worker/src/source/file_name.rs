//! The file name of a download.

const DEFAULT: &str = "download";

/// Returns the file name of a download: the requested name, or else the server's, or else the
/// URL's.
pub(crate) fn of_download(asked: &str, disposition: Option<&str>, url: &str) -> String {
    if !asked.is_empty() {
        return safe(asked);
    }
    if let Some(name) = disposition.and_then(of_disposition).filter(|name| !name.ends_with('/')) {
        return safe(&name);
    }
    let path = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once('/').map_or("", |(_, path)| path);
    safe(&String::from_utf8_lossy(&unescape(path)))
}

/// Returns the last component of a path, or a default if it isn't a safe file name.
fn safe(text: &str) -> String {
    let name = text.trim().trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let usable = !matches!(name, "" | "." | "..") && !name.chars().any(char::is_control);
    if usable { name.to_owned() } else { DEFAULT.to_owned() }
}

/// Returns the file name in a `Content-Disposition` header (RFC 6266).
fn of_disposition(header: &str) -> Option<String> {
    let (mut plain, mut extended) = (None, None);
    let (_, mut rest) = header.split_once(';')?;
    while !rest.trim().is_empty() {
        let (name, after) = rest.split_once('=')?;
        let (value, after) = value(after.trim_start())?;
        match name.trim().to_ascii_lowercase().as_str() {
            "filename" => plain = Some(value),
            "filename*" => extended = of_extended(&value),
            _ => {}
        }
        let after = after.trim_start();
        rest = after.strip_prefix(';').or(after.is_empty().then_some(""))?;
    }
    extended.or(plain).filter(|name| !name.is_empty())
}

/// Parses a parameter's value, quoted or not. Returns the remaining text, too.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_at(text.find(';').unwrap_or(text.len()));
        return Some((value.trim_end().to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

/// Decodes an extended value (RFC 8187), as `UTF-8''a%20b`.
fn of_extended(text: &str) -> Option<String> {
    let mut parts = text.splitn(3, '\'');
    let charset = parts.next()?.to_ascii_lowercase();
    let (_, value) = (parts.next()?, parts.next()?);
    if !matches!(charset.as_str(), "utf-8" | "us-ascii") {
        return None;
    }
    String::from_utf8(unescape(value)).ok()
}

/// Decodes percent-encoding. Invalid sequences stay as they are.
pub(super) fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digit = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
        if let (b'%', Some(high), Some(low)) = (byte, digit(at + 1), digit(at + 2)) {
            out.push((high * 16 + low) as u8);
            at += 3;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_is_named_by_who_knows_best() {
        let url = "https://h/a/b%20c.tgz?x=/y#/z";
        assert_eq!(of_download("asked", Some("attachment; filename=x"), url), "asked");
        for (header, name) in [
            ("attachment; filename=x.tar", "x.tar"),
            ("attachment; filename=\"a b\\\"c\"", "a b\"c"),
            ("attachment; filename=x; filename*=UTF-8''%e2%82%ac", "\u{20ac}"),
            ("attachment; filename=\"../../../etc/passwd\"", "passwd"),
            ("attachment; filename=\"/etc/cron.d/x\"", "x"),
            ("attachment; filename*=UTF-8''..%2f..%2fx", "x"),
            ("attachment; filename=\"..\"", "download"),
            ("attachment; filename=\"a\u{1}b\"", "download"),
            ("attachment; filename=\"dir/\"", "b c.tgz"),
            ("attachment; filename=\"open", "b c.tgz"),
            ("attachment", "b c.tgz"),
        ] {
            assert_eq!(of_download("", Some(header), url), name, "{header}");
        }
        assert_eq!(of_download("", None, "http://h"), "download");
        assert_eq!(of_download("", None, "http://h/"), "download");
        assert_eq!(of_download("", None, "http://h/a/%2e%2e"), "download");
        assert_eq!(of_download("", None, "http://h/a/..%2fx%00"), "download");
    }
}

//! Parsing of `.dockerignore` files.

/// Returns the patterns of an ignore file, cleaned as BuildKit cleans them: without comments and
/// blank lines, with the shortest equivalent paths, without a leading slash, and with `!` kept in
/// front.
pub fn parse(text: &[u8]) -> Vec<String> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let text = String::from_utf8_lossy(text);
    // Only a `#` in the first column begins a comment. An indented `#` begins a pattern.
    let lines = text.split('\n').filter(|line| !line.starts_with('#'));
    lines.map(str::trim).filter(|line| !line.is_empty()).map(pattern).collect()
}

fn pattern(line: &str) -> String {
    let (sign, pattern) = match line.strip_prefix('!') {
        Some(rest) => ("!", rest.trim()),
        None => ("", line),
    };
    if pattern.is_empty() {
        return sign.to_owned();
    }
    let cleaned = clean(pattern);
    let relative = match cleaned.strip_prefix('/') {
        Some(rest) if !rest.is_empty() => rest,
        _ => &cleaned,
    };
    format!("{sign}{relative}")
}

/// Returns the shortest equivalent path, without access to the file system.
fn clean(path: &str) -> String {
    let is_rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if is_rooted => {}
            _ => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (is_rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn patterns() {
        for (text, expected) in [
            ("\u{feff}a\n", &["a"][..]),
            ("# comment\n # pattern\n\n  \nb\r\n", &["# pattern", "b"]),
            ("/a/b/\n/\n./c\nd//e/../f\n", &["a/b", "/", "c", "d/f"]),
            ("!x\n! /y/ \n!\n", &["!x", "!y", "!"]),
            ("../a\n/../a\na/..\n**/*.o", &["../a", "a", ".", "**/*.o"]),
            ("", &[]),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text:?}");
        }
    }
}

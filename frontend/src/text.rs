//! Text functions with Go's behaviour. BuildKit's messages and comparisons follow Go's rules for
//! quoting, case and numbers, which differ from Rust's in details.

pub use kiln_oci::text::quote;

/// Returns `text` in lower case, using the simple mapping of each character.
pub fn to_lower(text: &str) -> String {
    text.chars().map(lower).collect()
}

fn lower(c: char) -> char {
    // The only character whose full Unicode mapping is longer than its simple one.
    if c == '\u{130}' {
        return 'i';
    }
    c.to_lowercase().next().unwrap_or(c)
}

/// Returns `text` in upper case, using the simple mapping of each character.
pub fn to_upper(text: &str) -> String {
    text.chars()
        .map(|c| {
            let mut upper = c.to_uppercase();
            match (upper.next(), upper.next()) {
                (Some(one), None) => one,
                _ => c,
            }
        })
        .collect()
}

/// Parses an unsigned number of at most 32 bits. Unlike Rust, Go accepts no sign.
pub(crate) fn parse_u32(text: &str, radix: u32) -> Option<u32> {
    if text.starts_with('+') {
        return None;
    }
    u32::from_str_radix(text, radix).ok()
}

/// Returns a text with users and passwords removed from its URLs. The names of steps and the
/// history of an image are stored, and are visible to all of its users.
pub(crate) fn without_credentials(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out += before;
        let ends = |c: char| c.is_whitespace() || "/?#\"'".contains(c);
        let end = after.find(ends).unwrap_or(after.len());
        let host = after[..end].rfind('@').filter(|at| after[..*at].contains(':'));
        if host.is_some() {
            out += "xxxxx:xxxxx";
        }
        rest = &after[host.unwrap_or_default()..];
    }
    out += rest;
    kiln_oci::redact::mask_queries(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_is_simple() {
        assert_eq!(to_lower("İSΣ"), "isσ");
        assert_eq!(to_upper("straße"), "STRAßE");
    }

    #[test]
    fn numbers_take_no_sign() {
        assert_eq!(parse_u32("0755", 8), Some(0o755));
        assert_eq!(parse_u32("+7", 8), None);
        assert_eq!(parse_u32("8", 8), None);
        assert_eq!(parse_u32("4294967296", 10), None);
    }

    #[test]
    fn passwords_are_not_shown() {
        for (text, shown) in [
            ("ADD https://u:p@h/a@b /x", "ADD https://xxxxx:xxxxx@h/a@b /x"),
            (
                "a://u:p@h ssh://git@h/x b://:p@h",
                "a://xxxxx:xxxxx@h ssh://git@h/x b://xxxxx:xxxxx@h",
            ),
            ("http://h:1/a:b@c", "http://h:1/a:b@c"),
            ("no url: a@b", "no url: a@b"),
        ] {
            assert_eq!(without_credentials(text), shown);
        }
    }
}

//! Sizes with units, such as `64m` or `1.5 GiB`.

/// Parses a size in bytes. Units are powers of 1024.
pub(super) fn parse(text: &str) -> Option<i64> {
    let last = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')?;
    let (number, behind) = text.split_at(last + 1);
    let number = number.strip_suffix(' ').unwrap_or(number);
    // Rust parses words such as `inf`, and Go parses more of them. Both lack a digit here.
    let size: f64 = number.parse().ok().filter(|size: &f64| size.is_finite() && *size >= 0.0)?;
    let unit = behind.to_ascii_lowercase();
    let scale: u64 = match unit.as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        "p" | "pb" | "pib" => 1 << 50,
        _ => return None,
    };
    Some((size * scale as f64) as i64)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0", Some(0)),
            ("100", Some(100)),
            ("64m", Some(64 << 20)),
            ("1.5 GiB", Some(3 << 29)),
            ("1kb", Some(1024)),
            ("12 ", Some(12)),
            ("5b", Some(5)),
            ("", None),
            ("m", None),
            ("-1", None),
            ("1mib2", None),
            ("1mx", None),
            ("1bb", None),
            ("1  k", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}

//! Text in the format of Go's `fmt` package, which the reference uses for history entries and
//! messages.

use std::fmt::Write as _;

use crate::text::quote;

/// Formats a list of quoted strings, as `%q` does.
pub(super) fn quote_list(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| quote(text)).collect();
    format!("[{}]", quoted.join(" "))
}

/// Formats a list of strings, as `%v` does.
pub(super) fn list(texts: &[String]) -> String {
    format!("[{}]", texts.join(" "))
}

/// Formats a duration in nanoseconds, as `1m30s`.
pub(super) fn duration(nanoseconds: i64) -> String {
    let total = nanoseconds.unsigned_abs();
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let text = match total {
        0 => "0s".to_owned(),
        1..1_000 => format!("{total}ns"),
        1_000..1_000_000 => fraction(total, 1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(total, 1_000_000, "ms"),
        _ => {
            let minutes = total / 60_000_000_000;
            let seconds = fraction(total % 60_000_000_000, 1_000_000_000, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    };
    format!("{sign}{text}")
}

fn fraction(value: u64, unit: u64, name: &str) -> String {
    let width = unit.ilog10() as usize;
    let decimals = format!("{:0width$}", value % unit);
    let decimals = decimals.trim_end_matches('0');
    let point = if decimals.is_empty() { "" } else { "." };
    format!("{}{point}{decimals}{name}", value / unit)
}

/// Formats a list of strings as JSON, with the escapes of Go's encoder: `<`, `>`, `&` and the line
/// separators are escaped too.
pub(super) fn json_list(texts: &[String]) -> String {
    let mut out = String::from("[");
    for (index, text) in texts.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        json_string(&mut out, text);
    }
    out.push(']');
    out
}

fn json_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..'\x20' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_stand_in_brackets() {
        assert_eq!(quote_list(&["a".into(), "b\"c".into()]), r#"["a" "b\"c"]"#);
        assert_eq!(list(&["a".into(), "b c".into()]), "[a b c]");
    }

    #[test]
    fn durations_are_short() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (300_000_000_000, "5m0s"),
            (3_661_000_000_001, "1h1m1.000000001s"),
            (-5_000_000_000, "-5s"),
        ] {
            assert_eq!(duration(nanoseconds), text);
        }
    }

    #[test]
    fn json_is_escaped_for_html() {
        assert_eq!(json_list(&["a<b".into(), "\"".into()]), r#"["a\u003cb","\""]"#);
        assert_eq!(json_list(&[]), "[]");
    }
}

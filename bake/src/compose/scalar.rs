//! Plain scalars of YAML.

use super::yaml::Node;

/// Makes a value of a plain scalar.
pub(super) fn resolve(text: &str) -> Node {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Node::Null,
        "true" | "True" | "TRUE" => return Node::Bool(true),
        "false" | "False" | "FALSE" => return Node::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" => return Node::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Node::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Node::Float(f64::NAN),
        _ => {}
    }
    let first = text.bytes().next().unwrap_or_default();
    if !first.is_ascii_digit() && !b"+-.".contains(&first) {
        return Node::Text(text.to_owned());
    }
    if let Some(date) = date(text) {
        return Node::Text(date);
    }
    let plain = text.replace('_', "");
    if let Some(number) = whole(&plain) {
        return Node::Whole(number);
    }
    if is_decimal(&plain)
        && let Ok(number) = plain.parse::<f64>()
    {
        return Node::Float(number);
    }
    Node::Text(text.to_owned())
}

/// Reads a whole number, in other bases too.
fn whole(text: &str) -> Option<i128> {
    let (is_negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (digits, base) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'o', ..] => (&lower[2..], 8),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (&*lower, 10),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let value = i128::from(u64::from_str_radix(digits, base).ok()?);
    let value = if is_negative { -value } else { value };
    (value >= i128::from(i64::MIN)).then_some(value)
}

/// Returns whether text is a decimal number with or without an exponent.
fn is_decimal(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mantissa_fits = match mantissa.split_once('.') {
        Some(("", fraction)) => is_number(fraction),
        Some((whole, fraction)) => is_number(whole) && (fraction.is_empty() || is_number(fraction)),
        None => is_number(mantissa),
    };
    let exponent = exponent.map(|text| text.strip_prefix(['+', '-']).unwrap_or(text));
    mantissa_fits && exponent.is_none_or(is_number)
}

/// Reads a date, perhaps with a time, and writes both.
fn date(text: &str) -> Option<String> {
    let at = text.find(['T', 't', ' ']);
    let (date, time) = match at {
        Some(at) => (&text[..at], Some(text[at + 1..].trim())),
        None => (text, None),
    };
    let numbers = |text: &str, separator: char| -> Option<Vec<u32>> {
        text.split(separator)
            .map(|part| {
                let is_short = part.len() <= 4 && part.bytes().all(|byte| byte.is_ascii_digit());
                if is_short { part.parse().ok() } else { None }
            })
            .collect()
    };
    let parts = numbers(date, '-')?;
    let [year, month, day] = parts.as_slice() else { return None };
    let has_year = date.find('-') == Some(4);
    let month = time::Month::try_from(u8::try_from(*month).ok()?).ok()?;
    let day = u8::try_from(*day).ok()?;
    let found = time::Date::from_calendar_date(i32::try_from(*year).ok()?, month, day).ok()?;
    if !has_year {
        return None;
    }
    let day_text = format!("{:04}-{:02}-{:02}", found.year(), u8::from(found.month()), found.day());
    let Some(clock) = time else {
        return Some(format!("{day_text} 00:00:00 +0000 UTC"));
    };
    let clock = clock.strip_suffix(['Z', 'z']).unwrap_or(clock);
    let (clock, fraction) = clock.split_once('.').map_or((clock, ""), |parts| parts);
    let parts = numbers(clock, ':')?;
    let [hour, minute, second] = parts.as_slice() else { return None };
    if *hour > 23 || *minute > 59 || *second > 59 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{day_text} {hour:02}:{minute:02}:{second:02}{point}{fraction} +0000 UTC"))
}

/// Writes a number with as few digits as needed, large and small ones with an exponent.
pub(super) fn float_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e21).contains(&size) {
        let text = format!("{value:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = match exponent.strip_prefix('-') {
            Some(digits) => ('-', digits),
            None => ('+', exponent),
        };
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    value.to_string()
}

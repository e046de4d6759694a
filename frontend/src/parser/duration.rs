//! Durations in Go's format: `1h30m`, `1.5s`.

use std::fmt::Write as _;

/// Parses a duration. Returns nanoseconds.
///
/// # Errors
/// Fails on malformed text, with Go's message.
pub fn parse(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quote(text));
    let (is_negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (value, behind) = component(rest, text)?;
        total = total.checked_add(value).filter(|t| *t <= 1 << 63).ok_or_else(invalid)?;
        rest = behind;
    }
    if is_negative {
        return Ok((total as i64).wrapping_neg());
    }
    i64::try_from(total).map_err(|_| invalid())
}

/// Parses a number and its unit at the beginning of `rest`. Returns nanoseconds and the remaining
/// text.
fn component<'a>(rest: &'a str, whole: &str) -> Result<(u64, &'a str), String> {
    let invalid = || format!("time: invalid duration {}", quote(whole));
    let (digits, behind) = digits(rest);
    let mut value: u64 = number(digits).ok_or_else(invalid)?;
    let (fraction, behind) = match behind.strip_prefix('.') {
        Some(behind) => self::digits(behind),
        None => ("", behind),
    };
    if digits.is_empty() && fraction.is_empty() {
        return Err(invalid());
    }
    let end = behind.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(behind.len());
    let (unit, behind) = behind.split_at(end);
    if unit.is_empty() {
        return Err(format!("time: missing unit in duration {}", quote(whole)));
    }
    let scale: u64 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => {
            return Err(format!("time: unknown unit {} in duration {}", quote(unit), quote(whole)));
        }
    };
    value = value.checked_mul(scale).filter(|v| *v <= 1 << 63).ok_or_else(invalid)?;
    let part = fraction_of(fraction, scale);
    let value = value.checked_add(part).filter(|v| *v <= 1 << 63).ok_or_else(invalid)?;
    Ok((value, behind))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() {
        return Some(0);
    }
    digits.parse().ok().filter(|value| *value <= 1 << 63)
}

/// Returns `0.digits` of `scale`. Digits beyond the precision of 63 bits are dropped.
fn fraction_of(digits: &str, scale: u64) -> u64 {
    let mut value: u64 = 0;
    let mut divisor: f64 = 1.0;
    for digit in digits.bytes() {
        let next = value.checked_mul(10).and_then(|v| v.checked_add(u64::from(digit - b'0')));
        let Some(next) = next.filter(|v| *v <= 1 << 63) else { break };
        value = next;
        divisor *= 10.0;
    }
    (value as f64 * (scale as f64 / divisor)) as u64
}

/// Quotes a text and escapes every byte outside of printable ASCII, as Go's durations do.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b' '..=0x7f => out.push(char::from(byte)),
            _ => drop(write!(out, "\\x{byte:02x}")),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("30s", Ok(30_000_000_000)),
            ("1h30m", Ok(5_400_000_000_000)),
            ("1.5s", Ok(1_500_000_000)),
            (".5ms", Ok(500_000)),
            ("-5s", Ok(-5_000_000_000)),
            ("1µs", Ok(1_000)),
            ("0.100000000000000000000h", Ok(360_000_000_000)),
            ("", Err("time: invalid duration \"\"")),
            ("abc", Err("time: invalid duration \"abc\"")),
            ("10", Err("time: missing unit in duration \"10\"")),
            ("10x", Err("time: unknown unit \"x\" in duration \"10x\"")),
            ("1é", Err("time: unknown unit \"\\xc3\\xa9\" in duration \"1\\xc3\\xa9\"")),
            ("9999999999h", Err("time: invalid duration \"9999999999h\"")),
            (".s", Err("time: invalid duration \".s\"")),
        ] {
            assert_eq!(parse(text), expected.map_err(str::to_owned), "{text}");
        }
    }
}

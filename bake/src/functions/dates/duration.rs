//! Durations as text.

use time::Duration;

use crate::quote::quote;

/// Reads a duration: numbers with units, as `1h30m`.
pub(super) fn parse(written: &str) -> Result<Duration, String> {
    let invalid = || format!("time: invalid duration {}", quote(written));
    let (negative, mut rest) = match written.as_bytes().first() {
        Some(b'-') => (true, &written[1..]),
        Some(b'+') => (false, &written[1..]),
        _ => (false, written),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: f64 = 0.0;
    let mut whole: i128 = 0;
    while !rest.is_empty() {
        let length = rest
            .find(|character: char| !character.is_ascii_digit() && character != '.')
            .unwrap_or(rest.len());
        let digits = &rest[..length];
        if !digits.bytes().any(|byte| byte.is_ascii_digit()) {
            return Err(invalid());
        }
        rest = &rest[length..];
        let length = rest
            .find(|character: char| character.is_ascii_digit() || character == '.')
            .unwrap_or(rest.len());
        if length == 0 {
            return Err(format!("time: missing unit in duration {}", quote(written)));
        }
        let unit: i128 = match &rest[..length] {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            other => {
                return Err(format!(
                    "time: unknown unit {} in duration {}",
                    quote(other),
                    quote(written)
                ));
            }
        };
        rest = &rest[length..];
        let (before, behind) = digits.split_once('.').unwrap_or((digits, ""));
        let before: i128 =
            if before.is_empty() { 0 } else { before.parse().map_err(|_| invalid())? };
        whole = before
            .checked_mul(unit)
            .and_then(|more| whole.checked_add(more))
            .ok_or_else(invalid)?;
        let fraction: f64 = format!("0.{behind}0").parse().map_err(|_| invalid())?;
        total += fraction * unit as f64;
    }
    let nanoseconds = i64::try_from(whole + total as i128).map_err(|_| invalid())?;
    Ok(Duration::nanoseconds(if negative { -nanoseconds } else { nanoseconds }))
}

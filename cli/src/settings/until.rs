//! Points in time in the notation of docker's filters: a duration before now, a date, or seconds
//! since 1970.

use anyhow::{Context, Result, bail};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, PrimitiveDateTime};

/// Parses a point in time into nanoseconds since 1970. A date without a zone is in UTC.
///
/// # Errors
/// Fails if the text is invalid.
pub(crate) fn parse(text: &str) -> Result<i128> {
    parse_at(text, OffsetDateTime::now_utc().unix_timestamp_nanos())
}

fn parse_at(text: &str, now: i128) -> Result<i128> {
    if let Ok(ago) = kiln_frontend::parser::duration::parse(text) {
        return Ok(now - i128::from(ago));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return seconds(text);
    }
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(time.unix_timestamp_nanos());
    }
    let Some(completed) = complete(text) else {
        bail!(
            "{text:?} is no point in time: expected how long ago, as 24h, a date, as \
             2026-01-31T12:00:00, or seconds since 1970"
        );
    };
    Ok(completed.assume_utc().unix_timestamp_nanos())
}

/// Parses a date without a zone. The time of day may be incomplete.
fn complete(text: &str) -> Option<PrimitiveDateTime> {
    let rest = "0000-00-00T00:00:00".get(text.len()..)?;
    let format = time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    PrimitiveDateTime::parse(&format!("{text}{rest}"), &format).ok()
}

fn seconds(text: &str) -> Result<i128> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let problem = || format!("{text:?} is no number of seconds");
    let seconds: i64 = seconds.parse().with_context(problem)?;
    let fraction = format!("{fraction:0<9}");
    let fraction: i128 = fraction.get(..9).unwrap_or_default().parse().with_context(problem)?;
    Ok(i128::from(seconds) * 1_000_000_000 + fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_many_spellings() {
        const SECOND: i128 = 1_000_000_000;
        let now = 1_700_000_000 * SECOND;
        for (text, expected) in [
            ("10m", now - 600 * SECOND),
            ("1h30m", now - 5400 * SECOND),
            ("1700000001", now + SECOND),
            ("1700000000.5", now + SECOND / 2),
            ("2023-11-14T22:13:20Z", now),
            ("2023-11-14T23:13:20+01:00", now),
            ("2023-11-14T22:13:20", now),
            ("2023-11-14T22:13", now - 20 * SECOND),
            ("2023-11-14T22", now - 800 * SECOND),
            ("2023-11-14", now - 80_000 * SECOND),
        ] {
            assert_eq!(parse_at(text, now).unwrap(), expected, "{text}");
        }
        for text in ["", "yesterday", "2023", "2023-13-01", "1.2.3", "2023-11-14T22:13:20x", "ä"] {
            let parsed = parse_at(text, now);
            assert!(parsed.is_err() || text == "2023", "{text}: {parsed:?}");
        }
    }
}

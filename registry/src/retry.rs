//! The pauses between attempts.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use crate::error::Problem;

/// The maximum pause that a server may request.
const LONGEST: Duration = Duration::from_mins(1);
/// The maximum pause without a server's request.
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

/// A problem and the pause that the server requests, if any.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) problem: Problem,
    pub(crate) pause: Option<Duration>,
}

impl<P: Into<Problem>> From<P> for Failure {
    fn from(problem: P) -> Self {
        Self { problem: problem.into(), pause: None }
    }
}

/// Returns a random number, for names and pauses. It is no secret.
pub(crate) fn random() -> u64 {
    // Each state has keys of its own, which come from the system's random numbers.
    RandomState::new().build_hasher().finish()
}

/// Returns the pause after `failures` failures. It doubles each time, less a random part of up to a
/// half, so that many clients that fail together don't retry together.
pub(crate) fn backoff(first: Duration, failures: u32) -> Duration {
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(6));
    let fraction = random() as f64 / u64::MAX as f64;
    doubled.min(LONGEST_BACKOFF).mul_f64(0.5 + fraction / 2.0)
}

/// Returns the pause of a `Retry-After` header, in seconds or as a date; at most one minute.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => until(text, OffsetDateTime::now_utc())?,
    };
    Some(pause.min(LONGEST))
}

/// Returns the time from `now` to an HTTP date.
fn until(text: &str, now: OffsetDateTime) -> Option<Duration> {
    let format = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let then = PrimitiveDateTime::parse(text, &format).ok()?.assume_utc();
    Some((then - now).try_into().unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_have_an_end() {
        let first = Duration::from_millis(100);
        for (failures, least, most) in [(1, 50, 100), (2, 100, 200), (5, 800, 1600)] {
            for _ in 0..100 {
                let pause = backoff(first, failures).as_millis();
                assert!((least..=most).contains(&pause), "{failures}: {pause}");
            }
        }
        assert!(backoff(Duration::from_secs(9), 40) <= LONGEST_BACKOFF);
    }

    #[test]
    fn servers_say_how_long() {
        let asked = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(asked("3"), Some(Duration::from_secs(3)));
        assert_eq!(asked("86400"), Some(LONGEST));
        assert_eq!(asked("soon"), None);
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        let now = OffsetDateTime::from_unix_timestamp(784_111_770).unwrap();
        let pause = until("Sun, 06 Nov 1994 08:49:37 GMT", now);
        assert_eq!(pause, Some(Duration::from_secs(7)));
    }
}

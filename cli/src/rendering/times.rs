//! Times and durations of builds and of what they have made.

use std::time::Duration;

use kiln_store::BuildRow;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Returns the duration of a build, until now if it is still running; `None` if it was killed.
pub(crate) fn duration(row: &BuildRow) -> Option<Duration> {
    let end = match row.ended_at {
        Some(end) => end,
        None if row.status == kiln_store::BuildStatus::Running => {
            OffsetDateTime::now_utc().unix_timestamp_nanos() as i64
        }
        None => return None,
    };
    Some(Duration::from_nanos(u64::try_from(end - row.started_at).unwrap_or_default()))
}

/// Returns a time in RFC 3339 for programs.
pub(crate) fn timestamp(nanoseconds: i64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds.into()).ok()?;
    time.format(&Rfc3339).ok()
}

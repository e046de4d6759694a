//! The selection of records by clients.
//!
//! A filter's selectors compare `ref`, `status` and `repository` as [`Filter`] does. In addition
//! `startedAt`, `completedAt` and `duration` are compared with `<`, `<=`, `>` and `>=`. A time is one
//! of RFC 3339, or a duration before now. A record passes if it passes one of the filters.

use std::time::Duration;

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::BuildHistoryRecord;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tonic::Status;

use crate::filters::Filter;

/// A selection of records.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    filters: Vec<(Vec<Comparison>, Filter)>,
    /// The maximum number of records, the newest; 0 for all.
    limit: usize,
}

/// A comparison of a time or a duration.
#[derive(Clone, Debug)]
struct Comparison {
    property: Property,
    operator: &'static str,
    /// Nanoseconds, since 1970 in the case of a time.
    value: i128,
}

#[derive(Clone, Copy, Debug)]
enum Property {
    StartedAt,
    CompletedAt,
    Duration,
}

impl Selection {
    /// Parses filters.
    ///
    /// # Errors
    /// Fails if a filter is malformed, or if the limit is negative.
    pub(super) fn parse(filters: &[String], limit: i32) -> Result<Self, Status> {
        let limit = usize::try_from(limit)
            .map_err(|_| Status::invalid_argument(format!("invalid limit {limit}")))?;
        let filters = filters.iter().map(|text| parse(text)).collect::<Result<_, _>>()?;
        Ok(Self { filters, limit })
    }

    /// Returns the selected records. With a limit, the newest come first.
    pub(super) fn of(&self, mut records: Vec<BuildHistoryRecord>) -> Vec<BuildHistoryRecord> {
        records.retain(|record| self.accepts(record));
        if self.limit > 0 {
            records.sort_by_key(|record| std::cmp::Reverse(record.created_at.map(nanoseconds)));
            records.truncate(self.limit);
        }
        records
    }

    fn accepts(&self, record: &BuildHistoryRecord) -> bool {
        let accepts = |(comparisons, filter): &(Vec<Comparison>, Filter)| {
            comparisons.iter().all(|comparison| comparison.accepts(record))
                && filter.accepts(|field| value(record, field))
        };
        self.filters.is_empty() || self.filters.iter().any(accepts)
    }
}

fn parse(text: &str) -> Result<(Vec<Comparison>, Filter), Status> {
    let (mut comparisons, mut others) = (Vec::new(), Vec::new());
    for selector in text.split(',') {
        match Comparison::parse(selector)? {
            Some(comparison) => comparisons.push(comparison),
            None => others.push(selector),
        }
    }
    Ok((comparisons, Filter::parse(&others.join(","))?))
}

impl Comparison {
    /// Parses a comparison. `None` for a selector of another kind.
    fn parse(text: &str) -> Result<Option<Self>, Status> {
        let found = [">=", "<=", ">", "<"].into_iter().find_map(|operator| {
            text.split_once(operator).map(|(name, value)| (name, operator, value))
        });
        let Some((name, operator, value)) = found else { return Ok(None) };
        let property = match name {
            "startedAt" => Property::StartedAt,
            "completedAt" => Property::CompletedAt,
            "duration" => Property::Duration,
            _ => return Ok(None),
        };
        let duration = duration(value).map(|it| i128::try_from(it.as_nanos()).unwrap_or(i128::MAX));
        let value = match (property, duration) {
            (Property::Duration, duration) => {
                let invalid = || Status::invalid_argument(format!("invalid duration {value}"));
                duration.ok_or_else(invalid)?
            }
            (_, Some(before)) => OffsetDateTime::now_utc().unix_timestamp_nanos() - before,
            (_, None) => OffsetDateTime::parse(value, &Rfc3339)
                .map_err(|_| Status::invalid_argument(format!("invalid time {value}")))?
                .unix_timestamp_nanos(),
        };
        Ok(Some(Self { property, operator, value }))
    }

    fn accepts(&self, record: &BuildHistoryRecord) -> bool {
        let created = record.created_at.map(nanoseconds).unwrap_or_default();
        let completed = record.completed_at.map(nanoseconds);
        let value = match self.property {
            Property::StartedAt => created,
            Property::CompletedAt => completed.unwrap_or_default(),
            Property::Duration => completed.map_or(0, |completed| completed - created),
        };
        match self.operator {
            ">=" => value >= self.value,
            "<=" => value <= self.value,
            ">" => value > self.value,
            _ => value < self.value,
        }
    }
}

/// Parses a duration as Go writes it, such as `1h30m` or `1.5s`.
fn duration(mut text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    while !text.is_empty() {
        let digits = text.find(|part: char| !part.is_ascii_digit() && part != '.')?;
        let number: f64 = text[..digits].parse().ok()?;
        text = &text[digits..];
        let end = text.find(|part: char| part.is_ascii_digit()).unwrap_or(text.len());
        let unit = match &text[..end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * unit).ok()?)?;
        text = &text[end..];
    }
    Some(total)
}

/// Returns the value of a record's field.
fn value(record: &BuildHistoryRecord, field: &[String]) -> Option<String> {
    match field.first()?.as_str() {
        "ref" => Some(record.r#ref.clone()),
        "status" => Some(status(record).to_owned()),
        "repository" => {
            let source = record.frontend_attrs.get("vcs:source").cloned();
            source.or_else(|| kiln_frontend::repository(record.frontend_attrs.get("context")?))
        }
        _ => None,
    }
}

/// Returns the status of a build, as filters name it.
pub(super) fn status(record: &BuildHistoryRecord) -> &'static str {
    match (&record.completed_at, &record.error) {
        (None, _) => "running",
        (_, None) => "completed",
        (_, Some(error)) if error.message.contains("context canceled") => "canceled",
        (_, Some(_)) => "error",
    }
}

/// Returns a time in nanoseconds since 1970.
pub(super) fn nanoseconds(time: Timestamp) -> i128 {
    i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos)
}

#[cfg(test)]
mod tests {
    use bollard_buildkit_proto::google::rpc;

    use super::*;

    fn record(reference: &str, started: i64, seconds: Option<i64>) -> BuildHistoryRecord {
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        BuildHistoryRecord {
            r#ref: reference.to_owned(),
            created_at: Some(at(started)),
            completed_at: seconds.map(|seconds| at(started + seconds)),
            ..BuildHistoryRecord::default()
        }
    }

    fn selected(filters: &[&str], limit: i32) -> Vec<String> {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let error = |message: &str| {
            Some(rpc::Status { message: message.to_owned(), ..rpc::Status::default() })
        };
        let records = vec![
            record("a", now - 7200, Some(60)),
            BuildHistoryRecord { error: error("broken"), ..record("b", now - 60, Some(2)) },
            BuildHistoryRecord { error: error("x: context canceled"), ..record("c", 5, Some(1)) },
            record("d", now, None),
        ];
        let filters: Vec<String> = filters.iter().map(|&filter| filter.to_owned()).collect();
        let selected = Selection::parse(&filters, limit).unwrap().of(records);
        selected.into_iter().map(|record| record.r#ref).collect()
    }

    #[test]
    fn filters_select_records() {
        assert_eq!(selected(&[], 0), ["a", "b", "c", "d"]);
        assert_eq!(selected(&[], 2), ["d", "b"]);
        assert_eq!(selected(&["ref==a", "status==running"], 0), ["a", "d"]);
        assert_eq!(selected(&["status~=error|canceled"], 0), ["b", "c"]);
        assert_eq!(selected(&["startedAt>1h"], 0), ["b", "d"]);
        assert_eq!(selected(&["startedAt<1h,status==completed"], 0), ["a"]);
        assert_eq!(selected(&["completedAt<=1970-01-01T00:00:06Z"], 0), ["c", "d"]);
        assert_eq!(selected(&["duration>=1m"], 0), ["a"]);
        assert_eq!(selected(&["duration>1500ms"], 1), ["b"]);
    }

    #[test]
    fn durations_are_gos() {
        assert_eq!(duration("1h30m"), Some(Duration::from_mins(90)));
        assert_eq!(duration("1.5s"), Some(Duration::from_millis(1500)));
        assert!(["5", "x", "5d", "1h3"].iter().all(|text| duration(text).is_none()));
    }

    #[test]
    fn invalid_selections_are_errors() {
        let parse = |filter: &str| Selection::parse(&[filter.to_owned()], 0);
        assert!(parse("startedAt>yesterday").is_err());
        assert!(parse("duration>1").is_err());
        assert!(parse("ref=a").is_err());
        assert!(Selection::parse(&[], -1).is_err());
    }

    #[test]
    fn a_repository_is_that_of_the_context() {
        let of = |name: &str, text: &str| {
            let frontend_attrs = [(name.to_owned(), text.to_owned())].into();
            value(
                &BuildHistoryRecord { frontend_attrs, ..record("a", 0, None) },
                &["repository".to_owned()],
            )
        };
        assert_eq!(of("vcs:source", "x").as_deref(), Some("x"));
        let address = "https://example.com/a/b.git";
        assert_eq!(of("context", &format!("{address}#main:dir")).as_deref(), Some(address));
        assert_eq!(of("context", "."), None);
    }
}

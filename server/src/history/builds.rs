//! The records of served builds among kiln's own, for `kiln builds`.

use std::collections::HashMap;

use anyhow::Result;
use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{BuildHistoryRecord, Vertex};
use kiln::records::{BuildRecord, StepRecord, StepStatus};
use kiln::redact::is_credential;
use kiln_store::{BuildRow, BuildStatus, Builds, LogRecord};

use super::selection::{nanoseconds, status};
use crate::status::StatusLog;

/// The command of served builds.
const COMMAND: &str = "kiln serve";
/// The prefix of build arguments.
const ARGUMENT: &str = "build-arg:";
/// The media type of an error of a build that its client has canceled.
const CANCELED: &str = "canceled";

/// Records a served build that has ended.
///
/// # Errors
/// Fails if the store can't be written.
pub(super) fn add(builds: &Builds, record: &BuildHistoryRecord, log: &StatusLog) -> Result<()> {
    let begun = nanoseconds(record.created_at.unwrap_or_default());
    let vertices = log.vertices();
    let described = describe(record, &vertices, begun);
    let mut row = BuildRow {
        id: id(builds, &record.r#ref)?,
        started_at: i64::try_from(begun)?,
        ended_at: record.completed_at.map(|at| i64::try_from(nanoseconds(at))).transpose()?,
        status: match (&record.error, status(record)) {
            (None, _) => BuildStatus::Completed,
            (_, CANCELED) => BuildStatus::Canceled,
            _ => BuildStatus::Failed,
        },
        reference: Some(name(&described, &record.r#ref)),
        record: serde_json::to_string(&described)?,
        ..BuildRow::default()
    };
    builds.record(&row)?;
    if let Some(bytes) = write_log(builds, &row.id, &described, log, begun)? {
        row.log_bytes = bytes;
        builds.record(&row)?;
    }
    Ok(())
}

/// Removes the record of a served build, if there is one.
///
/// # Errors
/// Fails if the store can't be written.
pub(super) fn remove(builds: &Builds, reference: &str) -> Result<()> {
    let Some(row) = builds.get(reference)? else { return Ok(()) };
    if BuildRecord::of(&row).is_ok_and(|record| record.command == COMMAND) {
        builds.remove(reference)?;
    }
    Ok(())
}

/// Returns the ID of a build: the client's reference, unless it is taken or can't be an ID.
fn id(builds: &Builds, reference: &str) -> Result<String> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_id = (8..=64).contains(&reference.len()) && reference.bytes().all(is_plain);
    if is_id && builds.get(reference)?.is_none() {
        return Ok(reference.to_owned());
    }
    Ok(builds.fresh_id())
}

fn name(record: &BuildRecord, reference: &str) -> String {
    let of_context = record.context.trim_end_matches('/').rsplit('/').next();
    let name = record.tags.first().map(String::as_str).or(of_context);
    name.filter(|name| !name.is_empty()).unwrap_or(reference).to_owned()
}

fn describe(record: &BuildHistoryRecord, vertices: &[Vertex], begun: i128) -> BuildRecord {
    let option = |name: &str| record.frontend_attrs.get(name).filter(|text| !text.is_empty());
    let argument = |(name, value): (&String, &String)| {
        let name = name.strip_prefix(ARGUMENT)?;
        Some((name.to_owned(), (!is_credential(name, value)).then(|| value.clone())))
    };
    let names = record.exporters.iter().filter_map(|exporter| exporter.attrs.get("name"));
    let names = names.flat_map(|names| names.split(',')).filter(|name| !name.is_empty());
    let count = |number: i32| usize::try_from(number).unwrap_or_default();
    let numbered = (1..).zip(vertices.iter().filter(|vertex| vertex.started.is_some()));
    BuildRecord {
        command: COMMAND.to_owned(),
        context: option("context").cloned().unwrap_or_default(),
        dockerfile: option("filename").cloned(),
        target: option("target").cloned(),
        build_args: record.frontend_attrs.iter().filter_map(argument).collect(),
        tags: names.map(str::to_owned).collect(),
        error: record.error.as_ref().map(|error| error.message.clone()),
        total_steps: count(record.num_total_steps),
        cached_steps: count(record.num_cached_steps),
        steps: numbered.map(|(number, vertex)| step(number, vertex, begun)).collect(),
        ..BuildRecord::default()
    }
}

fn step(number: u32, vertex: &Vertex, begun: i128) -> StepRecord {
    let started = vertex.started.map(|at| milliseconds(at, begun));
    let ended = vertex.completed.map(|at| milliseconds(at, begun));
    StepRecord {
        number,
        name: vertex.name.clone(),
        digest: Some(vertex.digest.clone()),
        status: match (vertex.cached, vertex.error.as_str()) {
            (true, _) => StepStatus::Cached,
            (_, "") => StepStatus::Completed,
            (_, "context canceled") => StepStatus::Canceled,
            _ => StepStatus::Failed,
        },
        started_ms: started,
        duration_ms: ended.zip(started).map(|(end, start)| end.saturating_sub(start)),
        error: Some(vertex.error.clone()).filter(|error| !error.is_empty()),
        ..StepRecord::default()
    }
}

fn milliseconds(at: Timestamp, begun: i128) -> u64 {
    u64::try_from((nanoseconds(at) - begun) / 1_000_000).unwrap_or_default()
}

/// Writes the output of the steps. Returns the disk space of the log in bytes, or `None` if the
/// steps have printed nothing.
fn write_log(
    builds: &Builds,
    id: &str,
    record: &BuildRecord,
    log: &StatusLog,
    begun: i128,
) -> Result<Option<u64>> {
    let numbers: HashMap<&str, u32> = record
        .steps
        .iter()
        .filter_map(|step| Some((step.digest.as_deref()?, step.number)))
        .collect();
    let mut writer = None;
    log.with_messages(|messages| -> Result<()> {
        let mut offset = 0;
        while let Some(rest) = messages.rest(offset) {
            let Some((message, next)) = rest.first(offset)? else { break };
            for piece in message.logs {
                let Some(step) = numbers.get(piece.vertex.as_str()) else { continue };
                let at = milliseconds(piece.timestamp.unwrap_or_default(), begun);
                let record = LogRecord {
                    step: *step,
                    at: u32::try_from(at).unwrap_or(u32::MAX),
                    is_stderr: piece.stream == 2,
                    bytes: piece.msg,
                };
                let opened = match writer.take() {
                    Some(writer) => writer,
                    None => builds.write_log(id)?,
                };
                writer.insert(opened).append(&record)?;
            }
            offset = next;
        }
        Ok(())
    })?;
    Ok(writer.map(kiln_store::BuildLogWriter::finish).transpose()?)
}

#[cfg(test)]
mod tests {
    use bollard_buildkit_proto::google::rpc;
    use kiln_event::{Event, EventSender, LogStream};
    use kiln_oci::Digest;
    use kiln_store::Store;

    use super::*;
    use crate::status::now;

    #[tokio::test]
    async fn served_builds_are_among_kilns() {
        let directory = tempfile::tempdir().unwrap();
        let builds = Store::open(directory.path()).unwrap().builds();
        let log = StatusLog::default();
        let created_at = Some(now());
        log.follow(None, async |events: EventSender| {
            let digest = Some(Digest::of(b"step"));
            events.send(Event::Vertex { id: 1, name: "step".to_owned(), digest, inputs: vec![] });
            events.send(Event::Started { id: 1 });
            events.send(Event::Log { id: 1, stream: LogStream::Stderr, bytes: b"text".to_vec() });
            events.send(Event::Failed { id: 1, error: "bad".to_owned() });
        })
        .await;
        log.close();
        let frontend_attrs = [
            ("context".to_owned(), "https://example.com/app.git".to_owned()),
            ("build-arg:TOKEN".to_owned(), "s3cret".to_owned()),
        ];
        let record = BuildHistoryRecord {
            r#ref: "abcdefgh0123".to_owned(),
            frontend_attrs: frontend_attrs.into(),
            created_at,
            completed_at: Some(now()),
            error: Some(rpc::Status { message: "bad".to_owned(), ..rpc::Status::default() }),
            num_total_steps: 1,
            ..BuildHistoryRecord::default()
        };
        add(&builds, &record, &log).unwrap();
        add(&builds, &record, &log).unwrap();
        assert_eq!(builds.count().unwrap(), 2);
        let row = builds.get("abcdefgh0123").unwrap().unwrap();
        assert_eq!((row.status, row.reference.as_deref()), (BuildStatus::Failed, Some("app.git")));
        assert!(!row.record.contains("s3cret") && row.log_bytes > 0);
        let described = BuildRecord::of(&row).unwrap();
        assert_eq!((described.steps[0].number, described.steps[0].status), (1, StepStatus::Failed));
        let printed: Vec<LogRecord> = builds.read_log(&row.id).unwrap().unwrap().collect();
        assert_eq!((printed.len(), printed[0].bytes.as_slice()), (1, &b"text"[..]));
        remove(&builds, "abcdefgh0123").unwrap();
        assert_eq!(builds.count().unwrap(), 1);
        remove(&builds, &builds.list().unwrap()[0].id).unwrap();
        // A name that a path could have is no ID.
        add(&builds, &BuildHistoryRecord { r#ref: "../../etc/x".to_owned(), ..record }, &log)
            .unwrap();
        assert!(builds.get("../../etc/x").unwrap().is_none());
    }
}

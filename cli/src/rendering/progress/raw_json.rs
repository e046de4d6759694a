//! Progress for programs: BuildKit's status messages as lines of JSON.
//!
//! The format is that of `docker buildx build --progress=rawjson`: every line is an object with one
//! of the lists `vertexes`, `statuses`, `logs` and `warnings`. A vertex is written again as a whole
//! whenever it changes. A status describes a part of a vertex, such as the download of a layer.
//! Bytes are in base64, times in RFC 3339. A step outside the graph gets a digest of its own, so
//! that every vertex has one.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln::build::Dockerfile;
use kiln_event::{Event, EventReceiver, LogStream, VertexId};
use kiln_frontend::lint::Warning;
use kiln_oci::Digest;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::warnings::with_hint;
/// The severity of all warnings, as in BuildKit.
const LEVEL: u32 = 1;

/// The error of a cancelled vertex, in BuildKit's words.
const CANCELLED: &str = "context canceled";

/// Shows events until the last sender is dropped.
pub(super) async fn render(mut events: EventReceiver, writer: &mut dyn Write) {
    let mut raw = RawJson { vertexes: BTreeMap::new(), parts: BTreeMap::new(), writer };
    while let Some(event) = events.recv().await {
        // An output that can't be written doesn't end the build.
        let _ = raw.show(event, OffsetDateTime::now_utc());
    }
    let _ = raw.writer.flush();
}

/// Writes the findings of the build checks together with the Dockerfile.
pub(super) fn raw_warnings(warnings: &[Warning], dockerfile: &Dockerfile, writer: &mut dyn Write) {
    for warning in warnings {
        let line = warning.spans.first().map(|span| format!(" (line {})", span.start));
        let short = format!("{}: {}{}", warning.rule, warning.message, line.unwrap_or_default());
        let ranges = warning.spans.iter().map(|span| Range {
            start: Position { line: span.start },
            end: Position { line: span.end },
        });
        let message = Message::Warnings([VertexWarning {
            vertex: None,
            level: LEVEL,
            short: STANDARD.encode(short),
            detail: vec![STANDARD.encode(&*warning.description)],
            url: &warning.url,
            source_info: Some(SourceInfo {
                filename: &dockerfile.name,
                data: STANDARD.encode(&dockerfile.text),
                language: "Dockerfile",
            }),
            range: ranges.collect(),
        }]);
        // As above.
        let _ = write(writer, &message);
    }
}

/// The contents of one line.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Message<'a> {
    Vertexes([&'a Vertex; 1]),
    Statuses([VertexStatus<'a>; 1]),
    Logs([VertexLog<'a>; 1]),
    Warnings([VertexWarning<'a>; 1]),
}

#[derive(Serialize)]
struct Vertex {
    digest: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<String>,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cached: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

#[derive(Serialize)]
struct VertexStatus<'a> {
    id: &'a str,
    vertex: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    current: u64,
    timestamp: &'a str,
    started: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<&'a str>,
}

#[derive(Serialize)]
struct VertexLog<'a> {
    vertex: &'a str,
    stream: u32,
    data: String,
    timestamp: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VertexWarning<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    vertex: Option<&'a str>,
    level: u32,
    short: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    detail: Vec<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_info: Option<SourceInfo<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    range: Vec<Range>,
}

#[derive(Serialize)]
struct SourceInfo<'a> {
    filename: &'a str,
    data: String,
    language: &'a str,
}

#[derive(Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Serialize)]
struct Position {
    line: u32,
}

struct RawJson<'a> {
    vertexes: BTreeMap<VertexId, Vertex>,
    /// The start times of unfinished parts.
    parts: BTreeMap<(VertexId, String), String>,
    writer: &'a mut dyn Write,
}

impl RawJson<'_> {
    fn show(&mut self, event: Event, now: OffsetDateTime) -> io::Result<()> {
        let time = told(now);
        match event {
            Event::Vertex { id, name, digest, inputs } => {
                let vertex = self.vertex(id);
                vertex.name = name;
                vertex.inputs = inputs.iter().map(Digest::to_string).collect();
                if let Some(digest) = digest {
                    vertex.digest = digest.to_string();
                }
                self.write_vertex(id)
            }
            Event::Keyed { .. } | Event::Layer { .. } => Ok(()),
            Event::Started { id } => {
                self.vertex(id).started = Some(time);
                self.write_vertex(id)
            }
            Event::Cached { id } => {
                self.vertex(id).cached = true;
                self.end(id, time, "")
            }
            Event::Completed { id, duration } => {
                let begun = || told(now - duration.min(DAY));
                self.vertex(id).started.get_or_insert_with(begun);
                self.end(id, time, "")
            }
            Event::Failed { id, error } => self.end(id, time, &error),
            Event::Cancelled { id } => self.end(id, time, CANCELLED),
            Event::Status { id, name, current, total, done } => {
                self.part(id, name, Extent { current, total, done }, &time)
            }
            Event::Log { id, stream, bytes } => {
                let stream = match stream {
                    LogStream::Stdout => 1,
                    LogStream::Stderr => 2,
                };
                let data = STANDARD.encode(bytes);
                let vertex = &self.vertex(id).digest.clone();
                let log = VertexLog { vertex, stream, data, timestamp: &time };
                write(self.writer, &Message::Logs([log]))
            }
            Event::Warning { id, message, cause } => {
                let vertex = id.map(|id| self.vertex(id).digest.clone());
                let warning = VertexWarning {
                    vertex: vertex.as_deref(),
                    level: LEVEL,
                    short: STANDARD.encode(with_hint(&message, cause.as_ref())),
                    detail: Vec::new(),
                    url: "",
                    source_info: None,
                    range: Vec::new(),
                };
                write(self.writer, &Message::Warnings([warning]))
            }
        }
    }

    /// Returns a vertex. Adds an unnamed one if it is unknown.
    fn vertex(&mut self, id: VertexId) -> &mut Vertex {
        self.vertexes.entry(id).or_insert_with(|| Vertex {
            digest: Digest::of(format!("step {id} outside of the graph").as_bytes()).to_string(),
            inputs: Vec::new(),
            name: String::new(),
            started: None,
            completed: None,
            cached: false,
            error: String::new(),
        })
    }

    fn write_vertex(&mut self, id: VertexId) -> io::Result<()> {
        let Some(vertex) = self.vertexes.get(&id) else { return Ok(()) };
        write(self.writer, &Message::Vertexes([vertex]))
    }

    fn end(&mut self, id: VertexId, time: String, error: &str) -> io::Result<()> {
        let vertex = self.vertex(id);
        error.clone_into(&mut vertex.error);
        vertex.started.get_or_insert_with(|| time.clone());
        vertex.completed = Some(time);
        self.write_vertex(id)
    }

    fn part(&mut self, id: VertexId, name: String, at: Extent, time: &str) -> io::Result<()> {
        let vertex = &self.vertex(id).digest.clone();
        let key = (id, name);
        let started = self.parts.entry(key.clone()).or_insert_with(|| time.to_owned()).clone();
        if at.done {
            self.parts.remove(&key);
        }
        let status = VertexStatus {
            id: &key.1,
            vertex,
            name: &key.1,
            total: at.total.filter(|total| *total > 0),
            current: at.current,
            timestamp: time,
            started: &started,
            completed: at.done.then_some(time),
        };
        write(self.writer, &Message::Statuses([status]))
    }
}

/// The progress of a part.
#[derive(Clone, Copy)]
struct Extent {
    current: u64,
    total: Option<u64>,
    done: bool,
}

/// The most that is subtracted from the current time for a step's duration, to stay in range.
const DAY: Duration = Duration::from_hours(24);

/// Formats a time in RFC 3339.
fn told(time: OffsetDateTime) -> String {
    // This can't fail: the year has four digits.
    time.format(&Rfc3339).unwrap_or_default()
}

fn write(writer: &mut dyn Write, message: &Message<'_>) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    writer.write_all(&line)
}

#[cfg(test)]
mod tests {
    use kiln_frontend::Span;
    use serde_json::{Value, json};
    use time::macros::datetime;

    use super::*;

    fn shown(events: Vec<Event>) -> Vec<Value> {
        let mut shown = Vec::new();
        let (vertexes, parts) = (BTreeMap::new(), BTreeMap::new());
        let mut raw = RawJson { vertexes, parts, writer: &mut shown };
        for (second, event) in events.into_iter().enumerate() {
            let now = datetime!(2026-01-02 03:04:05 UTC) + Duration::from_secs(second as u64);
            raw.show(event, now).unwrap();
        }
        lines(&shown)
    }

    fn lines(text: &[u8]) -> Vec<Value> {
        let text = std::str::from_utf8(text).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn vertexes_are_written_whenever_they_change() {
        let (run, base) = (Digest::of(b"run"), Digest::of(b"base"));
        let name = || "RUN \"x\"\u{1b}".to_owned();
        let shown = shown(vec![
            Event::Vertex { id: 1, name: name(), digest: Some(run), inputs: vec![base] },
            Event::Started { id: 1 },
            Event::Failed { id: 1, error: "exit code: 2".to_owned() },
            Event::Vertex { id: 2, name: "FROM".to_owned(), digest: Some(base), inputs: vec![] },
            Event::Cached { id: 2 },
            Event::Vertex { id: 1 << 24, name: "load".to_owned(), digest: None, inputs: vec![] },
            Event::Cancelled { id: 1 << 24 },
        ]);
        let times = ["2026-01-02T03:04:06Z", "2026-01-02T03:04:07Z", "2026-01-02T03:04:09Z"];
        let vertex = |value: Value| json!({"vertexes": [value]});
        let first = json!({"digest": run, "inputs": [base], "name": name()});
        let second = json!({
            "digest": run, "inputs": [base], "name": name(), "started": times[0],
        });
        let third = json!({
            "digest": run, "inputs": [base], "name": name(), "started": times[0],
            "completed": times[1], "error": "exit code: 2",
        });
        let cached = json!({
            "digest": base, "name": "FROM", "started": times[2], "completed": times[2],
            "cached": true,
        });
        assert_eq!(shown[..3], [vertex(first), vertex(second), vertex(third)]);
        assert_eq!(shown[4], vertex(cached));
        let outside = &shown[6]["vertexes"][0];
        assert_eq!(outside["error"], "context canceled");
        assert!(outside["digest"].as_str().unwrap().starts_with("sha256:"), "{outside}");
        assert_eq!(outside["digest"], shown[5]["vertexes"][0]["digest"]);
    }

    #[test]
    fn parts_logs_and_warnings_belong_to_vertexes() {
        let run = Digest::of(b"run");
        let part = |current, done| Event::Status {
            id: 1,
            name: "layer".to_owned(),
            current,
            total: Some(20),
            done,
        };
        let bytes = b"\xffx\n".to_vec();
        let shown = shown(vec![
            Event::Vertex { id: 1, name: "RUN".to_owned(), digest: Some(run), inputs: vec![] },
            part(0, false),
            part(20, true),
            Event::Log { id: 1, stream: LogStream::Stderr, bytes },
            Event::Warning { id: None, message: "odd".to_owned(), cause: None },
        ]);
        let times = ["2026-01-02T03:04:06Z", "2026-01-02T03:04:07Z", "2026-01-02T03:04:08Z"];
        let expected = [
            json!({"statuses": [{
                "id": "layer", "vertex": run, "name": "layer", "total": 20, "current": 0,
                "timestamp": times[0], "started": times[0],
            }]}),
            json!({"statuses": [{
                "id": "layer", "vertex": run, "name": "layer", "total": 20, "current": 20,
                "timestamp": times[1], "started": times[0], "completed": times[1],
            }]}),
            json!({"logs": [{
                "vertex": run, "stream": 2, "data": "/3gK", "timestamp": times[2],
            }]}),
            json!({"warnings": [{"level": 1, "short": "b2Rk"}]}),
        ];
        assert_eq!(shown[1..], expected);
    }

    #[test]
    fn build_checks_are_warnings_with_their_lines() {
        let warning = Warning {
            rule: "StageNameCasing".into(),
            description: "why".into(),
            url: "https://example.com/".into(),
            message: "what".to_owned(),
            spans: vec![Span { start: 2, end: 3 }],
        };
        let dockerfile = Dockerfile {
            name: "Dockerfile".to_owned(),
            text: b"FROM x".to_vec(),
            ..Dockerfile::default()
        };
        let mut shown = Vec::new();
        raw_warnings(&[warning], &dockerfile, &mut shown);
        let expected = json!({"warnings": [{
            "level": 1,
            "short": STANDARD.encode("StageNameCasing: what (line 2)"),
            "detail": [STANDARD.encode("why")],
            "url": "https://example.com/",
            "sourceInfo": {
                "filename": "Dockerfile", "data": "RlJPTSB4", "language": "Dockerfile",
            },
            "range": [{"start": {"line": 2}, "end": {"line": 3}}],
        }]});
        assert_eq!(lines(&shown), [expected]);
    }
}

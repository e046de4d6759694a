//! Traces: the spans of clients, and the trace of a build.
//!
//! Clients send their spans after each command. The server accepts and drops them: it exports no
//! traces. The record of a build has a trace of its own, with a span for each step. It is a sequence
//! of JSON documents in the format of Go's OpenTelemetry library, as clients read it.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{BuildHistoryRecord, Vertex};
use futures_util::future::BoxFuture;
use kiln_oci::Digest;
use prost::Message;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

/// The service. Its messages are read without their fields.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TraceService;

#[derive(Clone, PartialEq, Message)]
struct Spans {}

impl NamedService for TraceService {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl Service<http::Request<Body>> for TraceService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            Ok(if request.uri().path().ends_with("/Export") {
                Grpc::new(ProstCodec::default()).unary(Drop, request).await
            } else {
                Status::unimplemented("unknown method").into_http()
            })
        })
    }
}

struct Drop;

impl UnaryService<Spans> for Drop {
    type Response = Spans;
    type Future = BoxFuture<'static, Result<Response<Spans>, Status>>;

    fn call(&mut self, _request: Request<Spans>) -> Self::Future {
        Box::pin(async { Ok(Response::new(Spans {})) })
    }
}

/// Returns the trace of a build that has ended: a span for the build, and one for each step that has
/// run, in the order of their begins.
pub(crate) fn of_build(record: &BuildHistoryRecord, vertices: &[Vertex]) -> Vec<u8> {
    let trace = Trace::new(record);
    let steps = vertices.iter().filter_map(|vertex| trace.step(vertex));
    let steps: Vec<Value> = steps.collect();
    let mut bytes = Vec::new();
    for span in std::iter::once(trace.root(record, steps.len())).chain(steps) {
        bytes.extend(span.to_string().into_bytes());
        bytes.push(b'\n');
    }
    bytes
}

/// The identity of a trace.
struct Trace {
    id: String,
    root: String,
}

impl Trace {
    fn new(record: &BuildHistoryRecord) -> Self {
        let id = Digest::of(format!("{} {:?}", record.r#ref, record.created_at).as_bytes()).hex();
        Self { id: id[..32].to_owned(), root: id[32..48].to_owned() }
    }

    fn root(&self, record: &BuildHistoryRecord, children: usize) -> Value {
        let error = record.error.as_ref().map(|error| error.message.as_str());
        let times = (record.created_at, record.completed_at);
        let none = context("00000000000000000000000000000000", "0000000000000000");
        let attribute = attribute("build.ref", &record.r#ref);
        let own = context(&self.id, &self.root);
        let mut span = span("build", &(own, none), times, &attribute);
        span["Status"] = status(error);
        span["ChildSpanCount"] = json!(children);
        span
    }

    fn step(&self, vertex: &Vertex) -> Option<Value> {
        let started = vertex.started?;
        let id = Digest::of(format!("{} {}", self.id, vertex.digest).as_bytes()).hex();
        let contexts = (context(&self.id, &id[..16]), context(&self.id, &self.root));
        let times = (Some(started), vertex.completed.or(Some(started)));
        let mut span = span(&vertex.name, &contexts, times, &attribute("vertex", &vertex.digest));
        span["Status"] = status(Some(vertex.error.as_str()).filter(|error| !error.is_empty()));
        Some(span)
    }
}

/// Returns a span. `contexts` are its own and its parent's, and `times` its start and its end.
fn span(
    name: &str,
    contexts: &(Value, Value),
    times: (Option<Timestamp>, Option<Timestamp>),
    attribute: &Value,
) -> Value {
    json!({
        "Name": name,
        "SpanContext": contexts.0,
        "Parent": contexts.1,
        "SpanKind": 1,
        "StartTime": time(times.0),
        "EndTime": time(times.1),
        "Attributes": [attribute],
        "Events": null,
        "Links": null,
        "DroppedAttributes": 0,
        "DroppedEvents": 0,
        "DroppedLinks": 0,
        "ChildSpanCount": 0,
        "Resource": [self::attribute("service.name", "kiln")],
        "InstrumentationLibrary": {"Name": "kiln", "Version": env!("CARGO_PKG_VERSION"), "SchemaURL": ""},
    })
}

fn context(trace: &str, span: &str) -> Value {
    json!({
        "TraceID": trace,
        "SpanID": span,
        "TraceFlags": "01",
        "TraceState": "",
        "Remote": false,
    })
}

fn attribute(key: &str, value: &str) -> Value {
    json!({"Key": key, "Value": {"Type": "STRING", "Value": value}})
}

fn status(error: Option<&str>) -> Value {
    let code = if error.is_some() { "Error" } else { "Unset" };
    json!({"Code": code, "Description": error.unwrap_or_default()})
}

fn time(time: Option<Timestamp>) -> String {
    let time = time.unwrap_or_default();
    let nanoseconds = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds);
    time.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_has_a_span_for_each_step_that_ran() {
        let at = |seconds| Some(Timestamp { seconds, nanos: 5 });
        let record = BuildHistoryRecord {
            r#ref: "abc".to_owned(),
            created_at: at(1),
            completed_at: at(9),
            ..BuildHistoryRecord::default()
        };
        let vertex = |name: &str, started, error: &str| Vertex {
            name: name.to_owned(),
            digest: name.to_owned(),
            started,
            completed: at(7),
            error: error.to_owned(),
            ..Vertex::default()
        };
        let vertices =
            [vertex("one", at(2), ""), vertex("two", None, ""), vertex("three", at(3), "bad")];
        let text = String::from_utf8(of_build(&record, &vertices)).unwrap();
        let spans: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let names: Vec<_> = spans.iter().map(|span| span["Name"].as_str().unwrap()).collect();
        assert_eq!(names, ["build", "one", "three"]);
        assert_eq!(spans[1]["Parent"], spans[0]["SpanContext"]);
        assert_eq!(spans[0]["ChildSpanCount"], 2);
        assert_eq!(spans[1]["StartTime"], "1970-01-01T00:00:02.000000005Z");
        assert_eq!(spans[2]["Status"]["Code"], "Error");
    }
}

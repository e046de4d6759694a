//! Errors as gRPC statuses with BuildKit's typed details.
//!
//! A detail is a JSON document in an `Any` whose type URL names its type, as BuildKit's client
//! expects it. The client prints the lines of the Dockerfile that a source detail names.

use std::panic::Location;

use bollard_buildkit_proto::google::protobuf::Any;
use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::pb;
use kiln::build::Failure;
use kiln_llb::base64;
use kiln_oci::Digest;
use kiln_oci::error::chain;
use kiln_solver::{SolveError, StepError};
use kiln_worker::Error as WorkerError;
use prost::Message as _;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::references::Reference;

/// The prefix of the type URLs.
const PREFIX: &str = "github.com/moby/buildkit/";

/// Returns the status of a failed build. `reference` is the graph that failed.
pub(crate) fn status_of(failure: &Failure, reference: Option<&Reference>) -> Status {
    match failure {
        Failure::Solve(SolveError::Cancelled) => Status::cancelled("context canceled"),
        Failure::Solve(SolveError::Step { id, error, .. }) => {
            let vertex = reference.zip(usize::try_from(*id).ok());
            let vertex =
                vertex.and_then(|(it, id)| Some((it, it.graph().vertices().get(id)?.digest)));
            let mut details = Vec::new();
            if let Some((reference, digest)) = vertex {
                details = places(reference.definition(), &digest.to_string());
                details.push(detail("errdefs.Vertex", &json!({"digest": digest.to_string()})));
            }
            of_step(error, vertex.map(|(_, digest)| digest), details)
        }
        Failure::Solve(error) => with_details(Code::Unknown, chain(error), Vec::new()),
        Failure::Dockerfile(errors) => of_dockerfile(errors),
        Failure::Other(error) => with_details(Code::Unknown, chain(error.as_ref()), Vec::new()),
    }
}

fn of_step(error: &StepError, vertex: Option<Digest>, mut details: Vec<Any>) -> Status {
    match error {
        StepError::Cancelled => Status::cancelled("context canceled"),
        StepError::Exit { code, .. } => {
            details.insert(0, detail("gatewayapi.ExitMessage", &json!({"Code": code})));
            with_details(Code::Unknown, error.to_string(), details)
        }
        StepError::Other(other) => {
            let mut text = chain(other.as_ref());
            if let (Some(vertex), Some(WorkerError::Missing { source, in_key: true, .. })) =
                (vertex, other.downcast_ref())
            {
                // BuildKit's message names the files in which the path is missing.
                let files = &vertex.hex()[..25];
                text = format!(
                    "failed to compute cache key: failed to calculate checksum of ref \
                     kiln::{files}: {source}"
                );
            }
            with_details(Code::Unknown, text, details)
        }
    }
}

fn of_dockerfile(errors: &[kiln_frontend::Error]) -> Status {
    let text: Vec<String> = errors.iter().map(|error| chain(error)).collect();
    with_details(Code::Unknown, text.join("; "), Vec::new())
}

/// Returns the details of a step's locations in source files, the last one first.
fn places(definition: &pb::Definition, digest: &str) -> Vec<Any> {
    let Some(source) = &definition.source else { return Vec::new() };
    let locations = source.locations.get(digest).map(|found| found.locations.as_slice());
    let detail = |location: &pb::Location| {
        let info = source.infos.get(usize::try_from(location.source_index).ok()?)?;
        Some(source_detail(info, &location.ranges))
    };
    locations.unwrap_or_default().iter().rev().filter_map(detail).collect()
}

/// Returns the detail of ranges in a source file.
pub(crate) fn source_detail(info: &pb::SourceInfo, ranges: &[pb::Range]) -> Any {
    let position = |position: Option<pb::Position>| {
        let pb::Position { line, character } = position.unwrap_or_default();
        json!({"line": line, "character": character})
    };
    let range =
        |range: &pb::Range| json!({"start": position(range.start), "end": position(range.end)});
    let ranges: Vec<Value> = ranges.iter().map(range).collect();
    let mut file = json!({"filename": info.filename, "data": base64::encode(&info.data)});
    if !info.language.is_empty() {
        file["language"] = Value::from(info.language.as_str());
    }
    if let Some(definition) = &info.definition {
        file["definition"] = definition_json(definition);
    }
    detail("errdefs.Source", &json!({"info": file, "ranges": ranges}))
}

/// Returns a graph as Go's encoder writes it, without the source files of its own.
fn definition_json(definition: &pb::Definition) -> Value {
    let ops: Vec<String> = definition.def.iter().map(|op| base64::encode(op)).collect();
    let metadata = definition.metadata.iter().map(|(digest, metadata)| {
        let pb::OpMetadata { ignore_cache, description, caps, .. } = metadata;
        let value = json!({
            "ignore_cache": ignore_cache, "description": description, "caps": caps,
        });
        (digest.clone(), value)
    });
    json!({"def": ops, "metadata": metadata.collect::<serde_json::Map<_, _>>()})
}

/// Returns a detail of a type of BuildKit's.
pub(crate) fn detail(name: &str, value: &Value) -> Any {
    Any { type_url: format!("{PREFIX}{name}+json"), value: value.to_string().into_bytes() }
}

/// Returns the detail of a place in kiln's source code, with the program that runs. Clients show it
/// with their own stack if they are asked to debug.
fn stack(place: &Location<'_>) -> Any {
    let frame = json!({"Name": module_path!(), "File": place.file(), "Line": place.line()});
    let version = env!("CARGO_PKG_VERSION");
    let value = json!({"frames": [frame], "pid": std::process::id(), "version": version});
    detail("stack.Stack", &value)
}

/// Returns a status with details, the innermost first, and with the place of the caller.
#[track_caller]
pub(crate) fn with_details(code: Code, message: String, mut details: Vec<Any>) -> Status {
    details.insert(0, stack(Location::caller()));
    let whole = rpc::Status { code: code as i32, message: message.clone(), details };
    Status::with_details(code, message, whole.encode_to_vec().into())
}

/// Returns a status with the outer part of its message. It keeps its details.
#[track_caller]
pub(crate) fn within(outer: &str, status: &Status) -> Status {
    extended(status, format!("{outer}: {}", status.message()), Vec::new())
}

/// Returns a status with a longer message and more details.
pub(crate) fn extended(status: &Status, message: String, mut details: Vec<Any>) -> Status {
    let mut whole = to_message(status);
    whole.message.clone_from(&message);
    whole.details.append(&mut details);
    Status::with_details(status.code(), message, whole.encode_to_vec().into())
}

/// Returns the status that a client has returned as its build's end.
pub(crate) fn of_client(status: &rpc::Status) -> Status {
    let code = Code::from(status.code);
    Status::with_details(code, status.message.clone(), status.encode_to_vec().into())
}

/// Returns the status of any other error, with its causes.
pub(crate) fn of_error(error: &(dyn std::error::Error + 'static)) -> Status {
    Status::unknown(chain(error))
}

/// Returns the status as a message, for a build's record.
pub(crate) fn to_message(status: &Status) -> rpc::Status {
    rpc::Status::decode(status.details()).ok().filter(|it| it.code != 0).unwrap_or_else(|| {
        rpc::Status {
            code: status.code() as i32,
            message: status.message().to_owned(),
            details: Vec::new(),
        }
    })
}

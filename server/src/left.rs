//! The files of failed steps, which a client can mount in containers.

use kiln::build::Failure;
use kiln_llb::json::op_to_json;
use kiln_solver::{SolveError, StepError};
use kiln_worker::{LeftFiles, Output};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::errors::{detail, to_message, with_details};
use crate::references::Reference;

/// Adds a detail to the status of a failed step that has left files behind: the step's op, and IDs
/// of the files for each of its mounts. `keep` keeps the files and returns their ID.
pub(crate) fn with_files(
    status: Status,
    failure: &Failure,
    reference: &Reference,
    mut keep: impl FnMut(&Output) -> String,
) -> Status {
    let Failure::Solve(SolveError::Step { id, error, .. }) = failure else { return status };
    let StepError::Exit { remains: Some(remains), .. } = &**error else { return status };
    let Some(left) = remains.get::<LeftFiles>() else { return status };
    let vertex = usize::try_from(*id).ok().and_then(|id| reference.graph().vertices().get(id));
    let op = vertex.and_then(|vertex| op_of(reference, &vertex.digest.to_string()));
    let mut ids = |list: &[Option<Output>]| {
        let id = |output: &Option<Output>| output.as_ref().map(&mut keep).unwrap_or_default();
        list.iter().map(id).collect::<Vec<String>>()
    };
    let said = json!({"inputIDs": ids(&left.inputs), "mountIDs": ids(&left.mounts), "op": op});
    let message = to_message(&status);
    let mut details = message.details;
    details.insert(0, detail("errdefs.Solve", &said));
    with_details(Code::from(message.code), message.message, details)
}

/// Returns an op of a graph as JSON.
fn op_of(reference: &Reference, digest: &str) -> Option<Value> {
    let ops = &reference.definition.def;
    let bytes = ops.iter().find(|op| kiln_oci::Digest::of(op).to_string() == digest)?;
    op_to_json(bytes).ok()
}

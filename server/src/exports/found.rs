//! Outputs that a client names once its build has a result: its `Exporter` service.

use std::collections::HashMap;

use bollard_buildkit_proto::moby::buildkit::v1::Exporter;
use tonic::{Code, Status};

use super::{Answer, Requested, resolve};
use crate::errors::of_error;
use crate::jobs::Job;
use crate::references::FrontendResult;

/// Asks the client for more outputs. `first` is the position of the first of them.
///
/// # Errors
/// Fails if the client fails, or names an output that isn't known.
pub(crate) async fn find(
    job: &Job,
    result: &FrontendResult,
    first: usize,
    options: &HashMap<String, String>,
) -> Result<Vec<Requested>, Status> {
    let Some(session) = &job.session else { return Ok(Vec::new()) };
    let references = result.references().map(|reference| job.register(reference)).collect();
    let found = match session.find_exporters(&result.metadata, references).await {
        Err(error) if is_absent(error.code()) => return Ok(Vec::new()),
        found => found.map_err(|error| of_error(&error))?,
    };
    let found = found.into_iter().map(|(kind, attrs)| Exporter { r#type: kind, attrs });
    let found: Vec<Exporter> = found.collect();
    let mut resolved = resolve(&found, options)?;
    for requested in &mut resolved {
        requested.number += u32::try_from(first).unwrap_or(u32::MAX);
    }
    Ok(resolved)
}

/// Sends the answer to the client before its build ends.
///
/// # Errors
/// Fails if the client reports an error.
pub(crate) async fn finalize(job: &Job, answer: &Answer) -> Result<(), Status> {
    let Some(session) = &job.session else { return Ok(()) };
    match session.finalize_export(answer).await {
        Err(error) if is_absent(error.code()) => Ok(()),
        ended => ended.map_err(|error| of_error(&error)),
    }
}

/// Returns `true` for a code that means that the client doesn't offer the method.
fn is_absent(code: Option<Code>) -> bool {
    matches!(code, Some(Code::Unavailable | Code::Unimplemented))
}

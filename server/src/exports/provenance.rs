//! The provenance of a result's images.

use std::collections::HashMap;

use kiln::build::{AttestOptions, GraphRequest};
use kiln_attest::Provenance;
use kiln_llb::Definition;
use tonic::Status;

use crate::errors::of_error;
use crate::jobs::Job;
use crate::references::{FrontendResult, Slot};

/// Reads the options about attestations.
///
/// # Errors
/// Fails if one is invalid.
pub(crate) fn options(options: &HashMap<String, String>) -> Result<AttestOptions, Status> {
    AttestOptions::of_frontend(options).map_err(|error| of_error(error.as_ref()))
}

/// Returns the provenance of the images for some platforms, if the options request it.
///
/// # Errors
/// Fails if a source isn't available any more, or if materials have no digest that have to.
pub(super) async fn of_result(
    job: &Job,
    result: &FrontendResult,
    ids: &[String],
    options: &AttestOptions,
) -> Result<Option<Provenance>, Status> {
    if !options.has_provenance() {
        return Ok(None);
    }
    let slot = |id: &String| result.several.get(id).unwrap_or(&result.single);
    let images = ids.iter().map(|id| of_slot(job, slot(id))).collect::<Result<Vec<_>, _>>()?;
    let provenance = job.build().provenance(options, &images, job.begun).await;
    provenance.map_err(|error| of_error(error.as_ref()))
}

/// Returns the graph that has made an image, and the request of the frontend that has made the
/// graph.
fn of_slot(job: &Job, slot: &Slot) -> Result<Option<(Definition, GraphRequest)>, Status> {
    let Some(reference) = slot else { return Ok(None) };
    let definition = Definition::from_pb(reference.definition.clone());
    let definition = definition.map_err(|error| of_error(&error))?;
    Ok(Some((definition, job.request_of(reference))))
}

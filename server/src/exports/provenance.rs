//! The provenance of a result's images.

use std::collections::HashMap;
use std::sync::Arc;

use kiln::build::{AttestOptions, ProvenGraph};
use kiln_attest::Provenance;
use kiln_llb::Definition;
use serde_json::{Map, Value};
use tonic::Status;

use crate::errors::of_error;
use crate::jobs::Job;
use crate::references::{FrontendResult, Slot};

/// Reads the options about attestations. The provenance gets members about the builder's environment.
///
/// # Errors
/// Fails if one is invalid.
pub(crate) fn options(
    options: &HashMap<String, String>,
    environment: &Map<String, Value>,
) -> Result<AttestOptions, Status> {
    let read = AttestOptions::of_frontend(options).map_err(|error| of_error(error.as_ref()))?;
    Ok(read.with_environment(environment))
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
    let mut images = Vec::with_capacity(ids.len());
    for id in ids {
        images.push(of_slot(job, slot(id)).await?);
    }
    let provenance = job.build().provenance(options, &images, job.begun).await;
    provenance.map_err(|error| of_error(error.as_ref()))
}

/// The predicate of a result's provenance.
#[derive(Clone, Debug)]
pub(crate) struct Predicate {
    /// The ID of the platform. `None` for a result of one image.
    pub(crate) platform: Option<String>,
    /// The URI of the predicate's format.
    pub(crate) format: &'static str,
    /// The predicate.
    pub(crate) content: serde_json::Value,
}

/// Returns the predicates for the record of a build. Their detail doesn't depend on what the client
/// requests for its images.
///
/// # Errors
/// Fails if a source isn't available any more.
pub(crate) async fn of_history(
    job: &Job,
    result: &FrontendResult,
    frontend_options: &HashMap<String, String>,
    environment: &Map<String, Value>,
) -> Result<Vec<Predicate>, Status> {
    let mut wanted = "mode=max,version=v1".to_owned();
    let own = frontend_options.get("attest:provenance").map(String::as_str).unwrap_or_default();
    if let Some(builder) = own.split(',').find(|option| option.starts_with("builder-id=")) {
        wanted = format!("{wanted},{builder}");
    }
    let options = options(&[("attest:provenance".to_owned(), wanted)].into(), environment)?;
    let (platforms, ids): (Vec<_>, Vec<_>) = if result.several.is_empty() {
        (vec![None], vec![String::new()])
    } else {
        result.several.keys().map(|id| (Some(id.clone()), id.clone())).unzip()
    };
    let Some(provenance) = of_result(job, result, &ids, &options).await? else {
        return Ok(Vec::new());
    };
    let mut predicates = Vec::new();
    for (number, platform) in platforms.into_iter().enumerate() {
        let statement = provenance.statement(number, &[]).map_err(|error| of_error(&error))?;
        predicates.extend(statement.map(|(format, content)| Predicate {
            platform,
            format,
            content,
        }));
    }
    Ok(predicates)
}

/// Returns the graph that has made an image, with the request of the frontend that has made the
/// graph.
async fn of_slot(job: &Job, slot: &Slot) -> Result<Option<ProvenGraph>, Status> {
    let Some(reference) = slot else { return Ok(None) };
    // Solving applies the source policies to the graph.
    let output = job.solve(reference).await?;
    let definition = Definition::from_pb(reference.definition().clone());
    let definition = definition.map_err(|error| of_error(&error))?;
    Ok(Some(ProvenGraph {
        definition,
        request: job.request_of(reference),
        graph: Arc::clone(reference.graph()),
        keys: reference.keys().collect(),
        top: output.layer().flatten().cloned(),
    }))
}

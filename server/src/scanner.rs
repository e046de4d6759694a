//! Scanners: images whose programs write bills of materials for the files of a build
//! (`attest:sbom=generator=IMAGE`).
//!
//! The built-in frontend adds the scans to its result, because it alone knows the stages and the
//! context that a Dockerfile names for scanners. The results of other frontends get a scan of their
//! files alone, unless they have a bill of materials.

use std::collections::HashMap;

use bollard_buildkit_proto::moby::buildkit::v1::frontend::AttestationKind;
use bollard_buildkit_proto::pb;
use kiln::build::{AttestOptions, CORE_SBOM, SPDX, Scanned, Scanner, ScannerImage};
use kiln_frontend::ScanExtras;
use kiln_llb::{Definition, Edge};
use serde_json::Map;
use tonic::Status;

use crate::errors::of_error;
use crate::exports::{CORE, attestation_options, platform_ids};
use crate::frontend::{Call, ProgramImage};
use crate::jobs::Job;
use crate::references::{Attestation, FrontendResult};

/// The option about the registries in which images are looked up.
const RESOLVE_MODE: &str = "image-resolve-mode";

/// A scanner whose image is found.
#[derive(Debug)]
pub(crate) struct FoundScanner {
    scanner: Scanner,
    image: ScannerImage,
}

/// Adds the scans to a result that a client requests from a scanner by its image. A result with a
/// bill of materials of its frontend stays as it is.
///
/// # Errors
/// Fails if the options are invalid, or if the image can't be had or names no program.
pub(crate) fn scan(
    job: &Job,
    result: &mut FrontendResult,
    options: &HashMap<String, String>,
    requested: &AttestOptions,
) -> Result<(), Status> {
    if has_sbom(result) {
        return Ok(());
    }
    let Some(found) = FoundScanner::of(job, options, requested)? else { return Ok(()) };
    let ignore_cache = options.get("no-cache").is_some_and(String::is_empty);
    let extras = ScanExtras { ignore_cache, ..ScanExtras::default() };
    for id in &platform_ids(result)? {
        let slot = result.several.get(id).unwrap_or(&result.single).clone();
        let Some(reference) = slot else { continue };
        let core = Some(edge(reference.definition.clone())?);
        let scan = found.scan(Scanned { platform: id, core, extras: &extras })?;
        let attestation = attestation(job, scan.marshal().to_pb())?;
        result.attestations.entry(id.clone()).or_default().push(attestation);
    }
    Ok(())
}

/// Returns `true` if a result has bills of materials of its frontend.
pub(crate) fn has_sbom(result: &FrontendResult) -> bool {
    result.attestations.values().flatten().any(|given| given.predicate_type == SPDX)
}

/// Returns the attestation with the statements in the result of a scan.
///
/// # Errors
/// Fails if the graph is invalid.
pub(crate) fn attestation(job: &Job, scan: pb::Definition) -> Result<Attestation, Status> {
    Ok(Attestation {
        kind: AttestationKind::Bundle,
        metadata: [("reason", "sbom"), (CORE, CORE_SBOM)]
            .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
            .into(),
        slot: job.add(scan)?,
        path: String::new(),
        predicate_type: SPDX.to_owned(),
        subjects: Vec::new(),
    })
}

fn edge(definition: pb::Definition) -> Result<Edge, Status> {
    let definition = Definition::from_pb(definition).map_err(|error| of_error(&error))?;
    Edge::load(&definition).map_err(|error| of_error(&error))
}

impl FoundScanner {
    /// Finds the scanner that the options of a frontend's call name by its image.
    ///
    /// # Errors
    /// Fails if the options are invalid, or if the image can't be had.
    pub(crate) fn of_call(job: &Job, call: Call<'_>) -> Result<Option<Self>, Status> {
        Self::of(job, call.options, &attestation_options(call.options, &Map::new())?)
    }

    fn of(
        job: &Job,
        options: &HashMap<String, String>,
        requested: &AttestOptions,
    ) -> Result<Option<Self>, Status> {
        let Some(scanner) = requested.scanner().cloned() else { return Ok(None) };
        let (mut places, inputs) = (options.clone(), HashMap::new());
        places.retain(|name, _| name == RESOLVE_MODE);
        let call = Call { name: "", options: &places, inputs: &inputs };
        let program = ProgramImage::find(job, &scanner.image().to_string(), call)?;
        let image = ScannerImage { files: edge(program.definition)?, config: program.config };
        Ok(Some(Self { scanner, image }))
    }

    /// Returns the output with a bundle of statements about files.
    ///
    /// # Errors
    /// Fails if the scanner's image names no program.
    pub(crate) fn scan(&self, scanned: Scanned<'_>) -> Result<Edge, Status> {
        self.scanner.scan(&self.image, scanned).map_err(|error| of_error(error.as_ref()))
    }
}

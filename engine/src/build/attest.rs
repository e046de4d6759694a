//! Attestations of the images of a build: their provenance and their bills of materials.
//!
//! This module assembles the provenance from the request (`request`), the graph's sources
//! (`sources`) and, with `mode=max`, its steps (`steps`). The crate `attest` turns it into
//! statements and finds the packages for the bills of materials; the exporter writes both
//! (`attester`). Provenance names the builder and the build's time and place
//! only if the user requests it. It contains no credentials in any mode: build arguments whose
//! values look like credentials are omitted, and URLs lose their user and password.

mod attester;
mod graphs;
mod layers;
mod options;
mod request;
mod sources;
mod steps;
mod vcs;

use anyhow::{Context, Result, bail};
use kiln_attest::{Attestations, Invocation, Predicate, Provenance};
use kiln_exporter::ImageSource;
use kiln_frontend::DOCKERFILE_VERSION;
use kiln_llb::Definition;
use kiln_oci::{Digest, Platform};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::cache_export::Cacheable;
use super::graph_cache::GraphCaches;
use super::plan::Plan;
use super::record::redactor;
use super::session::Session;
use crate::redact::Redactor;

pub(super) use attester::attester;
pub use graphs::{GraphRequest, ProvenGraph, ProvenInput};
pub use options::AttestOptions;
use options::{Mode, ProvenanceOptions};
use sources::Sources;

/// The prefix of build arguments that make other builders scan more than the image.
const SCAN: &[u8] = b"BUILDKIT_SBOM_SCAN_";

impl Session<'_> {
    /// Returns the attestations for the images that were built.
    pub(super) async fn attestations(
        &self,
        plan: &Plan,
        images: &[ImageSource],
        made: &Cacheable<'_>,
        begun: OffsetDateTime,
    ) -> Result<Attestations> {
        let AttestOptions { provenance, .. } = &self.request.attest;
        let mut predicates = Vec::new();
        if let Some(options) = provenance {
            let redactor = redactor(self.request);
            let invocation = options.timestamps.then(|| invocation(begun)).transpose()?;
            for (planned, image) in plan.images.iter().zip(images) {
                let definition = &planned.definition;
                let mut predicate = match &plan.made_by {
                    None => self.predicate(options, definition, &redactor)?,
                    Some(made_by) => {
                        let build = self.graph_build(GraphCaches::default(), self.cancel.clone());
                        let predicate = build.predicate_of(options, definition, made_by).await?;
                        self.complete(predicate, &redactor)
                    }
                };
                predicate.invocation.clone_from(&invocation);
                if let Some(steps) = &mut predicate.steps {
                    made.describe_layers(steps, &self.tools.store, image.layer.as_ref()).await?;
                }
                predicates.push(Some(predicate));
            }
        }
        let provenance = provenance.as_ref().map(|options| Provenance {
            predicates,
            version: options.version,
            inline_only: options.inline_only,
            file_name: options.file_name.clone(),
        });
        let sbom = self.request.attest.own_sbom();
        if sbom.is_some() && has_scan_argument(&self.input.dockerfile.text) {
            self.warn(
                "BUILDKIT_SBOM_SCAN_STAGE and BUILDKIT_SBOM_SCAN_CONTEXT have no effect without a \
                 generator: the SBOM is of the image alone",
            );
        }
        let given: Vec<_> = plan.images.iter().map(|image| image.statements.clone()).collect();
        let given = if given.iter().all(Vec::is_empty) { Vec::new() } else { given };
        Ok(Attestations { provenance, sbom, given })
    }

    /// Adds the repository of the context to the provenance of a graph that the frontend of an image
    /// has made, and removes credentials from it.
    fn complete(&self, predicate: Predicate, redactor: &Redactor) -> Predicate {
        let mut predicate = Predicate { vcs: vcs::of(self.request), ..predicate };
        predicate.has_whole_request &= request::hide_credentials(&mut predicate.request, redactor);
        predicate
    }

    /// Returns the provenance of an image.
    fn predicate(
        &self,
        options: &ProvenanceOptions,
        definition: &Definition,
        redactor: &Redactor,
    ) -> Result<Predicate> {
        let sources = Sources::of(definition, self.request, &self.tools.worker)?;
        if options.complete_materials && !sources.is_complete() {
            bail!(
                "provenance: complete-materials=true, but not all that came into the build has a \
                 digest: {}",
                sources.untold()
            );
        }
        let mut request = request::request(self.request, &sources);
        let mut has_whole_request = request::hide_credentials(&mut request, redactor);
        let steps = match options.mode {
            Mode::Min => {
                has_whole_request &= !request::reduce(&mut request);
                None
            }
            Mode::Max => {
                Some(steps::steps(definition, redactor).context("list the build's steps")?)
            }
        };
        Ok(Predicate {
            config_source: request::config_source(
                self.request,
                &self.input.dockerfile.name,
                &sources,
            ),
            frontend_version: frontend_version(&request.frontend),
            request,
            steps,
            builder_platform: Some(Platform::host()),
            is_hermetic: sources.is_complete() && !sources.uses_network(),
            has_all_dependencies: sources.is_complete(),
            dependencies: sources.into_dependencies(),
            builder_id: options.builder_id.clone(),
            invocation: None,
            vcs: vcs::of(self.request),
            has_whole_request,
            is_reproducible: options.reproducible,
            environment: options.environment.clone(),
        })
    }
}

/// Returns `true` if a Dockerfile has arguments of scans.
fn has_scan_argument(text: &[u8]) -> bool {
    text.windows(SCAN.len()).any(|part| part == SCAN)
}

/// Returns the version of a frontend, if it is the built-in one.
fn frontend_version(frontend: &str) -> Option<String> {
    (frontend == "dockerfile.v0").then(|| DOCKERFILE_VERSION.to_owned())
}

/// Returns an invocation with a new ID and the build's times.
fn invocation(begun: OffsetDateTime) -> Result<Invocation> {
    let finished = OffsetDateTime::now_utc();
    let (started, finished) = (begun.format(&Rfc3339)?, finished.format(&Rfc3339)?);
    let id = Digest::of(format!("{started} {finished} {}", std::process::id()).as_bytes());
    Ok(Invocation { id: id.hex()[..24].to_owned(), started, finished })
}

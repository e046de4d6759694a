//! Scanners: images whose programs write bills of materials for the files of a build
//! (`attest:sbom=generator=IMAGE`).
//!
//! A scan is a step of a graph like any other, so that it is cached. It has the files at [`SOURCE`],
//! read-only, and writes in-toto statements to [`DESTINATION`]. Their predicates are SPDX documents.

use std::collections::{BTreeMap, HashMap};

use bollard_buildkit_proto::moby::buildkit::v1::frontend::AttestationKind;
use bollard_buildkit_proto::pb;
use kiln_exporter::csv_fields;
use kiln_llb::op::{ExecOp, Meta, Mount, MountKind, OpKind};
use kiln_llb::{Definition, Edge, Node, OpMetadata};
use kiln_oci::Platform;
use tonic::Status;

use crate::errors::of_error;
use crate::exports::platform_ids;
use crate::frontend::{Call, ProgramImage};
use crate::jobs::Job;
use crate::references::{Attestation, FrontendResult};

/// The options that request bills of materials.
const OPTIONS: [&str; 2] = ["attest:sbom", "build-arg:BUILDKIT_ATTEST_SBOM"];
/// The type of the predicates.
const SPDX: &str = "https://spdx.dev/Document";
/// The directory of the scanned files in the scanner.
const SOURCE: &str = "/run/src/core/sbom";
/// The directory for the scanner's statements.
const DESTINATION: &str = "/run/out/";

/// A scanner.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Scanner {
    image: String,
    /// The parameters, which are variables of the program: `BUILDKIT_SCAN_NAME`.
    parameters: BTreeMap<String, String>,
    /// `true` if earlier scans of the same files may be used.
    may_cache: bool,
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
) -> Result<(), Status> {
    let Some(scanner) = Scanner::of_options(options)? else { return Ok(()) };
    let mut given = result.attestations.values().flatten();
    if given.any(|attestation| attestation.predicate_type == SPDX) {
        return Ok(());
    }
    let (mut places, inputs) = (options.clone(), HashMap::new());
    places.retain(|name, _| name == "image-resolve-mode");
    let call = Call { name: "", options: &places, inputs: &inputs };
    let program = ProgramImage::find(job, &scanner.image, call)?;
    for id in &platform_ids(result)? {
        let slot = result.several.get(id).unwrap_or(&result.single).clone();
        let Some(reference) = slot else { continue };
        let files = edge(reference.definition.clone())?;
        let scan = scanner.scan(id, &program, files)?;
        let attestation = Attestation {
            kind: AttestationKind::Bundle,
            metadata: [("reason", "sbom"), ("sbom-core", "sbom")]
                .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
                .into(),
            slot: job.add(scan.marshal().to_pb())?,
            path: String::new(),
            predicate_type: SPDX.to_owned(),
            subjects: Vec::new(),
        };
        result.attestations.entry(id.clone()).or_default().push(attestation);
    }
    Ok(())
}

fn edge(definition: pb::Definition) -> Result<Edge, Status> {
    let definition = Definition::from_pb(definition).map_err(|error| of_error(&error))?;
    Edge::load(&definition).map_err(|error| of_error(&error))
}

impl Scanner {
    /// Returns the scanner that the options name by its image.
    fn of_options(options: &HashMap<String, String>) -> Result<Option<Self>, Status> {
        let Some(text) = OPTIONS.iter().find_map(|name| options.get(*name)) else {
            return Ok(None);
        };
        let invalid = |problem| Status::unknown(format!("attest:sbom={text}: {problem}"));
        let mut parameters = BTreeMap::new();
        if !text.is_empty() {
            for field in csv_fields(text).map_err(invalid)? {
                let (name, value) = field.split_once('=').unwrap_or((&field, ""));
                parameters.insert(name.to_owned(), value.to_owned());
            }
        }
        let may_cache = options.get("no-cache").is_none_or(|stages| !stages.is_empty());
        match parameters.remove("generator") {
            None => Ok(None),
            Some(image) if image.is_empty() => {
                Err(Status::unknown("sbom generator cannot be empty"))
            }
            Some(image) => Ok(Some(Self { image, parameters, may_cache })),
        }
    }

    /// Returns the output with the statements about files.
    fn scan(&self, id: &str, program: &ProgramImage, files: Edge) -> Result<Edge, Status> {
        let config = &program.config;
        let parts = [&config.entrypoint, &config.cmd];
        let args: Vec<String> = parts.into_iter().flatten().flatten().cloned().collect();
        if args.is_empty() {
            return Err(Status::unknown(format!("scanner {} does not have cmd", self.image)));
        }
        let mut env = config.env.clone();
        env.push(format!("BUILDKIT_SCAN_DESTINATION={DESTINATION}"));
        env.push(format!("BUILDKIT_SCAN_SOURCE={SOURCE}"));
        env.extend(self.parameters.iter().map(|(name, it)| format!("BUILDKIT_SCAN_{name}={it}")));
        let cwd = Some(config.working_dir.clone()).filter(|cwd| !cwd.is_empty());
        let cwd = cwd.unwrap_or_else(|| "/".to_owned());
        let root = edge(program.definition.clone())?;
        let (inputs, scanned) = inputs(root, files);
        let mounts = vec![
            Mount { input: Some(0), output: Some(0), ..Mount::new("/", MountKind::Bind) },
            Mount::new("/tmp", MountKind::Tmpfs { size: 0, explicit: true }),
            Mount { input: Some(scanned), readonly: true, ..Mount::new(SOURCE, MountKind::Bind) },
            Mount { output: Some(1), ..Mount::new(DESTINATION, MountKind::Bind) },
        ];
        let meta = Meta { args, env, cwd, ..Meta::default() };
        let op = OpKind::Exec(ExecOp { meta, mounts, ..ExecOp::default() });
        let title = format!("[{id}] generating sbom using {}", self.image);
        let description = BTreeMap::from([("llb.customname".to_owned(), title)]);
        let metadata =
            OpMetadata { description, ignore_cache: !self.may_cache, ..OpMetadata::default() };
        Ok(Node::new(op, inputs, Some(Platform::host()), metadata).output(1))
    }
}

/// Returns the inputs of a scan, and the number of the one with the files: a scanner may scan
/// itself.
fn inputs(root: Edge, files: Edge) -> (Vec<Edge>, u32) {
    if root.input() == files.input() { (vec![root], 0) } else { (vec![root, files], 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scanners_are_named_by_options() {
        let of =
            |text: &str| Scanner::of_options(&[("attest:sbom".to_owned(), text.to_owned())].into());
        let scanner = of("generator=a/b:1,EXTRA=x").unwrap().unwrap();
        assert_eq!(scanner.image, "a/b:1");
        assert_eq!(scanner.parameters["EXTRA"], "x");
        assert!(scanner.may_cache);
        assert_eq!(of("").unwrap(), None);
        assert!(of("generator=").is_err());
    }
}

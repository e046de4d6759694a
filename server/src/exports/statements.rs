//! The attestations of a frontend's result: statements about its images, which are files in results
//! of graphs.

use std::collections::BTreeMap;
use std::path::Path;

use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    AttestationKind, InTotoSubject, InTotoSubjectKind,
};
use kiln_attest::{GivenFormat, GivenStatement, GivenSubject, Subject};
use kiln_tree::Dir;
use tonic::Status;

use crate::errors::of_error;
use crate::jobs::Job;
use crate::references::{Attestation, FrontendResult};

/// The metadata of a statement that is left out of outputs that would need a file for it.
const INLINE_ONLY: &str = "inline-only";
/// The name of a subject without one.
const UNNAMED: &str = "_";

/// The metadata with the name of the bill of materials of the image itself.
pub(crate) const CORE: &str = "sbom-core";

/// Reads the statements of a result, by the IDs of the platforms.
///
/// # Errors
/// Fails if a statement can't be read, is invalid, or is about what only the server may state.
pub(super) async fn of_result(
    job: &Job,
    result: &FrontendResult,
) -> Result<BTreeMap<String, Vec<GivenStatement>>, Status> {
    let mut all = BTreeMap::new();
    for (id, attestations) in &result.attestations {
        let mut statements = Vec::new();
        for attestation in attestations {
            let Some(reference) = &attestation.slot else {
                return Err(Status::unknown("no available content for attestation"));
            };
            let root = job.files(reference).await?;
            let attestation = attestation.clone();
            let read = tokio::task::spawn_blocking(move || read(&root, &attestation));
            statements.extend(read.await.map_err(|error| of_error(&error))??);
        }
        all.insert(id.clone(), statements);
    }
    Ok(all)
}

/// Reads the statements of one attestation.
fn read(root: &Dir, attestation: &Attestation) -> Result<Vec<GivenStatement>, Status> {
    let path = Path::new(&attestation.path);
    let metadata = |name: &str| attestation.metadata.get(name);
    let format = GivenFormat {
        predicate_type: attestation.predicate_type.clone(),
        inline_only: metadata(INLINE_ONLY).is_some_and(|value| value == b"true"),
        core: metadata(CORE).map(|name| String::from_utf8_lossy(name).into_owned()),
    };
    let read = match attestation.kind {
        AttestationKind::InToto => {
            let subjects = attestation.subjects.iter().map(subject).collect();
            GivenStatement::read(root, path, &format, subjects).map(|statement| vec![statement])
        }
        AttestationKind::Bundle => GivenStatement::read_bundle(root, path, &format),
    };
    read.map_err(|error| of_error(&error))
}

fn subject(subject: &InTotoSubject) -> GivenSubject {
    let name = Some(subject.name.clone()).filter(|name| !name.is_empty());
    if subject.kind() == InTotoSubjectKind::Self_ {
        return GivenSubject::Own(name.filter(|name| name != UNNAMED));
    }
    let digests = subject.digest.iter().filter_map(|digest| digest.split_once(':'));
    let digest = digests.map(|(kind, hex)| (kind.to_owned(), hex.to_owned())).collect();
    GivenSubject::Other(Subject { name: name.unwrap_or_else(|| UNNAMED.to_owned()), digest })
}

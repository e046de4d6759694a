//! The attestations of a frontend's result: statements about its images, which are files in results
//! of graphs.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    AttestationKind, InTotoSubject, InTotoSubjectKind,
};
use kiln_attest::{GivenStatement, GivenSubject, Subject};
use kiln_tree::Dir;
use serde::Deserialize;
use serde_json::Value;
use tonic::Status;

use crate::errors::of_error;
use crate::jobs::Job;
use crate::references::{Attestation, FrontendResult};

/// The most bytes of a statement.
const LARGEST: u64 = 40 << 20;
/// The beginning of the predicate types that the server alone makes.
const PROVENANCE: &str = "https://slsa.dev/provenance/";
/// The metadata of a statement that is left out of outputs that would need a file for it.
const INLINE_ONLY: &str = "inline-only";
/// The name of a subject without one.
const UNNAMED: &str = "_";

/// A statement in a bundle.
#[derive(Deserialize)]
struct Bundled {
    #[serde(rename = "predicateType", default)]
    predicate_type: String,
    #[serde(default)]
    subject: Option<Vec<BundledSubject>>,
    #[serde(default)]
    predicate: Value,
}

#[derive(Deserialize)]
struct BundledSubject {
    #[serde(default)]
    name: String,
    #[serde(default)]
    digest: BTreeMap<String, String>,
}

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
    let statements = match attestation.kind {
        AttestationKind::InToto => vec![of_predicate(root, path, attestation)?],
        AttestationKind::Bundle => {
            let directory = root.open_dir(path).map_err(|error| of_error(&error))?;
            let mut names = directory.names().map_err(|error| of_error(&error))?;
            names.sort();
            let paths = names.iter().map(|name| path.join(as_path(name)));
            paths.map(|path| of_bundle(root, &path, attestation)).collect::<Result<_, _>>()?
        }
    };
    if statements.iter().any(|statement| statement.predicate_type.starts_with(PROVENANCE)) {
        return Err(Status::unknown("frontend may not set provenance attestations"));
    }
    Ok(statements)
}

fn as_path(name: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    PathBuf::from(std::ffi::OsStr::from_bytes(name))
}

/// Reads a file that holds a predicate.
fn of_predicate(
    root: &Dir,
    path: &Path,
    attestation: &Attestation,
) -> Result<GivenStatement, Status> {
    let bytes = content(root, path)?;
    let predicate = if bytes.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&bytes).map_err(|error| invalid(path, &error))?
    };
    let subjects = match attestation.subjects.as_slice() {
        [] => vec![GivenSubject::Own(None)],
        subjects => subjects.iter().map(subject).collect(),
    };
    let predicate_type = attestation.predicate_type.clone();
    Ok(statement(path, attestation, predicate_type, predicate, subjects))
}

/// Reads a file of a bundle, which holds a whole statement.
fn of_bundle(root: &Dir, path: &Path, attestation: &Attestation) -> Result<GivenStatement, Status> {
    let read: Bundled =
        serde_json::from_slice(&content(root, path)?).map_err(|error| invalid(path, &error))?;
    let Bundled { predicate_type, subject, predicate } = read;
    let wanted = &attestation.predicate_type;
    if !wanted.is_empty() && *wanted != predicate_type {
        return Err(Status::unknown(format!(
            "bundle entry {predicate_type} does not match required predicate type {wanted}"
        )));
    }
    let other = |BundledSubject { name, digest }| GivenSubject::Other(Subject { name, digest });
    let mut subjects: Vec<GivenSubject> = subject.into_iter().flatten().map(other).collect();
    if subjects.is_empty() {
        subjects.push(GivenSubject::Own(None));
    }
    Ok(statement(path, attestation, predicate_type, predicate, subjects))
}

fn statement(
    path: &Path,
    attestation: &Attestation,
    predicate_type: String,
    predicate: Value,
    subjects: Vec<GivenSubject>,
) -> GivenStatement {
    let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let inline_only = attestation.metadata.get(INLINE_ONLY).is_some_and(|value| value == b"true");
    GivenStatement { predicate_type, predicate, subjects, file_name, inline_only }
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

fn content(root: &Dir, path: &Path) -> Result<Vec<u8>, Status> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        let message = of_error(error).message().to_owned();
        Status::unknown(format!("cannot read in-toto attestation: {message}"))
    };
    let found = root.metadata(path, true).map_err(|error| failed(&error))?;
    if !found.is_some_and(|found| found.is_file()) {
        return Err(Status::unknown(format!("{} is not a regular file", path.display())));
    }
    let file = root.open_file(path).map_err(|error| failed(&error))?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Status::unknown(format!("{} exceeds {LARGEST} bytes", path.display())));
    }
    Ok(bytes)
}

fn invalid(path: &Path, error: &serde_json::Error) -> Status {
    Status::unknown(format!("cannot decode in-toto statement {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attestation(kind: AttestationKind, path: &str, predicate_type: &str) -> Attestation {
        Attestation {
            kind,
            metadata: std::collections::HashMap::new(),
            slot: None,
            path: path.to_owned(),
            predicate_type: predicate_type.to_owned(),
            subjects: Vec::new(),
        }
    }

    #[test]
    fn predicates_and_bundles_are_read() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("a.json"), r#"{"x":1}"#).unwrap();
        std::fs::create_dir(temp.path().join("bundle")).unwrap();
        let text = r#"{"predicateType":"t","subject":[{"name":"n","digest":{"sha256":"0"}}],"predicate":{"y":2}}"#;
        std::fs::write(temp.path().join("bundle/b.json"), text).unwrap();
        let root = Dir::open(temp.path()).unwrap();
        let (in_toto, bundle) = (AttestationKind::InToto, AttestationKind::Bundle);
        let one = read(&root, &attestation(in_toto, "/a.json", "t")).unwrap().remove(0);
        assert_eq!((one.file_name.as_str(), &one.predicate["x"]), ("a.json", &Value::from(1)));
        assert!(matches!(one.subjects.as_slice(), [GivenSubject::Own(None)]));
        let one = read(&root, &attestation(bundle, "/bundle", "")).unwrap().remove(0);
        assert_eq!((one.file_name.as_str(), &one.predicate["y"]), ("b.json", &Value::from(2)));
        assert!(matches!(&one.subjects[0], GivenSubject::Other(subject) if subject.name == "n"));
        for (kind, path, predicate_type, problem) in [
            (in_toto, "/a.json", "https://slsa.dev/provenance/v1", "may not set provenance"),
            (in_toto, "/bundle", "t", "is not a regular file"),
            (in_toto, "/none", "t", "is not a regular file"),
            (bundle, "/bundle", "other", "does not match required predicate type other"),
        ] {
            let error = read(&root, &attestation(kind, path, predicate_type)).unwrap_err();
            assert!(error.message().contains(problem), "{error}");
        }
    }
}

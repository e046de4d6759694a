//! Metadata of sources: what a client's frontend, or a policy, asks about an image, a repository or a
//! file without loading it into a graph.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::checksum_request::ChecksumAlgo;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    ChecksumRequest, ChecksumResponse, ResolveSourceGitResponse, ResolveSourceHttpResponse,
    ResolveSourceImageResponse, ResolveSourceMetaRequest, ResolveSourceMetaResponse,
};
use kiln_llb::op::SourceOp;
use kiln_oci::Platform;
use ring::digest::{Algorithm, Context, SHA256, SHA384, SHA512};
use tonic::Status;

use crate::blocking::blocking;
use crate::chain;
use crate::errors::of_error;
use crate::images::{
    self, LAYOUT, allowed, json, mode, op_of, pinned, platform_of, show, source_to_pb, title,
};
use crate::jobs::Job;
use crate::policy;

/// The most bytes of a suffix that is hashed after a file.
const LARGEST_SUFFIX: usize = 4096;

/// Returns what is known of a source.
///
/// # Errors
/// Fails if the source isn't available, or if a source policy refuses it.
pub(crate) async fn source(
    job: &Job,
    request: ResolveSourceMetaRequest,
) -> Result<ResolveSourceMetaResponse, Status> {
    let missing = || Status::invalid_argument("source is required");
    let source = op_of(request.source.as_ref().ok_or_else(missing)?);
    let rules = policy::compile(&request.source_policies)?.followed_by(&job.policy.rules);
    let platform = request.platform.as_ref().map(platform_of);
    let source = allowed(job, source, platform.as_ref(), &rules).await?;
    Box::pin(describe(job, source, request)).await
}

/// Returns what is known of a source, without regard to policies.
///
/// # Errors
/// Fails if the source isn't available.
pub(crate) async fn describe(
    job: &Job,
    source: SourceOp,
    request: ResolveSourceMetaRequest,
) -> Result<ResolveSourceMetaResponse, Status> {
    let scheme = source.identifier.split_once("://").unwrap_or_default().0;
    let mut answer = ResolveSourceMetaResponse {
        source: Some(source_to_pb(&source)),
        ..ResolveSourceMetaResponse::default()
    };
    match scheme {
        "docker-image" | "oci-layout" => {
            answer.image = Some(Box::pin(describe_image(job, &source, request)).await?);
        }
        "git" => {
            let with_objects = request.git.is_some_and(|git| git.return_object);
            answer.git = git(job, &source, with_objects).await?;
        }
        "http" | "https" => {
            let wanted = request.http.and_then(|http| http.checksum_request);
            answer.http = Some(file(job, &source, wanted).await?);
        }
        _ => {}
    }
    Ok(answer)
}

async fn describe_image(
    job: &Job,
    source: &SourceOp,
    request: ResolveSourceMetaRequest,
) -> Result<ResolveSourceImageResponse, Status> {
    let options = request.image.unwrap_or_default();
    let predicates = options.resolve_attestations;
    let has_chain = options.attestation_chain || !predicates.is_empty();
    let platform = request.platform.as_ref().map_or_else(Platform::host, platform_of);
    let mode = mode(&request.resolve_mode);
    let name = source.identifier.split_once("://").unwrap_or_default().1;
    let describe = async {
        let mut answer = ResolveSourceImageResponse::default();
        let is_layout = source.identifier.starts_with(LAYOUT);
        if !options.no_config || is_layout {
            let found = images::image(job, source, mode, &platform).await?;
            answer.digest = found.digest.to_string();
            answer.config = if options.no_config { Vec::new() } else { json(&found)? };
        }
        if !is_layout && (has_chain || options.no_config) {
            let reference = pinned(job, source, mode).await?;
            answer.digest = reference.digest().map(|it| it.to_string()).unwrap_or_default();
            if has_chain {
                answer.attestation_chain =
                    chain::of_image(job, &reference, &platform, &predicates).await?;
            }
        }
        Ok(answer)
    };
    Box::pin(show(job, title(request.log_name, name), describe)).await
}

async fn file(
    job: &Job,
    source: &SourceOp,
    wanted: Option<ChecksumRequest>,
) -> Result<ResolveSourceHttpResponse, Status> {
    let algorithm = wanted.as_ref().map(algorithm).transpose()?;
    let file = job.build().remote_file(source).await;
    let file = file.map_err(|error| of_error(error.as_ref()))?;
    let mut answer = ResolveSourceHttpResponse {
        checksum: file.digest,
        filename: file.name,
        last_modified: file.seconds.map(|seconds| Timestamp { seconds, nanos: 0 }),
        checksum_response: None,
    };
    if let Some(((name, algorithm), wanted)) = algorithm.zip(wanted) {
        let digest = blocking(move || {
            let digest = checksum(file.content, algorithm, &wanted.suffix);
            let digest = digest.map_err(|error| of_error(&error))?;
            Ok(ChecksumResponse { digest: format!("{name}:{digest}"), suffix: wanted.suffix })
        });
        answer.checksum_response = Some(digest.await?);
    }
    Ok(answer)
}

/// Returns the algorithm that a request names.
fn algorithm(request: &ChecksumRequest) -> Result<(&'static str, &'static Algorithm), Status> {
    if request.suffix.len() > LARGEST_SUFFIX {
        let text = format!("http checksum request suffix exceeds max size {LARGEST_SUFFIX}");
        return Err(Status::unknown(text));
    }
    match ChecksumAlgo::try_from(request.algo) {
        Ok(ChecksumAlgo::Sha256) => Ok(("sha256", &SHA256)),
        Ok(ChecksumAlgo::Sha384) => Ok(("sha384", &SHA384)),
        Ok(ChecksumAlgo::Sha512) => Ok(("sha512", &SHA512)),
        Err(_) => Err(Status::unknown(format!("unsupported checksum algorithm {}", request.algo))),
    }
}

/// Returns the digest of a file followed by a suffix, in hexadecimal.
fn checksum(
    mut file: File,
    algorithm: &'static Algorithm,
    suffix: &[u8],
) -> std::io::Result<String> {
    let (mut context, mut piece) = (Context::new(algorithm), vec![0; 64 << 10]);
    loop {
        match file.read(&mut piece)? {
            0 => break,
            length => context.update(&piece[..length]),
        }
    }
    context.update(suffix);
    let mut digest = String::new();
    for byte in context.finish().as_ref() {
        // Writing to a `String` can't fail.
        let _ = write!(digest, "{byte:02x}");
    }
    Ok(digest)
}

async fn git(
    job: &Job,
    source: &SourceOp,
    with_objects: bool,
) -> Result<Option<ResolveSourceGitResponse>, Status> {
    let found = job.build().git_reference(source, with_objects).await;
    let found = found.map_err(|error| of_error(error.as_ref()))?;
    Ok(found.map(|found| ResolveSourceGitResponse {
        checksum: found.object,
        r#ref: found.name,
        commit_checksum: found.commit.unwrap_or_default(),
        commit_object: found.commit_object,
        tag_object: found.tag_object,
    }))
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use super::*;

    #[test]
    fn files_are_hashed_with_a_suffix() {
        let request = |algo: i32, size: usize| ChecksumRequest { algo, suffix: vec![b'x'; size] };
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"conte").unwrap();
        file.rewind().unwrap();
        let (name, found) = algorithm(&request(0, 1)).unwrap();
        let digest = format!("{name}:{}", checksum(file, found, b"nt").unwrap());
        assert_eq!(digest, kiln_oci::Digest::of(b"content").to_string());
        assert_eq!(algorithm(&request(2, 4096)).unwrap().0, "sha512");
        let refused = |request| algorithm(&request).unwrap_err().message().to_owned();
        assert!(refused(request(0, 4097)).contains("suffix exceeds max size"));
        assert!(refused(request(99, 1)).contains("unsupported checksum algorithm"));
    }
}

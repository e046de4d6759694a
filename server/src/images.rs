//! Answers to questions about images and other sources.

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    ResolveImageConfigRequest, ResolveImageConfigResponse, ResolveSourceGitResponse,
    ResolveSourceHttpResponse, ResolveSourceImageResponse, ResolveSourceMetaRequest,
    ResolveSourceMetaResponse,
};
use bollard_buildkit_proto::pb;
use kiln::build::Step;
use kiln_images::{Origin, PullPolicy, Resolved};
use kiln_llb::op::SourceOp;
use kiln_oci::{Digest, Platform, Reference};
use tonic::Status;

use crate::errors::of_error;
use crate::jobs::{Job, canceled};
use crate::layouts::{self, LayoutImage, Part};

/// The type of resolver that looks into stores of the client.
const LAYOUT_RESOLVER: i32 = 1;

/// An image to resolve.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted<'a> {
    /// An image of a registry.
    Registry(&'a Reference, Option<PullPolicy>),
    /// An image in a store of a client: `STORE@DIGEST`.
    Layout {
        /// The ID of the session; empty for the build's.
        session: &'a str,
        /// The store and the digest.
        layout: &'a str,
    },
}

/// Resolves an image, as a step of this title.
///
/// # Errors
/// Fails if the image doesn't exist, or has no variant for the platform.
pub(crate) async fn resolve(
    job: &Job,
    wanted: Wanted<'_>,
    platform: &Platform,
    title: String,
) -> Result<Resolved, Status> {
    let find = Box::pin(async {
        match wanted {
            Wanted::Registry(reference, policy) => registry(job, reference, policy, platform).await,
            Wanted::Layout { session, layout } => {
                let image = layout_image(session, layout)?;
                layout_config(job, image, platform).await
            }
        }
    });
    let find = async {
        tokio::select! {
            found = find => found,
            () = job.cancel.cancelled() => Err(canceled()),
        }
    };
    let show = |events| async move {
        let step = Step::begin(&events, title);
        let found = find.await;
        match &found {
            Ok(_) => step.complete(),
            Err(status) => step.fail(&status.message()),
        }
        found
    };
    job.status.follow(None, show).await
}

async fn registry(
    job: &Job,
    reference: &Reference,
    policy: Option<PullPolicy>,
    platform: &Platform,
) -> Result<Resolved, Status> {
    let images = job.build().images();
    let digest = images.digest_by(reference, policy).await.map_err(|error| of_error(&error))?;
    let found = images.resolve(&reference.clone().with_digest(digest), platform).await;
    found.map_err(|error| of_error(&error))
}

async fn layout_config(
    job: &Job,
    image: LayoutImage<'_>,
    platform: &Platform,
) -> Result<Resolved, Status> {
    let directory = job.fetch_layout(image, platform, Part::Documents).await?;
    let images = job.build().images();
    let found = images.image(&Origin::Layout(directory), &image.digest, platform).await;
    let config = found.map_err(|error| of_error(&error))?.config;
    Ok(Resolved { digest: image.digest, config })
}

/// Parses `STORE@DIGEST`. A tag behind the store's name has no meaning.
fn layout_image<'a>(session: &'a str, text: &'a str) -> Result<LayoutImage<'a>, Status> {
    let failed = || Status::unknown(format!("oci-layout reference {text:?} has no digest"));
    let (name, digest) = text.split_once('@').ok_or_else(failed)?;
    let digest: Digest = digest.parse().map_err(|_| failed())?;
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    let store = name[start..].rfind(':').map_or(name, |colon| &name[..start + colon]);
    Ok(LayoutImage { session, store, digest })
}

/// Returns the config of an image.
///
/// # Errors
/// Fails if the image doesn't exist, or has no variant for the platform.
pub(crate) async fn config(
    job: &Job,
    request: ResolveImageConfigRequest,
) -> Result<ResolveImageConfigResponse, Status> {
    let name = request.r#ref;
    let platform = platform_of(request.platform);
    let title = title(request.log_name, &name);
    let reference: Reference = name.parse().map_err(|error| of_error(&error))?;
    let layout;
    let wanted = if request.resolver_type == LAYOUT_RESOLVER {
        let digest = reference.digest().map(|digest| format!("@{digest}")).unwrap_or_default();
        layout = format!("{}{digest}", request.store_id);
        Wanted::Layout { session: &request.session_id, layout: &layout }
    } else {
        Wanted::Registry(&reference, policy(&request.resolve_mode))
    };
    let found = resolve(job, wanted, &platform, title).await?;
    let config = json(&found)?;
    Ok(ResolveImageConfigResponse { digest: found.digest.to_string(), config, r#ref: name })
}

/// Returns what is known of a source.
///
/// # Errors
/// Fails if the source isn't available.
pub(crate) async fn source(
    job: &Job,
    request: ResolveSourceMetaRequest,
) -> Result<ResolveSourceMetaResponse, Status> {
    let source = request.source.ok_or_else(|| Status::invalid_argument("source is required"))?;
    let (scheme, rest) = source.identifier.split_once("://").unwrap_or_default();
    let op = op_of(&source);
    let mut answer =
        ResolveSourceMetaResponse { source: Some(source.clone()), ..Default::default() };
    match scheme {
        "docker-image" | "oci-layout" => {
            let is_config_wanted = request.image.as_ref().is_none_or(|image| !image.no_config);
            let platform = platform_of(request.platform);
            let title = title(request.log_name, rest);
            let (layout, reference);
            let wanted = if let Some(image) = layouts::of_source(&op)? {
                layout = format!("{}@{}", image.store, image.digest);
                Wanted::Layout { session: image.session, layout: &layout }
            } else {
                reference = rest.parse::<Reference>().map_err(|error| of_error(&error))?;
                Wanted::Registry(&reference, policy(&request.resolve_mode))
            };
            let found = resolve(job, wanted, &platform, title).await?;
            answer.image = Some(ResolveSourceImageResponse {
                digest: found.digest.to_string(),
                config: if is_config_wanted { json(&found)? } else { Vec::new() },
                attestation_chain: None,
            });
        }
        "git" => {
            let with_objects = request.git.is_some_and(|git| git.return_object);
            answer.git = git(job, &op, with_objects).await?;
        }
        "http" | "https" => {
            let file = job.build().remote_file(&op).await;
            let file = file.map_err(|error| of_error(error.as_ref()))?;
            answer.http = Some(ResolveSourceHttpResponse {
                checksum: file.digest,
                filename: file.name,
                last_modified: file.seconds.map(|seconds| Timestamp { seconds, nanos: 0 }),
                ..Default::default()
            });
        }
        _ => {}
    }
    Ok(answer)
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

fn platform_of(platform: Option<pb::Platform>) -> Platform {
    platform.map_or_else(Platform::host, |platform| {
        let variant = Some(platform.variant.as_str()).filter(|variant| !variant.is_empty());
        Platform::new(&platform.os, &platform.architecture, variant)
    })
}

fn policy(mode: &str) -> Option<PullPolicy> {
    (mode == "pull").then_some(PullPolicy::Always)
}

fn title(named: String, image: &str) -> String {
    if named.is_empty() { format!("resolve image config for {image}") } else { named }
}

fn json(found: &Resolved) -> Result<Vec<u8>, Status> {
    found.config.to_json().map_err(|error| of_error(&error))
}

fn op_of(source: &pb::SourceOp) -> SourceOp {
    SourceOp {
        identifier: source.identifier.clone(),
        attrs: source.attrs.clone().into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_have_a_store_and_a_digest() {
        let digest = Digest::of(b"x");
        for (name, store) in [("ocione", "ocione"), ("a/b:1", "a/b"), ("h:5/a", "h:5/a")] {
            let text = format!("{name}@{digest}");
            assert_eq!(layout_image("", &text).unwrap().store, store);
        }
        assert!(layout_image("", "ocione").is_err());
    }
}

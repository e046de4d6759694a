//! Answers to questions about images.

use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    ResolveImageConfigRequest, ResolveImageConfigResponse,
};
use bollard_buildkit_proto::pb;
use kiln::build::Step;
use kiln_images::{Origin, PullPolicy, Resolved};
use kiln_llb::op::SourceOp;
use kiln_oci::{Platform, Reference};
use kiln_worker::SourcePolicies;
use tonic::Status;

use crate::errors::{of_error, within};
use crate::jobs::{Job, canceled};
use crate::layouts::{self, Part};
use crate::policy;

/// The scheme of images of registries.
pub(crate) const IMAGE: &str = "docker-image://";
/// The scheme of images in OCI layouts.
pub(crate) const LAYOUT: &str = "oci-layout://";
/// The attributes of an image in a store of the client.
const STORE: &str = "oci.store";
const SESSION: &str = "oci.session";

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

impl Wanted<'_> {
    fn source(&self) -> SourceOp {
        match self {
            Self::Registry(reference, _) => {
                SourceOp { identifier: format!("{IMAGE}{reference}"), ..SourceOp::default() }
            }
            Self::Layout { session, layout } => layout_source(session, layout),
        }
    }

    fn mode(&self) -> Option<PullPolicy> {
        match self {
            Self::Registry(_, mode) => *mode,
            Self::Layout { .. } => None,
        }
    }
}

/// An image that was asked for, as the source policies leave it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// The identifier of the source.
    pub(crate) identifier: String,
    /// The image; `None` if a policy has replaced it by a source that is none.
    pub(crate) image: Option<Resolved>,
}

impl Found {
    /// Returns the reference of the image, if it is one of a registry.
    pub(crate) fn reference(&self) -> Option<Reference> {
        self.identifier.strip_prefix(IMAGE)?.parse().ok()
    }
}

/// Resolves an image, as a step of this title. The build's source policies may replace or refuse it.
///
/// # Errors
/// Fails if the image doesn't exist, or has no variant for the platform.
pub(crate) async fn resolve(
    job: &Job,
    wanted: Wanted<'_>,
    platform: &Platform,
    title: String,
) -> Result<Found, Status> {
    let source = allowed(job, wanted.source(), Some(platform), &job.policy.rules).await?;
    find(job, source, wanted.mode(), platform, title).await
}

/// Returns the source that the policies leave of another.
///
/// # Errors
/// Fails if they refuse it.
pub(crate) async fn allowed(
    job: &Job,
    source: SourceOp,
    platform: Option<&Platform>,
    rules: &SourcePolicies,
) -> Result<SourceOp, Status> {
    let checked = job.check_source(&source, platform, rules).await;
    let checked =
        checked.map_err(|status| within("could not resolve image due to policy", &status))?;
    Ok(checked.unwrap_or(source))
}

async fn find(
    job: &Job,
    source: SourceOp,
    mode: Option<PullPolicy>,
    platform: &Platform,
    title: String,
) -> Result<Found, Status> {
    let is_image = [IMAGE, LAYOUT].iter().any(|scheme| source.identifier.starts_with(scheme));
    let image = if is_image {
        let find = async { image(job, &source, mode, platform).await };
        Some(Box::pin(show(job, title, find)).await?)
    } else {
        None
    };
    Ok(Found { identifier: source.identifier, image })
}

/// Shows some work as a step. The end of the build stops it.
///
/// # Errors
/// Fails if the work does.
pub(crate) async fn show<T>(
    job: &Job,
    title: String,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let work = async {
        tokio::select! {
            done = Box::pin(work) => done,
            () = job.cancel.cancelled() => Err(canceled()),
        }
    };
    let show = |events| async move {
        let step = Step::begin(&events, title);
        let done = work.await;
        match &done {
            Ok(_) => step.complete(),
            Err(status) => step.fail(&status.message()),
        }
        done
    };
    job.status.follow(None, show).await
}

/// Returns an image of a registry or a layout.
///
/// # Errors
/// Fails if the image doesn't exist, or has no variant for the platform.
pub(crate) async fn image(
    job: &Job,
    source: &SourceOp,
    mode: Option<PullPolicy>,
    platform: &Platform,
) -> Result<Resolved, Status> {
    let images = job.build().images();
    if let Some(image) = layouts::of_source(source)? {
        let directory = job.fetch_layout(image, platform, Part::Documents).await?;
        let found = images.image(&Origin::Layout(directory), &image.digest, platform).await;
        let config = found.map_err(|error| of_error(&error))?.config;
        return Ok(Resolved { digest: image.digest, config });
    }
    let reference = pinned(job, source, mode).await?;
    images.resolve(&reference, platform).await.map_err(|error| of_error(&error))
}

/// Returns the reference of an image of a registry, with its digest.
///
/// # Errors
/// Fails if the image doesn't exist.
pub(crate) async fn pinned(
    job: &Job,
    source: &SourceOp,
    mode: Option<PullPolicy>,
) -> Result<Reference, Status> {
    let name = source.identifier.strip_prefix(IMAGE).unwrap_or(&source.identifier);
    let reference: Reference = name.parse().map_err(|error| of_error(&error))?;
    let digest = job.build().images().digest_by(&reference, mode).await;
    Ok(reference.with_digest(digest.map_err(|error| of_error(&error))?))
}

/// Returns the source of `STORE@DIGEST`. A tag behind the store's name has no meaning.
fn layout_source(session: &str, layout: &str) -> SourceOp {
    let name = layout.split('@').next().unwrap_or_default();
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    let store = name[start..].rfind(':').map_or(name, |colon| &name[..start + colon]);
    let attrs = [(STORE.to_owned(), store.to_owned()), (SESSION.to_owned(), session.to_owned())];
    SourceOp {
        identifier: format!("{LAYOUT}{layout}"),
        attrs: attrs.into_iter().filter(|(_, value)| !value.is_empty()).collect(),
    }
}

/// Returns the config of an image.
///
/// # Errors
/// Fails if the image doesn't exist, or has no variant for the platform, and if a source policy
/// refuses it or replaces it by a source that is no image.
pub(crate) async fn config(
    job: &Job,
    request: ResolveImageConfigRequest,
) -> Result<ResolveImageConfigResponse, Status> {
    let rules = policy::compile(&request.source_policies)?.followed_by(&job.policy.rules);
    let platform = request.platform.as_ref().map(platform_of);
    let title = title(request.log_name, &request.r#ref);
    let reference: Reference = request.r#ref.parse().map_err(|error| of_error(&error))?;
    let source = if request.resolver_type == LAYOUT_RESOLVER {
        let attrs =
            [(STORE.to_owned(), request.store_id), (SESSION.to_owned(), request.session_id)];
        SourceOp { identifier: format!("{LAYOUT}{reference}"), attrs: attrs.into() }
    } else {
        SourceOp { identifier: format!("{IMAGE}{reference}"), ..SourceOp::default() }
    };
    let source = allowed(job, source, platform.as_ref(), &rules).await?;
    let platform = platform.unwrap_or_else(Platform::host);
    let found = find(job, source, mode(&request.resolve_mode), &platform, title).await?;
    let name = &found.identifier;
    let image = found
        .image
        .as_ref()
        .ok_or_else(|| Status::unknown(not_an_image(&reference.to_string(), name)))?;
    let name = [IMAGE, LAYOUT].iter().find_map(|scheme| name.strip_prefix(scheme));
    Ok(ResolveImageConfigResponse {
        digest: image.digest.to_string(),
        config: json(image)?,
        r#ref: name.unwrap_or_default().to_owned(),
    })
}

/// Returns the message about an image that a policy has replaced by another kind of source.
pub(crate) fn not_an_image(name: &str, new: &str) -> String {
    format!(
        "failed to resolve source metadata for {name}: ref mutated by policy to non-image: \
         {IMAGE}{name} -> {new}"
    )
}

/// Converts the platform of a request.
pub(crate) fn platform_of(platform: &pb::Platform) -> Platform {
    let named = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let platform = Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        os_version: named(&platform.os_version),
        os_features: platform.os_features.clone(),
        variant: named(&platform.variant),
    };
    platform.normal()
}

/// Returns the pull policy of a resolve mode.
pub(crate) fn mode(mode: &str) -> Option<PullPolicy> {
    (mode == "pull").then_some(PullPolicy::Always)
}

/// Returns the title of a step about an image.
pub(crate) fn title(named: String, image: &str) -> String {
    if named.is_empty() { format!("resolve image config for {image}") } else { named }
}

/// Returns the config of an image.
///
/// # Errors
/// Fails if it can't be encoded.
pub(crate) fn json(found: &Resolved) -> Result<Vec<u8>, Status> {
    found.config.to_json().map_err(|error| of_error(&error))
}

/// Converts a source from the message of the protocol.
pub(crate) fn op_of(source: &pb::SourceOp) -> SourceOp {
    SourceOp {
        identifier: source.identifier.clone(),
        attrs: source.attrs.clone().into_iter().collect(),
    }
}

/// Converts a source to the message of the protocol.
pub(crate) fn source_to_pb(source: &SourceOp) -> pb::SourceOp {
    pb::SourceOp {
        identifier: source.identifier.clone(),
        attrs: source.attrs.clone().into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use kiln_oci::Digest;

    use super::*;

    #[test]
    fn layouts_have_a_store_and_a_digest() {
        let digest = Digest::of(b"x");
        for (name, store) in [("ocione", "ocione"), ("a/b:1", "a/b"), ("h:5/a", "h:5/a")] {
            let source = layout_source("", &format!("{name}@{digest}"));
            let image = layouts::of_source(&source).unwrap().unwrap();
            assert_eq!((image.store, image.session, image.digest), (store, "", digest));
        }
        assert!(layouts::of_source(&layout_source("", "ocione")).is_err());
    }
}

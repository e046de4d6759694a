//! The provenance of builds whose graphs the caller makes.
//!
//! The members are those of BuildKit for the same request. A URL's user and password are masked.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, bail};
use kiln_attest::{ConfigSource, Local, OtherRequest, Predicate, Provenance, Request};
use kiln_llb::op::{Op, OpKind, SourceOp};
use kiln_llb::{Definition, Graph};
use kiln_oci::{Digest, Platform, Reference};
use kiln_solver::VertexKeys;
use kiln_store::LayerId;
use time::OffsetDateTime;

use super::super::cache_export::Cacheable;
use super::super::graph_build::GraphBuild;
use super::super::spec::BuildSpec;
use super::options::{AttestOptions, Mode, ProvenanceOptions};
use super::sources::{Sources, context_source};
use super::{frontend_version, invocation, request, steps};

/// The options of frontends that are about the machine rather than the build.
const OWN: [&str; 4] = ["cgroup-parent", "image-resolve-mode", "platform", "cache-imports"];
/// The prefix of options about attestations.
const ATTEST: &str = "attest:";
/// The prefix of options about the repository of the build context.
const VCS: &str = "vcs:";

/// The request that made the graph of an image.
#[derive(Clone, Debug, Default)]
pub struct GraphRequest {
    /// The name of the frontend. Empty for a graph of the client's.
    pub frontend: String,
    /// The options of the frontend.
    pub options: BTreeMap<String, String>,
    /// The names of the local directories that the frontend has read.
    pub locals: Vec<String>,
    /// The remote sources that the frontend has read.
    pub sources: Vec<SourceOp>,
    /// The requests that made the frontend's inputs.
    pub inputs: BTreeMap<String, ProvenInput>,
    /// The request of the client, if a frontend has made this one.
    pub root: Option<ProvenInput>,
}

/// The graph of an image, for its provenance.
#[derive(Clone, Debug)]
pub struct ProvenGraph {
    /// The graph as the client has sent it.
    pub definition: Definition,
    /// The request that made the graph.
    pub request: GraphRequest,
    /// The loaded graph.
    pub graph: Arc<Graph>,
    /// The cache keys of the graph's vertices.
    pub keys: Vec<Option<VertexKeys>>,
    /// The uppermost layer of the image.
    pub top: Option<LayerId>,
}

/// Another request, which led to a [`GraphRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProvenInput {
    /// The name of the frontend.
    pub frontend: String,
    /// The options of the frontend.
    pub options: BTreeMap<String, String>,
    /// The requests that made the frontend's inputs.
    pub inputs: BTreeMap<String, ProvenInput>,
}

impl BuildSpec {
    /// Returns the source of a remote build context.
    ///
    /// # Errors
    /// Fails if the context's address is invalid.
    pub fn context_source(&self) -> Result<Option<SourceOp>> {
        context_source(self)
    }
}

impl GraphBuild {
    /// Returns the provenance of images, if the options request it. Each image has the graph that
    /// made it, and the request; `None` stands for an image without files. `begun` is the time at
    /// which the build began.
    ///
    /// # Errors
    /// Fails if a source isn't available, or if materials have no digest that have to.
    pub async fn provenance(
        &self,
        options: &AttestOptions,
        images: &[Option<ProvenGraph>],
        begun: OffsetDateTime,
    ) -> Result<Option<Provenance>> {
        let Some(options) = &options.provenance else { return Ok(None) };
        let mut predicates = Vec::with_capacity(images.len());
        for image in images {
            predicates.push(match image {
                None => None,
                Some(image) => {
                    let predicate = self.predicate(options, image).await?;
                    Some(Predicate { invocation: Some(invocation(begun)?), ..predicate })
                }
            });
        }
        let ProvenanceOptions { version, inline_only, file_name, .. } = options.clone();
        Ok(Some(Provenance { predicates, version, inline_only, file_name }))
    }

    async fn predicate(
        &self,
        options: &ProvenanceOptions,
        image: &ProvenGraph,
    ) -> Result<Predicate> {
        let ProvenGraph { definition, request, graph, keys, top } = image;
        let mut predicate = self.predicate_of(options, definition, request).await?;
        if let Some(steps) = &mut predicate.steps {
            let cache = self.cache().await;
            let results = Cacheable { graph: Some(graph), keys, cache: &cache };
            results.describe_layers(steps, &self.tools.store, top.as_ref()).await?;
        }
        Ok(predicate)
    }

    /// Returns the provenance of a graph. Its steps have no layers yet.
    pub(super) async fn predicate_of(
        &self,
        options: &ProvenanceOptions,
        definition: &Definition,
        made_by: &GraphRequest,
    ) -> Result<Predicate> {
        let sources = self.sources(definition, made_by).await?;
        if options.complete_materials && !sources.is_complete() {
            bail!("provenance materials are incomplete: {}", sources.untold());
        }
        let (config_source, mut request, vcs) = described(made_by, &sources);
        request.secrets = sources.secrets();
        request.ssh = sources.agents();
        request.locals = sources.locals.iter().cloned().collect();
        let mut has_whole_request = !made_by.frontend.is_empty();
        let steps = match options.mode {
            Mode::Min => {
                has_whole_request &= !reduce(&mut request);
                None
            }
            Mode::Max => Some(steps::steps(definition, &self.tools.redactor)?),
        };
        Ok(Predicate {
            config_source,
            request,
            steps,
            builder_platform: Some(Platform::host()),
            frontend_version: frontend_version(&made_by.frontend),
            is_hermetic: sources.is_complete() && !sources.uses_network(),
            has_all_dependencies: sources.is_complete(),
            dependencies: sources.into_dependencies(),
            builder_id: options.builder_id.clone(),
            invocation: None,
            vcs,
            has_whole_request,
            is_reproducible: options.reproducible,
            environment: options.environment.clone(),
        })
    }

    /// Collects the sources of a graph with their digests.
    async fn sources(&self, definition: &Definition, made_by: &GraphRequest) -> Result<Sources> {
        let mut digests: BTreeMap<String, Digest> = BTreeMap::new();
        for bytes in &definition.ops {
            let Some(OpKind::Source(op)) = Op::decode(bytes)?.kind else { continue };
            let (scheme, rest) = op.identifier.split_once("://").unwrap_or_default();
            if matches!(scheme, "git" | "http" | "https") {
                // The worker remembers the identity of what it has loaded.
                self.pin(&op).await?;
            }
            let reference = rest.parse::<Reference>().ok().filter(|_| scheme == "docker-image");
            if let Some(reference) = reference.filter(|it| it.digest().is_none()) {
                let digest = self.images().digest_by(&reference, None).await?;
                digests.insert(op.identifier.clone(), digest);
            }
        }
        let mut sources = Sources::hiding(masked);
        let worker = &self.tools.worker;
        for op in &made_by.sources {
            self.pin(op).await?;
            sources.source(op, None, worker, None);
        }
        sources.collect(definition, worker, &digests)?;
        let locals = made_by.locals.iter().map(|name| Local { name: name.clone() });
        sources.locals.extend(locals);
        Ok(sources)
    }
}

/// Returns the source of the Dockerfile, the request, and the metadata of the context's repository.
fn described(
    made_by: &GraphRequest,
    sources: &Sources,
) -> (ConfigSource, Request, BTreeMap<String, String>) {
    let GraphRequest { frontend, options, inputs, root, .. } = made_by;
    let own = ProvenInput {
        frontend: frontend.clone(),
        options: options.clone(),
        inputs: inputs.clone(),
    };
    let described = other(&own, sources);
    let root = root.as_ref().map(|root| other(root, sources));
    // A client that requests nothing but attestations has no request.
    let is_other = |root: &OtherRequest| *root != described && *root != OtherRequest::default();
    let root = root.filter(is_other).map(Box::new);
    let OtherRequest { config_source, request } = described;
    let mut request = *request;
    let mut vcs = BTreeMap::new();
    for (name, value) in &request.args {
        if let Some(name) = name.strip_prefix(VCS).filter(|_| !value.is_empty()) {
            let value = if name == "source" { masked(value) } else { value.clone() };
            vcs.insert(name.to_owned(), value);
        }
    }
    request.args.retain(|name, _| !name.starts_with(VCS));
    (config_source, Request { root, ..request }, vcs)
}

/// Returns a request as BuildKit describes it.
fn other(input: &ProvenInput, sources: &Sources) -> OtherRequest {
    let options = &input.options;
    let is_given = |name: &&str| options.get(*name).is_some_and(|value| !value.is_empty());
    let key = options.get("contextkey").map(String::as_str).filter(|key| !key.is_empty());
    let key = key.or(Some("input:context").filter(is_given)).unwrap_or("context");
    let mut args: BTreeMap<String, String> = options
        .iter()
        .filter(|(name, _)| !OWN.contains(&name.as_str()) && !name.starts_with(ATTEST))
        .map(|(name, value)| {
            let is_address = name == key || name.starts_with("context:");
            (name.clone(), if is_address { masked(value) } else { value.clone() })
        })
        .collect();
    let mut config_source = ConfigSource::default();
    if let Some(uri) = args.get(key).filter(|uri| !uri.is_empty()).cloned() {
        // A fetched source is known without its subdirectory.
        let (address, fragment) = uri.split_once('#').unwrap_or((&uri, ""));
        let reference = fragment.split(':').next().unwrap_or_default();
        let fetched = if reference.is_empty() {
            address.to_owned()
        } else {
            format!("{address}#{reference}")
        };
        config_source.digest =
            sources.find(&fetched).map(|it| it.digest.clone()).unwrap_or_default();
        config_source.uri = uri;
        args.remove(key);
    }
    if let Some(path) = args.get("filename").filter(|path| !path.is_empty()).cloned() {
        config_source.path = path;
        args.remove("filename");
    }
    let inputs = input.inputs.iter().map(|(name, input)| (name.clone(), other(input, sources)));
    let request = Request {
        frontend: input.frontend.clone(),
        args,
        inputs: inputs.collect(),
        ..Request::default()
    };
    OtherRequest { config_source, request: Box::new(request) }
}

/// Removes the values of arguments and labels, and the secrets and SSH agents, of a request and all
/// requests that led to it. Returns `true` if it removed values.
fn reduce(request: &mut Request) -> bool {
    let mut is_reduced = request::reduce(request);
    let others = request.inputs.values_mut().chain(request.root.as_deref_mut());
    for other in others {
        is_reduced |= reduce(&mut other.request);
    }
    is_reduced
}

/// Masks the user and the password of a URL in BuildKit's way.
fn masked(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let Some(at) = rest[..end].rfind('@') else { return url.to_owned() };
    // The user of SSH is no secret.
    if scheme == "ssh" && !rest[..at].contains(':') {
        return url.to_owned();
    }
    let mask = if rest[..at].contains(':') { "xxxxx:xxxxx" } else { "xxxxx" };
    format!("{scheme}://{mask}{}", &rest[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn credentials_of_urls_are_masked() {
        for (url, expected) in [
            ("https://u:p@h/x#v1:d", "https://xxxxx:xxxxx@h/x#v1:d"),
            ("https://token@h/x", "https://xxxxx@h/x"),
            ("https://h/x@y", "https://h/x@y"),
            ("ssh://git@h/x", "ssh://git@h/x"),
            ("x", "x"),
        ] {
            assert_eq!(masked(url), expected);
        }
    }

    #[test]
    fn requests_are_described_as_buildkit_does() {
        let options = options(&[
            ("context", "https://u:p@h/x.git#v1:d"),
            ("filename", "a.Dockerfile"),
            ("platform", "linux/amd64"),
            ("attest:provenance", ""),
            ("build-arg:A", "b"),
            ("vcs:source", "https://u:p@h/x.git"),
        ]);
        let made_by = GraphRequest {
            frontend: "dockerfile.v0".to_owned(),
            options,
            ..GraphRequest::default()
        };
        let (source, request, vcs) = described(&made_by, &Sources::default());
        assert_eq!(source.uri, "https://xxxxx:xxxxx@h/x.git#v1:d");
        assert_eq!(source.path, "a.Dockerfile");
        assert_eq!(request.args.keys().collect::<Vec<_>>(), ["build-arg:A"]);
        assert_eq!(vcs["source"], "https://xxxxx:xxxxx@h/x.git");
        let root = ProvenInput { frontend: "gateway.v0".to_owned(), ..ProvenInput::default() };
        let made_by = GraphRequest { root: Some(root), ..made_by };
        let (_, mut request, _) = described(&made_by, &Sources::default());
        assert_eq!(request.root.as_ref().unwrap().request.frontend, "gateway.v0");
        assert!(reduce(&mut request) && request.args.is_empty());
    }
}

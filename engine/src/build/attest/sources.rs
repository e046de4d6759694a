//! The sources of a build, and the secrets and agents that it uses.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use kiln_attest::{Dependency, Local, SessionInput, blob_purl, image_purl};
use kiln_llb::Definition;
use kiln_llb::op::Op;
use kiln_llb::op::{MountKind, NetMode, OpKind, SourceOp};
use kiln_oci::{Digest, Platform, Reference};
use kiln_worker::{Pin, Worker};

use super::super::lowering::options;
use super::super::spec::{BuildSpec, DEFAULT_AGENT};
use super::super::spec::{ContextPlace, DockerfilePlace};
use crate::redact;

/// The scheme of blobs in registries.
const IMAGE_BLOB: &str = "docker-image+blob";
/// The scheme of blobs in OCI layouts.
const LAYOUT_BLOB: &str = "oci-layout+blob";

/// The sources of a build.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// The dependencies, each with its rank: images, repositories, and other files.
    dependencies: BTreeSet<(u8, Dependency)>,
    /// Directories of the machine that runs the build.
    pub(super) locals: BTreeSet<Local>,
    secrets: BTreeMap<String, bool>,
    agents: BTreeMap<String, bool>,
    uses_network: bool,
    /// The function that hides the credentials of URLs. `None` removes them.
    hide: Option<fn(&str) -> String>,
}

impl Sources {
    /// Collects the sources of a build.
    pub(super) fn of(
        definition: &Definition,
        request: &BuildSpec,
        worker: &Worker,
    ) -> Result<Self> {
        let mut sources = Self::default();
        // The build reads the Dockerfile from the context, even if no step uses the context.
        if let Some(op) = context_source(request)? {
            sources.source(&op, None, worker, None);
        }
        let is_local = !matches!(
            (&request.dockerfile, &request.context),
            (DockerfilePlace::Context | DockerfilePlace::Path(_), ContextPlace::Remote(_))
        );
        if is_local {
            sources.locals.insert(Local { name: "dockerfile".to_owned() });
        }
        sources.collect(definition, worker, &BTreeMap::new())?;
        Ok(sources)
    }

    /// Adds the sources of a graph. `digests` holds the digests of images by the names of sources.
    pub(super) fn collect(
        &mut self,
        definition: &Definition,
        worker: &Worker,
        digests: &BTreeMap<String, Digest>,
    ) -> Result<()> {
        let sources = self;
        for bytes in &definition.ops {
            let op = Op::decode(bytes)?;
            match &op.kind {
                Some(OpKind::Source(source)) => {
                    let digest = digests.get(&source.identifier);
                    sources.source(source, op.platform.as_ref(), worker, digest);
                }
                Some(OpKind::Exec(exec)) => {
                    sources.uses_network |= exec.network != NetMode::None;
                    for secret in &exec.secret_env {
                        lend(&mut sources.secrets, &secret.id, secret.optional);
                    }
                    for mount in &exec.mounts {
                        match &mount.kind {
                            MountKind::Secret(secret) => {
                                lend(&mut sources.secrets, &secret.id, secret.optional);
                            }
                            MountKind::Ssh(agent) => {
                                lend(&mut sources.agents, &agent.id, agent.optional);
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Adds a source. `digest` is that of an image whose name has none.
    pub(super) fn source(
        &mut self,
        op: &SourceOp,
        platform: Option<&Platform>,
        worker: &Worker,
        digest: Option<&Digest>,
    ) {
        let (scheme, rest) = op.identifier.split_once("://").unwrap_or(("", &op.identifier));
        let dependency = match scheme {
            "local" => {
                self.locals.insert(Local { name: rest.to_owned() });
                return;
            }
            "docker-image" | "oci-layout" => {
                let kind = if scheme == "oci-layout" { "oci" } else { "docker" };
                let mut dependency = image(kind, rest, platform);
                if let Some(digest) = digest.filter(|_| dependency.digest.is_empty()) {
                    dependency.digest.insert("sha256".to_owned(), digest.hex());
                }
                dependency
            }
            IMAGE_BLOB | LAYOUT_BLOB => {
                let kind = if scheme == LAYOUT_BLOB { "oci" } else { "docker" };
                self.pinned(&blob_uri(kind, rest), worker.pin(op))
            }
            "git" => {
                for attribute in ["git.authtokensecret", "git.authheadersecret", "git.mountsshsock"]
                {
                    let is_agent = attribute == "git.mountsshsock";
                    let lent = if is_agent { &mut self.agents } else { &mut self.secrets };
                    if let Some(id) = op.attrs.get(attribute) {
                        lend(lent, id, true);
                    }
                }
                self.pinned(&repository(op, rest), worker.pin(op))
            }
            _ => self.pinned(&op.identifier, worker.pin(op)),
        };
        let rank = match scheme {
            "docker-image" | "oci-layout" => 0,
            IMAGE_BLOB | LAYOUT_BLOB => 1,
            "git" => 2,
            _ => 3,
        };
        self.dependencies.insert((rank, dependency));
    }

    /// Returns an empty list whose URLs are shown as `hide` returns them.
    pub(super) fn hiding(hide: fn(&str) -> String) -> Self {
        Self { hide: Some(hide), ..Self::default() }
    }

    fn pinned(&self, uri: &str, pin: Option<Pin>) -> Dependency {
        let digest = pin.map(|pin| (pin.algorithm, pin.hex));
        let uri = self.hide.map_or_else(|| redact::urls(uri).into_owned(), |hide| hide(uri));
        Dependency { uri, digest: digest.into_iter().collect() }
    }

    /// Returns `true` if every source has a digest.
    pub(super) fn is_complete(&self) -> bool {
        self.locals.is_empty() && self.dependencies().all(|it| !it.digest.is_empty())
    }

    /// Returns a readable list of the sources without a digest.
    pub(super) fn untold(&self) -> String {
        let locals = self.locals.iter().map(|local| format!("the directory {:?}", local.name));
        let without = self.dependencies().filter(|it| it.digest.is_empty());
        let all: Vec<String> = locals.chain(without.map(|it| it.uri.clone())).collect();
        all.join(", ")
    }

    /// Returns `true` if a step had access to a network.
    pub(super) fn uses_network(&self) -> bool {
        self.uses_network
    }

    /// Returns the secrets that steps request.
    pub(super) fn secrets(&self) -> Vec<SessionInput> {
        lent(&self.secrets)
    }

    /// Returns the SSH agents that steps request.
    pub(super) fn agents(&self) -> Vec<SessionInput> {
        lent(&self.agents)
    }

    /// Returns the source that was fetched from an address.
    pub(super) fn find(&self, uri: &str) -> Option<&Dependency> {
        self.dependencies().find(|dependency| dependency.uri == uri)
    }

    pub(super) fn into_dependencies(self) -> Vec<Dependency> {
        self.dependencies.into_iter().map(|(_, dependency)| dependency).collect()
    }

    fn dependencies(&self) -> impl Iterator<Item = &Dependency> {
        self.dependencies.iter().map(|(_, dependency)| dependency)
    }
}

/// Returns the source of a remote build context.
pub(super) fn context_source(request: &BuildSpec) -> Result<Option<SourceOp>> {
    let ContextPlace::Remote(_) = &request.context else { return Ok(None) };
    let Some(edge) = kiln_frontend::remote_context(&options(request))? else { return Ok(None) };
    Ok(match &edge.node().op().kind {
        Some(OpKind::Source(op)) => Some(op.clone()),
        _ => None,
    })
}

/// Records a secret or agent. It is optional only if every step that uses it can run without it.
fn lend(all: &mut BTreeMap<String, bool>, id: &str, optional: bool) {
    let id = if id.is_empty() { DEFAULT_AGENT } else { id };
    let known = all.entry(id.to_owned()).or_insert(optional);
    *known &= optional;
}

fn lent(all: &BTreeMap<String, bool>) -> Vec<SessionInput> {
    all.iter().map(|(id, optional)| SessionInput { id: id.clone(), optional: *optional }).collect()
}

/// Returns an image as a dependency, named by its package URL. If the reference has a tag, the URL
/// holds the tag, and the dependency's digest is the resolved one.
fn image(kind: &str, text: &str, platform: Option<&Platform>) -> Dependency {
    let Ok(reference) = text.parse::<Reference>() else {
        return Dependency { uri: text.to_owned(), digest: BTreeMap::new() };
    };
    let digest = reference.digest().map(|digest| ("sha256".to_owned(), digest.hex()));
    let named = reference.tag().and_then(|tag| format!("{}:{tag}", reference.name()).parse().ok());
    let uri = image_purl(kind, &named.unwrap_or(reference), platform);
    Dependency { uri, digest: digest.into_iter().collect() }
}

/// Returns the package URL of a blob.
fn blob_uri(kind: &str, text: &str) -> String {
    text.parse().map_or_else(|_| text.to_owned(), |reference| blob_purl(kind, &reference))
}

/// Returns the address of a repository with its requested ref, without a subdirectory.
fn repository(op: &SourceOp, rest: &str) -> String {
    let (address, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let reference = fragment.split(':').next().unwrap_or_default();
    let address = op.attrs.get("git.fullurl").map_or(address, String::as_str);
    if reference.is_empty() { address.to_owned() } else { format!("{address}#{reference}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_the_names_that_they_were_asked_by() {
        let platform = "linux/amd64".parse().unwrap();
        let digest = "0".repeat(64);
        let url = |text: &str| image("docker", text, Some(&platform)).uri;
        let tagged = format!("docker.io/library/alpine:3@sha256:{digest}");
        assert_eq!(url(&tagged), "pkg:docker/alpine@3?platform=linux%2Famd64");
        assert_eq!(image("docker", &tagged, None).digest["sha256"], digest);
        let pinned = format!("h:5000/a/b@sha256:{digest}");
        let expected =
            format!("pkg:docker/h%3A5000/a/b?digest=sha256:{digest}&platform=linux%2Famd64");
        assert_eq!(url(&pinned), expected);
    }

    #[test]
    fn repositories_lose_passwords_and_directories() {
        let attrs = [("git.fullurl".to_owned(), "https://u:p@h/a.git".to_owned())];
        let op = SourceOp { identifier: "git://h/a.git#main:d".to_owned(), attrs: attrs.into() };
        let uri = repository(&op, "h/a.git#main:d");
        assert_eq!(Sources::default().pinned(&uri, None).uri, "https://h/a.git#main");
    }
}

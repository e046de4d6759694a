//! Builds whose frontend is the program of an image.
//!
//! The program gets the options that BuildKit's clients send for the same command line. Directories
//! are local sources, of which the program knows the names. The graphs that it solves use the tools,
//! and the caches, of the build.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use anyhow::{Context, Result, anyhow};
use kiln_frontend::{FrontendImage, Options, SYNTAX_ARGUMENT, ScanExtras};
use kiln_llb::Edge;
use kiln_oci::Platform;
use kiln_solver::SolveError;
use kiln_worker::{CachePlace, RemoteCache};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::graph_build::GraphBuild;
use super::graph_cache::GraphCaches;
use super::locals::DOCKERFILE_NAME;
use super::lowering::options;
use super::plan::{Plan, PlannedImage};
use super::policy;
use super::scan::Scans;
use super::scanner::Scanned;
use super::session::{Failure, Session};
use super::spec::{BuildSpec, CONTEXT_NAME};
use crate::frontends::{FrontendCall, FrontendError, FrontendResult};
use crate::redact;

/// The scheme of images in OCI layouts.
const LAYOUT: &str = "oci-layout://";
/// The capability of frontends that answer requests without a build.
const REQUESTS: &str = "moby.buildkit.frontend.subrequests";
/// The beginnings of the metadata that is about annotations.
const ANNOTATION: &str = "annotation";

/// A request that a frontend answers without a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Query {
    /// The build checks.
    Check,
    /// The arguments, secrets and agents that a build accepts.
    Outline,
    /// The stages of the file.
    Targets,
}

impl Query {
    fn name(self) -> &'static str {
        match self {
            Self::Check => "frontend.lint",
            Self::Outline => "frontend.outline",
            Self::Targets => "frontend.targets",
        }
    }
}

/// The answer to a query about a Dockerfile.
#[derive(Clone, Debug)]
pub enum Reply<T> {
    /// The answer of the built-in frontend.
    BuiltIn(T),
    /// The answer of a frontend that is the program of an image.
    Program(ProgramReply),
}

/// The answer of a frontend that is the program of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgramReply {
    /// The answer as a text for people.
    pub text: String,
    /// The answer as JSON.
    pub json: String,
    /// `true` if the answer tells of problems.
    pub has_findings: bool,
}

/// Returns the frontend of a request that isn't the built-in one.
pub(super) fn of_request(request: &BuildSpec, dockerfile: &[u8]) -> Option<FrontendImage> {
    let argument = request.build_args.get(SYNTAX_ARGUMENT).map(String::as_str);
    let requested = request.frontend_image.as_deref().map(FrontendImage::requested);
    requested.or_else(|| FrontendImage::find(argument, dockerfile))
}

impl Session<'_> {
    /// Returns the frontend of the build, unless it is the built-in one.
    pub(super) fn frontend(&self) -> Option<FrontendImage> {
        of_request(self.request, &self.input.dockerfile.text)
    }

    /// Has the frontend of an image describe the images.
    pub(super) async fn plan_by(
        &self,
        frontend: &FrontendImage,
        cache: &Arc<RemoteCache>,
    ) -> Result<Plan, Failure> {
        let options = self.program_options(frontend, None).await?;
        let result = Box::pin(self.run_program(frontend, options, cache)).await?;
        let FrontendResult { images, has_index, metadata, request } = result;
        let scanner = self.scanner()?;
        let extras = ScanExtras::default();
        let image = |image: crate::frontends::FrontendImage| {
            let definition = policy::enforce(&self.tools.policies, image.definition)?;
            let scan = |scans: &Scans| {
                let core =
                    if definition.ops.is_empty() { None } else { Some(Edge::load(&definition)?) };
                let platform = image.platform.to_string();
                let scanned = Scanned { platform: &platform, core, extras: &extras };
                policy::enforce(&self.tools.policies, scans.scan(scanned, &definition.sources)?)
            };
            Ok(PlannedImage {
                scan: scanner.as_ref().map(scan).transpose()?,
                platform: image.platform,
                definition,
                config: image.config,
                epoch: image.epoch,
                statements: image.statements,
            })
        };
        let images: Vec<PlannedImage> =
            images.into_iter().map(image).collect::<anyhow::Result<_>>()?;
        let annotations = metadata.into_iter().filter(|(key, _)| key.starts_with(ANNOTATION));
        let text =
            |(key, value): (String, Vec<u8>)| (key, String::from_utf8_lossy(&value).into_owned());
        let annotations = annotations.map(text).collect();
        Ok(Plan { images, has_index, made_by: Some(request), annotations })
    }

    /// Returns the answer of the build's frontend to a query. `answer` is the built-in one's.
    pub(super) async fn reply<T>(
        &self,
        query: Query,
        answer: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<Reply<T>, Failure> {
        match self.frontend() {
            None => answer().map(Reply::BuiltIn),
            Some(frontend) => {
                Box::pin(self.ask_program(&frontend, query)).await.map(Reply::Program)
            }
        }
    }

    /// Asks the frontend of an image a question that needs no build.
    async fn ask_program(
        &self,
        frontend: &FrontendImage,
        query: Query,
    ) -> Result<ProgramReply, Failure> {
        let blobs = self.tools.resolver.blobs();
        let cache = RemoteCache::new(self.tools.cache(), Vec::new(), &blobs, None);
        let options = self.program_options(frontend, Some(query)).await?;
        let result = Box::pin(self.run_program(frontend, options, &Arc::new(cache))).await?;
        let text = |key: &str| {
            let found = result.metadata.get(key);
            found.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        };
        let (shown, json) = (text("result.txt"), text("result.json"));
        if shown.is_none() && json.is_none() {
            let (image, name) = (frontend.image(), query.name());
            return Err(Failure::Other(anyhow!("the frontend {image} doesn't answer {name}")));
        }
        let json = json.unwrap_or_default();
        Ok(ProgramReply {
            text: shown.unwrap_or_else(|| json.clone()),
            json,
            has_findings: text("result.statuscode").is_some_and(|code| code != "0"),
        })
    }

    /// Runs the frontend of an image. Keeps its warnings.
    async fn run_program(
        &self,
        frontend: &FrontendImage,
        options: BTreeMap<String, String>,
        cache: &Arc<RemoteCache>,
    ) -> Result<FrontendResult, Failure> {
        self.tools.check_privileges()?;
        let image = frontend.image().to_owned();
        let frontends = self.engine.options.frontends.clone().with_context(|| {
            format!("the frontend {image} is the program of an image, and none can be run here")
        })?;
        let cancel = self.cancel.child_token();
        let ended = frontends.run(FrontendCall {
            engine: self.engine.clone(),
            build: self.graph_build(GraphCaches::of(Arc::clone(cache)), cancel.clone()),
            image,
            options,
            policies: self.tools.policies.clone(),
            events: self.events.clone(),
            cancel,
        });
        let ended = ended.await;
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        warnings.extend(ended.warnings);
        drop(warnings);
        let has_file = ended.file.is_some();
        if let Some(file) = ended.file {
            *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        }
        ended.result.map_err(|error| match error {
            FrontendError::Cancelled => Failure::Solve(SolveError::Cancelled),
            // The line that names the frontend is the place of an error without one.
            FrontendError::Failed(error) => Failure::Dockerfile(vec![match frontend.span {
                Some(span) if error.spans.is_empty() && !has_file => error.at(span),
                _ => error,
            }]),
        })
    }

    /// Returns a build with the tools and caches of this one.
    pub(super) fn graph_build(&self, caches: GraphCaches, cancel: CancellationToken) -> GraphBuild {
        GraphBuild { tools: self.tools.for_program(), cancel, caches }
    }

    /// Returns the options of a frontend.
    async fn program_options(
        &self,
        frontend: &FrontendImage,
        query: Option<Query>,
    ) -> Result<BTreeMap<String, String>> {
        let Options { network, limits, .. } = options(self.request);
        let request = self.request;
        let mut all = BTreeMap::new();
        for (prefix, values) in [("build-arg:", &request.build_args), ("label:", &request.labels)] {
            all.extend(
                values.iter().map(|(name, value)| (format!("{prefix}{name}"), value.clone())),
            );
        }
        all.extend(self.contexts().await?);
        let platforms: Vec<String> = request.platforms.iter().map(Platform::to_string).collect();
        let hosts: Vec<String> =
            request.hosts.iter().map(|(host, address)| format!("{host}={address}")).collect();
        let ulimits = limits.ulimits.iter();
        let ulimits: Vec<String> =
            ulimits.map(|it| format!("{}={}:{}", it.name, it.soft, it.hard)).collect();
        let some = |text: String| (!text.is_empty()).then_some(text);
        for (name, value) in [
            ("source", Some(frontend.image().to_owned())),
            ("cmdline", Some(frontend.line.clone())),
            ("filename", self.locals.filename.clone()),
            ("target", request.target.clone()),
            ("platform", some(platforms.join(","))),
            ("force-network-mode", network),
            ("add-hosts", some(hosts.join(","))),
            ("ulimit", some(ulimits.join(","))),
            ("shm-size", (limits.shm_size > 0).then(|| limits.shm_size.to_string())),
            ("cgroup-parent", some(limits.cgroup_parent)),
            ("no-cache", request.no_cache.as_ref().map(|stages| stages.join(","))),
            ("image-resolve-mode", request.pull.then(|| "pull".to_owned())),
            ("cache-imports", imports(request)),
            ("requestid", query.map(|query| query.name().to_owned())),
            ("frontend.caps", query.map(|_| REQUESTS.to_owned())),
        ] {
            all.extend(value.map(|value| (name.to_owned(), value)));
        }
        Ok(all)
    }

    /// Returns the options about the contexts. The names of OCI layouts are made up: the program
    /// needs no path of this machine.
    async fn contexts(&self) -> Result<Vec<(String, String)>> {
        let mut all = Vec::new();
        for (number, (name, value)) in self.request.named_contexts.iter().enumerate() {
            if name == CONTEXT_NAME {
                all.push((CONTEXT_NAME.to_owned(), value.clone()));
                continue;
            }
            let value = match value.strip_prefix(LAYOUT) {
                None => value.clone(),
                Some(layout) => {
                    let found = self.tools.resolver.resolve_layout(layout, &Platform::host()).await;
                    let digest = found.with_context(|| format!("build context {name}"))?.digest;
                    format!("{LAYOUT}kiln-layout-{number}@{digest}")
                }
            };
            all.push((format!("context:{name}"), value));
        }
        if self.input.directory.is_none() && self.locals.has_dockerfile() {
            all.push(("dockerfilekey".to_owned(), DOCKERFILE_NAME.to_owned()));
        }
        Ok(all)
    }
}

/// Returns the caches of registries in the form of a frontend's option. The build imports them
/// already.
fn imports(request: &BuildSpec) -> Option<String> {
    let registry = |place: &CachePlace| match place {
        CachePlace::Registry(reference) => {
            let reference = redact::urls(&reference.to_string()).into_owned();
            Some(json!({"Type": "registry", "Attrs": {"ref": reference}}))
        }
        _ => None,
    };
    let all: Vec<_> = request.caches.from.iter().filter_map(|it| registry(&it.place)).collect();
    (!all.is_empty()).then(|| json!(all).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_insists() {
        let mut request = BuildSpec::dockerfile("/x");
        let named = b"# syntax=a/b\n";
        let image = |request: &BuildSpec, text: &[u8]| {
            of_request(request, text).map(|found| found.image().to_owned())
        };
        assert_eq!(image(&request, b"FROM x"), None);
        assert_eq!(image(&request, named).as_deref(), Some("a/b"));
        request = request.build_arg(SYNTAX_ARGUMENT, "docker/dockerfile:1");
        assert_eq!(image(&request, named).as_deref(), Some("docker/dockerfile:1"));
        request.frontend_image = Some("docker/dockerfile:2 -x".to_owned());
        assert_eq!(image(&request, named).as_deref(), Some("docker/dockerfile:2"));
    }
}

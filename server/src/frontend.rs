//! The built-in frontend, for clients that name it: `dockerfile.v0`, or `gateway.v0` with an image of
//! Docker's Dockerfile frontend in any version.
//!
//! | module | content |
//! | --- | --- |
//! | `entry` | the Dockerfile and the build context, wherever they are |
//! | `options` | the options of a call |
//! | `images`, `texts` | images and ignore files, which the Dockerfile refers to |
//! | `requests` | answers about a Dockerfile that need no build |
//! | `program` | the images of other frontends |
//! | `syntax` | the frontends that a Dockerfile or a client names by their images |
//!
//! The frontend reads files by graphs of their own, like a client's frontend: so the client sees the
//! same steps, and a context may be anything that a graph can make.

mod entry;
mod images;
mod options;
mod program;
mod requests;
mod syntax;
mod texts;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::{StatusResponse, VertexWarning};
use bollard_buildkit_proto::pb;
use kiln::build::{GraphRequest, Scanned, side_by_side};
use kiln_frontend::lint::Warning;
use kiln_frontend::{Error, Images, Lowered, Options, Span};
use kiln_images::PullPolicy;
use kiln_llb::Definition;
use kiln_oci::Platform;
use serde_json::json;
use tonic::{Code, Status};

use crate::caches;
use crate::errors::{of_error, source_detail, with_details};
use crate::exports::{CONFIG, EPOCH, PLATFORMS};
use crate::gateway;
use crate::jobs::Job;
use crate::origins;
use crate::references::{Attestation, FrontendResult};
use crate::scanner::{self, FoundScanner};
use crate::server::Host;

use self::entry::Entry;
use self::images::JobImages;
use self::options::Requested;
pub(crate) use self::program::ProgramImage;
pub(crate) use self::requests::missing;
pub use self::syntax::Frontends;
pub(crate) use self::syntax::GATEWAY;
use self::syntax::Program;
use self::texts::IgnoreFiles;

/// The call of a frontend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    /// The frontend's name.
    pub(crate) name: &'a str,
    /// The options.
    pub(crate) options: &'a HashMap<String, String>,
    /// The graphs that stand for contexts.
    pub(crate) inputs: &'a HashMap<String, pb::Definition>,
}

impl<'a> Call<'a> {
    pub(crate) fn option(&self, name: &str) -> Option<&'a str> {
        self.options.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns the options whose names begin with a prefix, without it.
    fn with_prefix(&self, prefix: &str) -> BTreeMap<String, String> {
        let strip = |(name, value): (&String, &String)| {
            Some((name.strip_prefix(prefix)?.to_owned(), value.clone()))
        };
        self.options.iter().filter_map(strip).collect()
    }
}

/// Calls a frontend.
///
/// # Errors
/// Fails if there is no such frontend, if an option is invalid, or if the Dockerfile is.
pub(crate) async fn call(
    host: &Arc<Host>,
    job: &Arc<Job>,
    call: Call<'_>,
) -> Result<FrontendResult, Status> {
    let program = syntax::of_call(call)?;
    host.options().frontends.check(call.name, &program)?;
    if let Program::Other(image) = program {
        return gateway::call(host, job, image, call).await;
    }
    let missing = requests::missing_capability(call);
    if let Some((error, false)) = missing {
        return Err(error);
    }
    caches::import(job, caches::of_options(call.options)?).await;
    let requested = Requested::read(call)?;
    let entry = Entry::find(job, call, &requested).await?;
    if program == Program::Named
        && let Some(forward) = syntax::forward(call, &entry.source_info())
    {
        host.options().frontends.check(syntax::GATEWAY, &Program::Other(&forward.image))?;
        let options = forward.options(call);
        let call = Call { name: syntax::GATEWAY, options: &options, inputs: call.inputs };
        let result = gateway::call(host, job, &forward.image, call).await;
        return result.map_err(|status| forward.explain(&status));
    }
    if let Some((error, _)) = missing {
        return Err(error);
    }
    let mut answerer = Answerer { job, call, requested: &requested, entry: &entry, scanner: None };
    if let Some(request) = call.options.get("requestid") {
        return requests::answer(&answerer, request);
    }
    answerer.scanner = FoundScanner::of_call(job, call)?;
    let result = answerer.lower()?;
    job.note_call(request(job, call, &entry), &result);
    Ok(result)
}

/// Returns the request for the provenance of the images. The Dockerfile and the ignore file are
/// sources even if no step reads them.
fn request(job: &Job, call: Call<'_>, entry: &Entry) -> GraphRequest {
    let mut options: BTreeMap<String, String> = call.options.clone().into_iter().collect();
    let mut frontend = call.name;
    // The built-in frontend under its own name is the same frontend as without the gateway.
    if options.get("source").is_some_and(|source| source == syntax::BUILT_IN) {
        frontend = syntax::BUILT_IN;
        options.retain(|name, _| name != "source" && name != "cmdline");
    }
    GraphRequest {
        frontend: frontend.to_owned(),
        options,
        locals: entry.locals.clone(),
        sources: entry.sources.clone(),
        inputs: origins::of_inputs(job, call.inputs),
        root: origins::of_client(job),
    }
}

/// A call whose Dockerfile has been read.
struct Answerer<'a> {
    job: &'a Job,
    call: Call<'a>,
    requested: &'a Requested,
    entry: &'a Entry,
    /// The scanner that the client names by its image.
    scanner: Option<FoundScanner>,
}

impl Answerer<'_> {
    /// Asks the frontend with access to images and ignore files.
    fn ask<T>(&self, question: impl FnOnce(&Options, &JobImages<'_>, &IgnoreFiles<'_>) -> T) -> T {
        let options = self.options();
        let policy = match self.call.option("image-resolve-mode") {
            Some("pull") => Some(PullPolicy::Always),
            _ => None,
        };
        let images = JobImages::new(self.job, policy, options.multi_platform);
        let files = IgnoreFiles::new(self.job, self.entry, self.requested);
        // Images and files block this thread until registries and the client answer.
        tokio::task::block_in_place(|| question(&options, &images, &files))
    }

    fn options(&self) -> Options {
        Options {
            context: self.entry.context.clone(),
            filename: self.entry.filename.clone(),
            archive_context: self.entry.is_archive,
            scans: self.scanner.is_some(),
            ..self.requested.options.clone()
        }
    }

    /// Lowers the Dockerfile for each platform. Warnings about the first one go to the client.
    fn lower(&self) -> Result<FrontendResult, Status> {
        let host = [Platform::host()];
        let platforms = match self.requested.platforms.as_slice() {
            [] => &host,
            platforms => platforms,
        };
        let text = &self.entry.text;
        let mut answers = self.ask(|options, images, files| {
            let lower = |platform: &Platform| {
                let options = Options { platform: platform.clone(), ..options.clone() };
                let mut warnings = Vec::new();
                let images: &dyn Images = images;
                let lowered =
                    kiln_frontend::lower_or_warn(text, &options, images, files, &mut warnings);
                (lowered, warnings)
            };
            side_by_side(platforms, lower)
        });
        let warnings = answers.first_mut().map(|(_, warnings)| std::mem::take(warnings));
        self.warn(&warnings.unwrap_or_default());
        let lowered: Result<Vec<Lowered>, Vec<Error>> =
            answers.into_iter().map(|(one, _)| one).collect();
        let lowered = lowered.map_err(|errors| self.failed(&errors))?;
        let lowered = platforms.iter().cloned().zip(lowered);
        self.result(lowered)
    }

    /// Returns the status of errors in the Dockerfile, with the lines that they name.
    fn failed(&self, errors: &[Error]) -> Status {
        let source = self.entry.source_info();
        let places = errors.iter().flat_map(|error| &error.spans);
        let places = places.map(|span| source_detail(&source, &by_line(&[*span])));
        let text: Vec<&str> = errors.iter().map(|error| error.message.as_str()).collect();
        with_details(Code::Unknown, text.join("; "), places.collect())
    }

    fn warn(&self, warnings: &[Warning]) {
        let source = self.entry.source_info();
        let vertex = &self.entry.vertex;
        let warnings = warnings.iter().map(|warning| message(warning, &source, vertex));
        let warnings = warnings.collect();
        self.job.status.send(StatusResponse { warnings, ..StatusResponse::default() });
    }
}

/// Returns the message about a finding of the build checks.
fn message(warning: &Warning, source: &pb::SourceInfo, vertex: &str) -> VertexWarning {
    let place = warning.spans.first().map_or(String::new(), |at| format!(" (line {})", at.start));
    VertexWarning {
        vertex: vertex.to_owned(),
        level: 1,
        short: format!("{}: {}{place}", warning.rule, warning.message).into_bytes(),
        detail: vec![warning.description.as_bytes().to_vec()],
        url: warning.url.clone().into_owned(),
        info: Some(source.clone()),
        ranges: by_line(&warning.spans),
    }
}

/// Returns the ranges of spans. As in BuildKit, each line is a range of its own.
fn by_line(spans: &[Span]) -> Vec<pb::Range> {
    let position = |line: u32| Some(pb::Position { line: line.cast_signed(), character: 0 });
    let lines = spans.iter().flat_map(|span| span.start..=span.end.max(span.start));
    lines.map(|line| pb::Range { start: position(line), end: position(line) }).collect()
}

/// Returns the graph of a lowered Dockerfile, whose steps refer to lines of the Dockerfile.
fn definition(lowered: &Lowered, source: &pb::SourceInfo) -> pb::Definition {
    with_lines(&lowered.definition(), source)
}

/// Returns a graph of steps that refer to lines of a Dockerfile.
fn with_lines(definition: &Definition, source: &pb::SourceInfo) -> pb::Definition {
    let mut definition = definition.to_pb();
    if let Some(places) = &mut definition.source {
        places.infos = vec![source.clone()];
        let locations = places.locations.values_mut().flat_map(|found| &mut found.locations);
        for location in locations {
            let span = |range: &pb::Range| {
                let line = |at: Option<pb::Position>| at.unwrap_or_default().line.cast_unsigned();
                Span { start: line(range.start), end: line(range.end) }
            };
            location.ranges = by_line(&location.ranges.iter().map(span).collect::<Vec<_>>());
        }
    }
    definition
}

/// Returns the name of a platform in results, with the system's version.
fn id_of(platform: &Platform) -> String {
    let features = platform.os_features.iter().map(|feature| format!("+{feature}"));
    let features: String = features.collect();
    let version = platform.os_version.as_deref().unwrap_or_default();
    let name = platform.to_string();
    match (name.split_once('/'), version.len() + features.len()) {
        (Some((os, rest)), 1..) => format!("{os}({version}{features})/{rest}"),
        _ => name,
    }
}

impl Answerer<'_> {
    /// Returns the result that a client sees.
    fn result(
        &self,
        lowered: impl Iterator<Item = (Platform, Lowered)>,
    ) -> Result<FrontendResult, Status> {
        let (source, is_multi) = (&self.entry.source_info(), self.requested.is_multi);
        let mut result = FrontendResult::default();
        let mut named = Vec::new();
        for (platform, lowered) in lowered {
            let platform = platform.normal();
            let id = id_of(&platform);
            let config = lowered.image.to_json().map_err(|error| of_error(&error))?;
            let slot = self.job.add(definition(&lowered, source))?;
            let key = |name: &str| if is_multi { format!("{name}/{id}") } else { name.to_owned() };
            result.metadata.insert(key(CONFIG), config);
            if let Some(epoch) = lowered.epoch {
                result.metadata.insert(key(EPOCH), epoch.to_string().into_bytes());
            }
            if let Some(scan) = self.scan(&id, lowered)? {
                result.attestations.insert(id.clone(), vec![scan]);
            }
            if is_multi {
                result.several.insert(id.clone(), slot);
            } else {
                result.single = slot;
            }
            named.push(json!({"ID": id, "Platform": platform}));
        }
        let platforms = json!({"Platforms": named}).to_string().into_bytes();
        result.metadata.insert(PLATFORMS.to_owned(), platforms);
        Ok(result)
    }

    /// Returns the attestation that the scanner makes for an image, if the client requests one.
    fn scan(&self, id: &str, lowered: Lowered) -> Result<Option<Attestation>, Status> {
        let Some(scanner) = &self.scanner else { return Ok(None) };
        let Lowered { edge: core, scan: extras, source, .. } = lowered;
        let scan = scanner.scan(Scanned { platform: id, core, extras: &extras })?;
        let scan = Definition { sources: vec![source], ..scan.marshal() };
        scanner::attestation(self.job, with_lines(&scan, &self.entry.source_info())).map(Some)
    }
}

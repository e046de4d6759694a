//! Frontends that are programs of images, for builds of this process.
//!
//! Such a build has no client. Its files, secrets, layouts and caches are those of the command line,
//! which the engine has handed to the build already. The rest is the same as for a client's build: the
//! program gets the same bridge.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::{StatusResponse, VertexWarning};
use bollard_buildkit_proto::pb;
use futures_util::future::BoxFuture;
use kiln::build::{Dockerfile, ProvenInput};
use kiln::{
    FrontendCall, FrontendEnd, FrontendError, FrontendImage, FrontendResult, Frontends as Port,
};
use kiln_frontend::Span;
use kiln_frontend::lint::Warning;
use kiln_llb::{Definition, base64};
use serde::Deserialize;
use tonic::{Code, Status};

use crate::errors::{of_error, to_message};
use crate::exports::{self, Described};
use crate::frontend::{Call, GATEWAY};
use crate::gateway;
use crate::jobs::{Job, NewJob, canceled};
use crate::layouts::Layouts;
use crate::policy::JobPolicy;
use crate::relay::Relay;
use crate::server::{Host, Options};
use crate::status::{StatusLog, unique};

/// The time in which the programs of a frontend's containers end.
const END: Duration = Duration::from_secs(10);
/// The rule of warnings that name none.
const NO_RULE: &str = "Frontend";
/// The end of the names of types of source details.
const SOURCE: &str = "errdefs.Source+json";

/// The frontends that are programs of images, over the bridge of a server.
#[derive(Clone, Copy, Debug, Default)]
pub struct ImageFrontends;

impl Port for ImageFrontends {
    fn run(&self, call: FrontendCall) -> BoxFuture<'static, FrontendEnd> {
        Box::pin(run(call))
    }
}

async fn run(call: FrontendCall) -> FrontendEnd {
    let FrontendCall { engine, build, image, options, policies, events, cancel } = call;
    let server = Options::new(engine.options().clone());
    let host = Arc::new(Host::new(engine, server));
    let status = StatusLog::relayed(host.engine.store(), Relay::to(events));
    let listed = host.jobs.add(Job::new(NewJob {
        reference: unique(),
        session: None,
        cancel,
        layouts: Layouts::default(),
        is_own: true,
        inputs: HashMap::new(),
        root: ProvenInput::default(),
        policy: JobPolicy { rules: policies, session: None },
        status: status.clone(),
        build,
    }));
    let result = match listed {
        Err(status) => Err(status),
        Ok(listed) => {
            // There is no queue: the user waits for this build.
            listed.job.admit();
            let options: HashMap<String, String> = options.into_iter().collect();
            let result = result(&host, &listed.job, &image, &options).await;
            let failed = listed.job.cancel.is_cancelled();
            drop(listed);
            if failed { result.map_err(|_| canceled()) } else { result }
        }
    };
    host.tasks.close();
    // Programs of the frontend's containers end with it.
    let _ = tokio::time::timeout(END, host.tasks.wait()).await;
    let warnings = status.relay().map(Relay::close).unwrap_or_default();
    end(result, &warnings)
}

/// Runs the frontend, and describes its result.
async fn result(
    host: &Arc<Host>,
    job: &Arc<Job>,
    image: &str,
    options: &HashMap<String, String>,
) -> Result<FrontendResult, Status> {
    let inputs = HashMap::new();
    let call = Call { name: GATEWAY, options, inputs: &inputs };
    let returned = Box::pin(gateway::call(host, job, image, call)).await?;
    let texts = exports::check_platforms(&returned, options)?;
    let warning = |text: String| VertexWarning { short: text.into_bytes(), ..Default::default() };
    let warnings = texts.into_iter().map(warning).collect();
    job.status.send(StatusResponse { warnings, ..StatusResponse::default() });
    let metadata = returned.metadata.clone().into_iter().collect();
    if options.contains_key("requestid") {
        return Ok(FrontendResult { metadata, ..FrontendResult::default() });
    }
    let described = exports::describe(job, &returned).await?;
    let images = described.into_iter().map(to_image).collect::<Result<_, _>>()?;
    let made = returned.references().next();
    let request = made.map(|reference| job.request_of(reference)).unwrap_or_default();
    let has_index = !returned.several.is_empty();
    Ok(FrontendResult { images, has_index, metadata, request })
}

fn end(result: Result<FrontendResult, Status>, warnings: &[VertexWarning]) -> FrontendEnd {
    let mut file = None;
    let result = result.map_err(|status| {
        if status.code() == Code::Cancelled {
            return FrontendError::Cancelled;
        }
        let mut error = kiln_frontend::Error::new(status.message());
        // The innermost place is the first one.
        if let Some((place, spans)) = place(&status) {
            file = Some(place);
            error.spans = spans;
        }
        FrontendError::Failed(error)
    });
    let infos = warnings.iter().find_map(|warning| warning.info.as_ref());
    let file = file.or_else(|| infos.map(source));
    let warnings = warnings.iter().map(|it| to_warning(it, file.as_ref())).collect();
    FrontendEnd { result, warnings, file }
}

fn source(info: &pb::SourceInfo) -> Dockerfile {
    Dockerfile { name: info.filename.clone(), text: info.data.clone(), ignore: None }
}

/// Returns the warning of a frontend. Its lines are left out if they are those of another file than
/// `file`.
fn to_warning(warning: &VertexWarning, file: Option<&Dockerfile>) -> Warning {
    let short = String::from_utf8_lossy(&warning.short).into_owned();
    let is_rule =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let (rule, message) = match short.split_once(": ") {
        Some((rule, message)) if is_rule(rule) => (rule.to_owned(), message.to_owned()),
        _ => (NO_RULE.to_owned(), short),
    };
    let detail = warning.detail.iter().map(|line| String::from_utf8_lossy(line).into_owned());
    let is_here = warning
        .info
        .as_ref()
        .zip(file)
        .is_some_and(|(info, file)| info.filename == file.name && info.data == file.text);
    let ranges: &[pb::Range] = if is_here { &warning.ranges } else { &[] };
    let mut spans: Vec<Span> = ranges.iter().map(span).collect();
    spans.dedup();
    // BuildKit's own frontend adds the line to the text, where the excerpt has it.
    let line = spans.first().map(|span| format!(" (line {})", span.start)).unwrap_or_default();
    let message = message.strip_suffix(&line).map_or(message.clone(), str::to_owned);
    Warning {
        rule: Cow::Owned(rule),
        description: Cow::Owned(detail.collect::<Vec<_>>().join("\n")),
        url: Cow::Owned(warning.url.clone()),
        message,
        spans,
    }
}

fn span(range: &pb::Range) -> Span {
    let line = |at: Option<pb::Position>| at.unwrap_or_default().line.max(1).cast_unsigned();
    let start = line(range.start);
    Span { start, end: line(range.end).max(start) }
}

/// The detail of an error with a place.
#[derive(Deserialize)]
struct Place {
    info: File,
    #[serde(default)]
    ranges: Vec<Lines>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    filename: String,
    #[serde(default)]
    data: String,
}

#[derive(Deserialize)]
struct Lines {
    start: Line,
    end: Line,
}

#[derive(Default, Deserialize)]
struct Line {
    #[serde(default)]
    line: i32,
}

/// Returns the place of an error, if its details have one.
fn place(status: &Status) -> Option<(Dockerfile, Vec<Span>)> {
    let details = to_message(status).details;
    let detail = details.iter().find(|detail| detail.type_url.ends_with(SOURCE))?;
    let place: Place = serde_json::from_slice(&detail.value).ok()?;
    let text = base64::decode(&place.info.data)?;
    let position = |line: &Line| Some(pb::Position { line: line.line, character: 0 });
    let range = |it: &Lines| pb::Range { start: position(&it.start), end: position(&it.end) };
    let spans = place.ranges.iter().map(|lines| span(&range(lines))).collect();
    Some((Dockerfile { name: place.info.filename, text, ignore: None }, spans))
}

/// Returns an image for the engine, which solves its graph.
fn to_image(image: Described<'_>) -> Result<FrontendImage, Status> {
    let Described { slot, platform, config, epoch, statements } = image;
    let definition = match slot {
        None => Definition::default(),
        Some(reference) => {
            let definition = Definition::from_pb(reference.definition.clone());
            definition.map_err(|error| of_error(&error))?
        }
    };
    Ok(FrontendImage { platform, definition, config, epoch, statements })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::errors::{detail, with_details};

    fn info() -> pb::SourceInfo {
        pb::SourceInfo {
            filename: "spec.txt".to_owned(),
            data: b"one\ntwo\n".to_vec(),
            ..pb::SourceInfo::default()
        }
    }

    fn range(line: i32) -> pb::Range {
        let at = Some(pb::Position { line, character: 0 });
        pb::Range { start: at, end: at }
    }

    #[test]
    fn errors_have_their_places() {
        let place = json!({
            "info": {"filename": "spec.txt", "data": base64::encode(b"one\ntwo\n")},
            "ranges": [{"start": {"line": 2}, "end": {"line": 2}}],
        });
        let details = vec![detail("errdefs.Source", &place)];
        let ended = end(Err(with_details(Code::Unknown, "wrong".to_owned(), details)), &[]);
        let Err(FrontendError::Failed(error)) = ended.result else { panic!("{ended:?}") };
        assert_eq!((error.message.as_str(), error.spans), ("wrong", vec![Span::line(2)]));
        assert_eq!(ended.file.unwrap().name, "spec.txt");
        let ended = end(Err(canceled()), &[]);
        assert!(matches!(ended.result, Err(FrontendError::Cancelled)) && ended.file.is_none());
    }

    #[test]
    fn warnings_have_rules_and_lines() {
        let warning = |short: &str, info: Option<pb::SourceInfo>| VertexWarning {
            short: short.as_bytes().to_vec(),
            ranges: vec![range(2)],
            info,
            ..VertexWarning::default()
        };
        let other = pb::SourceInfo { filename: "other".to_owned(), ..info() };
        let all = [
            warning("OwnRule: odd (line 2)", Some(info())),
            warning("something: is odd", None),
            warning("no rule: here", Some(other)),
        ];
        let ended = end(Ok(FrontendResult::default()), &all);
        let shown: Vec<_> = ended
            .warnings
            .iter()
            .map(|it| (&*it.rule, it.message.as_str(), it.spans.len()))
            .collect();
        assert_eq!(
            shown,
            [("OwnRule", "odd", 1), ("something", "is odd", 0), ("Frontend", "no rule: here", 0)]
        );
    }
}

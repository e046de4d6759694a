//! Queries about a Dockerfile that run no build: `--call`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use kiln::build::{BuildSpec, Outcome, ProgramReply, Reply};
use kiln::{Engine, Monitor};
use kiln_frontend::call::{Outline, Report, Targets};

use super::attend::{Console, attend};
use crate::arguments::call::{Call, Method};
use crate::rendering::progress;
use crate::settings::Settings;
use crate::settings::build::BuildRequest;

/// An answer to print.
struct Answer {
    /// The output.
    text: String,
    /// Errors in the Dockerfile that the text for people doesn't include.
    errors: Vec<String>,
    /// `true` if the checks found a problem.
    has_findings: bool,
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self { text, errors: Vec::new(), has_findings: false }
    }
}

/// Runs the query and prints the answer.
pub(crate) async fn call(
    request: BuildRequest,
    call: Call,
    settings: &Settings,
    console: Console<'_>,
) -> Result<ExitCode> {
    let engine = settings.engine()?;
    let work = async |spec, monitor| answer(&engine, spec, monitor, call).await;
    let answer = match attend(&request, &engine, console, work).await? {
        Ok((answer, _)) => answer,
        Err(code) => return Ok(code),
    };
    // JSON is for programs, so control characters stay in it.
    let text = if call.is_json { answer.text } else { progress::clean_text(&answer.text) };
    console.printer.text(text.trim_end_matches('\n'));
    for error in &answer.errors {
        console.printer.note(format_args!("\n{}", progress::clean_text(error)));
    }
    let failed = answer.has_findings && !call.ignores_status;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn answer(
    engine: &Engine,
    spec: BuildSpec,
    monitor: Monitor,
    call: Call,
) -> Result<Outcome<Answer>> {
    let is_json = call.is_json;
    Ok(match call.method {
        Method::Build => bail!("a build is no query"),
        Method::Targets => engine.targets(spec, monitor).await?.map(|reply| {
            let text = |it: Targets| if is_json { it.to_json() } else { it.to_text() };
            answer_of(reply, is_json, |it| text(it).into())
        }),
        Method::Outline => engine.outline(spec, monitor).await?.map(|reply| {
            let text = |it: Outline| if is_json { it.to_json() } else { it.to_text() };
            answer_of(reply, is_json, |it| text(it).into())
        }),
        Method::Check => {
            let check = |report: Report| check_answer(&report, call);
            engine.check(spec, monitor).await?.map(|reply| answer_of(reply, is_json, check))
        }
    })
}

/// Returns the answer of a frontend. `built_in` converts the built-in one's.
fn answer_of<T>(reply: Reply<T>, is_json: bool, built_in: impl FnOnce(T) -> Answer) -> Answer {
    match reply {
        Reply::BuiltIn(reply) => built_in(reply),
        Reply::Program(ProgramReply { text, json, has_findings }) => {
            Answer { text: if is_json { json } else { text }, errors: Vec::new(), has_findings }
        }
    }
}

fn check_answer(report: &Report, call: Call) -> Answer {
    let source = String::from_utf8_lossy(&report.source.data);
    let render = |error| progress::dockerfile_error(error, &report.source.filename, &source);
    let text = match report.warnings.len() {
        _ if call.is_json => report.to_json(),
        0 if !report.errors.is_empty() => String::new(),
        0 => "Check complete, no warnings found.".to_owned(),
        1 => format!("Check complete, 1 warning has been found!\n{}", report.to_text()),
        count => {
            format!("Check complete, {count} warnings have been found!\n{}", report.to_text())
        }
    };
    Answer {
        text,
        errors: report.errors.iter().map(render).collect(),
        has_findings: !report.is_clean(),
    }
}

//! Why a build has failed, with the lines that failed.

use kiln_solver::{SolveError, StepError};

use super::text::clean;
use crate::build::{Dockerfile, Failure};
use crate::printer::Printer;

/// How many lines of a failed step's output are shown again.
const LOG_LINES: usize = 20;
/// How many lines of the Dockerfile are shown around those that failed.
const MARGIN: usize = 2;

/// Reports a failure.
pub(crate) fn failure(printer: &Printer, failure: &Failure, dockerfile: &Dockerfile) {
    match failure {
        Failure::Dockerfile(errors) => {
            let source = String::from_utf8_lossy(&dockerfile.text);
            for error in errors {
                printer.note(kiln_frontend::error::render(error, &dockerfile.name, &source));
            }
        }
        Failure::Solve(SolveError::Step { name, locations, log_tail, error }) => {
            if !log_tail.is_empty() && !matches!(**error, StepError::Cancelled) {
                printer.note(log(name, log_tail));
            }
            if let Some(place) = locations.first() {
                let lines = (place.start as usize, place.end as usize);
                printer.note(excerpt(dockerfile, lines));
            }
            let error = anyhow::Error::msg(causes(error));
            printer.error(&error.context("failed to solve"));
        }
        Failure::Solve(error) => printer.error(&anyhow::Error::msg(causes(error))),
        Failure::Other(error) => printer.error(error),
    }
}

/// Returns the end of a step's output below its name.
fn log(name: &str, tail: &[u8]) -> String {
    let lines: Vec<String> =
        tail.split(|&byte| byte == b'\n').map(|line| clean(line.trim_ascii_end())).collect();
    let end = lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
    let shown = &lines[end.saturating_sub(LOG_LINES)..end];
    let rule = "------";
    format!("{rule}\n > {}:\n{}\n{rule}", clean(name.as_bytes()), shown.join("\n"))
}

/// Returns the lines from `start` to `end`, counted from 1, and a few around them, with a mark at
/// those that are meant.
fn excerpt(dockerfile: &Dockerfile, (start, end): (usize, usize)) -> String {
    let text = String::from_utf8_lossy(&dockerfile.text);
    let rule = "--------------------";
    let first = start.saturating_sub(MARGIN).max(1);
    let lines = text.lines().enumerate().skip(first - 1).take(end + MARGIN + 1 - first);
    let shown = lines.map(|(index, line)| {
        let number = index + 1;
        let mark = if (start..=end).contains(&number) { ">>>" } else { "   " };
        format!("{number:4} | {mark} {}", clean(line.as_bytes()))
    });
    let shown = shown.collect::<Vec<_>>().join("\n");
    format!("{}:{start}\n{rule}\n{shown}\n{rule}", dockerfile.name)
}

/// Returns an error and its causes on one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}

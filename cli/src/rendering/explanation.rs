//! The text format of an explanation.

use std::fmt::Write;

use kiln::explain::{Cause, Change, ExplainedStep, Explanation, FileChange};
use kiln::records::StepStatus;

/// The most characters of a value that a cause shows.
const LONGEST: usize = 100;

/// Returns an explanation as lines of text.
pub(crate) fn text(explanation: &Explanation) -> String {
    let mut text = String::new();
    if explanation.steps.is_empty() {
        text.push_str(match explanation.compared_with {
            Some(_) => "no step is different",
            None => "no step ran: everything was known",
        });
        return text;
    }
    let heading = match &explanation.compared_with {
        Some(build) => format!("what is different from build {build}:"),
        None => "why steps ran:".to_owned(),
    };
    text.push_str(&heading);
    for step in &explanation.steps {
        let _ = write!(text, "\n{}", step_text(step));
    }
    text
}

fn step_text(step: &ExplainedStep) -> String {
    let known = match step.status {
        StepStatus::Cached => " (known)",
        StepStatus::Failed => " (failed)",
        StepStatus::Canceled => " (canceled)",
        _ => "",
    };
    let name = step.name.replace('\n', " ");
    let mut text = format!("  {name}{known}");
    // If the step itself has changed, its inputs are omitted: they have lines of their own.
    let is_own = |cause: &&Cause| !matches!(cause, Cause::Step { instead_of: None, .. });
    let has_own = step.causes.iter().any(|cause| is_own(&cause));
    for cause in step.causes.iter().filter(|cause| !has_own || is_own(cause)) {
        let _ = write!(text, "\n      {}", cause_text(cause).replace('\n', " "));
    }
    text
}

/// Returns a cause as a line of text.
fn cause_text(cause: &Cause) -> String {
    match cause {
        Cause::NeverBuilt => "never built".to_owned(),
        Cause::Unknown => "what it was made of before is not known any more".to_owned(),
        Cause::NoCache { option } => format!("asked for by {option}"),
        Cause::Fresh { step } => format!("made anew from {}", shortened(step)),
        Cause::Ephemeral { step } => {
            format!("made of {}, which is looked at in each build", shortened(step))
        }
        Cause::Pruned { at } => format!("pruned on {at}"),
        Cause::Lost { at: Some(at) } => format!("its result was lost, as was found on {at}"),
        Cause::Lost { at: None } => "its result was lost".to_owned(),
        Cause::Unfinished { build, status } => {
            format!("it has {} in build {build}", was(status))
        }
        Cause::Instruction { old, new } => {
            let (old, new) = differing(old, new);
            format!("instruction: {old} → {new}")
        }
        Cause::Base { old_image, old, image, new } if old_image == image => {
            format!("base image {image}: {old} → {new}")
        }
        Cause::Base { old_image, old, image, new } => {
            format!("base image: {old_image}@{old} → {image}@{new}")
        }
        Cause::BuildArgument(change) => change_text(change, "build argument"),
        Cause::Variable(change) => change_text(change, "variable"),
        Cause::Property(change) => change_text(change, ""),
        Cause::File { path, from, change } => {
            format!("file {path}: {} (in {})", file_text(change), shortened(from))
        }
        Cause::MoreFiles { count, from } => {
            let files = if *count == 1 { "file" } else { "files" };
            format!("and {count} more {files} (in {})", shortened(from))
        }
        Cause::Content { from } => format!("what it reads has changed (in {})", shortened(from)),
        Cause::Step { step, instead_of: None } => format!("follows from {}", shortened(step)),
        Cause::Step { step, instead_of: Some(old) } => {
            format!("stands on {} instead of {}", shortened(step), shortened(old))
        }
        Cause::Inputs { old, new } => format!("it reads {new} inputs instead of {old}"),
        Cause::Added => "not there before".to_owned(),
        Cause::Removed => "not there any more".to_owned(),
    }
}

fn was(status: &str) -> String {
    if status == "failed" { "failed".to_owned() } else { format!("been {status}") }
}

/// Returns the change of a value as text. `what` names the kind of value.
fn change_text(change: &Change, what: &str) -> String {
    let name = &change.name;
    let name = if what.is_empty() { name.clone() } else { format!("{what} {name}") };
    match (&change.old, &change.new) {
        (Some(old), Some(new)) if old == new => {
            format!("{name} has another value, which is not kept")
        }
        (Some(old), Some(new)) => {
            let (old, new) = differing(old, new);
            format!("{name}: {old} → {new}")
        }
        (None, Some(new)) => format!("{name}: not there before, now {}", shortened(new)),
        (Some(old), None) => format!("{name}: was {}, not there any more", shortened(old)),
        (None, None) => format!("{name} is different"),
    }
}

fn file_text(change: &FileChange) -> String {
    match change {
        FileChange::Added => "added".to_owned(),
        FileChange::NoLongerIgnored => "no longer ignored".to_owned(),
        FileChange::Removed => "removed".to_owned(),
        FileChange::Ignored => "ignored now".to_owned(),
        FileChange::Content { old, new } if old == new => "content changed".to_owned(),
        FileChange::Content { old, new } => format!("content changed ({old} → {new} bytes)"),
        FileChange::Mode { old, new } => format!("mode {old} → {new}"),
        FileChange::Owner { old, new } => format!("owner {old} → {new}"),
        FileChange::Type { old, new } => format!("type {old} → {new}"),
        FileChange::Target { old, new } => format!("link {old} → {new}"),
        FileChange::Device { old, new } => format!("device {old} → {new}"),
        FileChange::Capability => "capabilities changed".to_owned(),
    }
}

/// Returns the first lines in which two texts differ.
fn differing(old: &str, new: &str) -> (String, String) {
    let (mut old_lines, mut new_lines) = (old.lines(), new.lines());
    loop {
        match (old_lines.next(), new_lines.next()) {
            (Some(old), Some(new)) if old == new => {}
            (None, None) => return (shortened(old), shortened(new)),
            (old, new) => {
                let shown = |line: Option<&str>| shortened(line.unwrap_or_default().trim());
                return around(&shown(old), &shown(new));
            }
        }
    }
}

/// Shows an empty text as `""`.
fn around(old: &str, new: &str) -> (String, String) {
    let quoted = |text: &str| if text.is_empty() { "\"\"".to_owned() } else { text.to_owned() };
    (quoted(old), quoted(new))
}

fn shortened(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= LONGEST {
        return line.to_owned();
    }
    line.chars().take(LONGEST - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_in_a_line() {
        let change = |old: Option<&str>, new: Option<&str>| Change {
            name: "V".to_owned(),
            old: old.map(str::to_owned),
            new: new.map(str::to_owned),
        };
        let file =
            |change| Cause::File { path: "a".to_owned(), from: "context".to_owned(), change };
        let owned = str::to_owned;
        let (old, new) = (owned("RUN <<E\na\nb\nE"), owned("RUN <<E\na\nc\nE"));
        for (cause, text) in [
            (Cause::Variable(change(Some("1"), Some("2"))), "variable V: 1 → 2"),
            (Cause::Variable(change(Some(""), Some("2"))), "variable V: \"\" → 2"),
            (Cause::Variable(change(None, Some("2"))), "variable V: not there before, now 2"),
            (
                Cause::BuildArgument(change(Some("***"), Some("***"))),
                "build argument V has another value, which is not kept",
            ),
            (Cause::Property(change(Some("1"), None)), "V: was 1, not there any more"),
            (Cause::Instruction { old, new }, "instruction: b → c"),
            (
                file(FileChange::Mode { old: owned("644"), new: owned("664") }),
                "file a: mode 644 → 664 (in context)",
            ),
            (file(FileChange::Content { old: 1, new: 1 }), "file a: content changed (in context)"),
            (
                Cause::Unfinished { build: owned("x"), status: "canceled" },
                "it has been canceled in build x",
            ),
            (Cause::Pruned { at: owned("1970-01-01") }, "pruned on 1970-01-01"),
        ] {
            assert_eq!(cause_text(&cause), text);
        }
    }
}

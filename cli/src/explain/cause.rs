//! Why a step ran.

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::recipe::Value;

/// How dates are shown.
const DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
/// The longest value that is shown whole, in characters.
const LONGEST: usize = 100;

/// Why a step ran, or what is different about it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Cause {
    /// Nobody has run it before, as far as is known.
    NeverBuilt,
    /// What it was made of before isn't known any more.
    Unknown,
    /// It was to run in any case.
    NoCache {
        /// The option that says so.
        option: &'static str,
    },
    /// It is made of something that was to run in any case.
    Fresh {
        /// The step that it is made of.
        step: String,
    },
    /// It is made of something that is looked at in each build, and has no key of its own.
    Ephemeral {
        /// The step that it is made of.
        step: String,
    },
    /// Its result was known, and was removed.
    Pruned {
        /// When.
        at: String,
    },
    /// Its result was known, and part of it was gone or damaged.
    Lost {
        /// When that was found.
        #[serde(skip_serializing_if = "Option::is_none")]
        at: Option<String>,
    },
    /// It was run like this, and has not come to an end.
    Unfinished {
        /// The build.
        build: String,
        /// What has become of it: `failed` or `canceled`.
        status: &'static str,
    },
    /// The instruction is another one.
    Instruction {
        /// What it was.
        old: String,
        /// What it is.
        new: String,
    },
    /// The base image is another one.
    Base {
        /// The image that it was.
        old_image: String,
        /// Its digest.
        old: String,
        /// The image that it is.
        image: String,
        /// Its digest.
        new: String,
    },
    /// A build argument has another value.
    BuildArgument(Change),
    /// A variable has another value, by `ENV` or `ARG`.
    Variable(Change),
    /// Something else of the step has another value.
    Property(Change),
    /// A file that it reads is another one.
    File {
        /// Where it is in what it is read from.
        path: String,
        /// What it is read from: a context or a step.
        from: String,
        /// What is different.
        change: FileChange,
    },
    /// Further files that it reads are others.
    MoreFiles {
        /// How many.
        count: usize,
        /// What they are read from.
        from: String,
    },
    /// What it reads of an input has changed, and which file isn't known.
    Content {
        /// What it is read from.
        from: String,
    },
    /// A step that it is built on has another result, or is another one.
    Step {
        /// The step.
        step: String,
        /// The step that stood there before, where it is another one.
        #[serde(skip_serializing_if = "Option::is_none")]
        instead_of: Option<String>,
    },
    /// It has more or fewer inputs.
    Inputs {
        /// How many it had.
        old: usize,
        /// How many it has.
        new: usize,
    },
    /// It is in one of two builds only.
    Added,
    /// It was in the earlier of two builds only.
    Removed,
}

/// Something that has another value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Change {
    /// Its name.
    pub(crate) name: String,
    /// What it was; none where it wasn't there.
    pub(crate) old: Option<String>,
    /// What it is; none where it isn't there.
    pub(crate) new: Option<String>,
}

/// What is different about a file.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub(crate) enum FileChange {
    /// It wasn't there.
    Added,
    /// It was excluded by an ignore file.
    NoLongerIgnored,
    /// It is gone.
    Removed,
    /// An ignore file excludes it.
    Ignored,
    /// It holds something else.
    Content {
        /// Its size in bytes.
        old: u64,
        /// Its size now.
        new: u64,
    },
    /// Its permission bits, in octal.
    Mode {
        /// What they were.
        old: String,
        /// What they are.
        new: String,
    },
    /// User and group, as `0:0`.
    Owner {
        /// Who it was.
        old: String,
        /// Who it is.
        new: String,
    },
    /// Its type.
    Type {
        /// What it was.
        old: &'static str,
        /// What it is.
        new: &'static str,
    },
    /// Where the link leads.
    Target {
        /// Where it led.
        old: String,
        /// Where it leads.
        new: String,
    },
    /// The device's numbers, as `1:3`.
    Device {
        /// What they were.
        old: String,
        /// What they are.
        new: String,
    },
    /// Its capabilities (`security.capability`).
    Capability,
}

impl Change {
    /// Tells of two values that are different.
    pub(super) fn new(name: &str, old: Option<&Value>, new: Option<&Value>) -> Self {
        let shown = |value: Option<&Value>| value.map(|value| value.shown.clone());
        Self { name: name.to_owned(), old: shown(old), new: shown(new) }
    }

    fn text(&self, what: &str) -> String {
        let name = &self.name;
        let name = if what.is_empty() { name.clone() } else { format!("{what} {name}") };
        match (&self.old, &self.new) {
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
}

impl Cause {
    /// Returns it for people, in a line.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::NeverBuilt => "never built".to_owned(),
            Self::Unknown => "what it was made of before is not known any more".to_owned(),
            Self::NoCache { option } => format!("asked for by {option}"),
            Self::Fresh { step } => format!("made anew from {}", shortened(step)),
            Self::Ephemeral { step } => {
                format!("made of {}, which is looked at in each build", shortened(step))
            }
            Self::Pruned { at } => format!("pruned on {at}"),
            Self::Lost { at: Some(at) } => format!("its result was lost, as was found on {at}"),
            Self::Lost { at: None } => "its result was lost".to_owned(),
            Self::Unfinished { build, status } => {
                format!("it has {} in build {build}", was(status))
            }
            Self::Instruction { old, new } => {
                let (old, new) = differing(old, new);
                format!("instruction: {old} → {new}")
            }
            Self::Base { old_image, old, image, new } if old_image == image => {
                format!("base image {image}: {old} → {new}")
            }
            Self::Base { old_image, old, image, new } => {
                format!("base image: {old_image}@{old} → {image}@{new}")
            }
            Self::BuildArgument(change) => change.text("build argument"),
            Self::Variable(change) => change.text("variable"),
            Self::Property(change) => change.text(""),
            Self::File { path, from, change } => {
                format!("file {path}: {} (in {})", change.text(), shortened(from))
            }
            Self::MoreFiles { count, from } => {
                let files = if *count == 1 { "file" } else { "files" };
                format!("and {count} more {files} (in {})", shortened(from))
            }
            Self::Content { from } => format!("what it reads has changed (in {})", shortened(from)),
            Self::Step { step, instead_of: None } => format!("follows from {}", shortened(step)),
            Self::Step { step, instead_of: Some(old) } => {
                format!("stands on {} instead of {}", shortened(step), shortened(old))
            }
            Self::Inputs { old, new } => format!("it reads {new} inputs instead of {old}"),
            Self::Added => "not there before".to_owned(),
            Self::Removed => "not there any more".to_owned(),
        }
    }
}

fn was(status: &str) -> String {
    if status == "failed" { "failed".to_owned() } else { format!("been {status}") }
}

impl FileChange {
    fn text(&self) -> String {
        match self {
            Self::Added => "added".to_owned(),
            Self::NoLongerIgnored => "no longer ignored".to_owned(),
            Self::Removed => "removed".to_owned(),
            Self::Ignored => "ignored now".to_owned(),
            Self::Content { old, new } if old == new => "content changed".to_owned(),
            Self::Content { old, new } => format!("content changed ({old} → {new} bytes)"),
            Self::Mode { old, new } => format!("mode {old} → {new}"),
            Self::Owner { old, new } => format!("owner {old} → {new}"),
            Self::Type { old, new } => format!("type {old} → {new}"),
            Self::Target { old, new } => format!("link {old} → {new}"),
            Self::Device { old, new } => format!("device {old} → {new}"),
            Self::Capability => "capabilities changed".to_owned(),
        }
    }
}

/// Returns a time as dates are shown.
pub(super) fn date(nanoseconds: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds.into()).ok();
    time.and_then(|time| time.format(DATE).ok()).unwrap_or_default()
}

/// Returns two texts that are different in a line each; of several lines the first that is.
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

/// Quotes what would be invisible.
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
            (Cause::Pruned { at: date(0) }, "pruned on 1970-01-01 00:00:00 UTC"),
        ] {
            assert_eq!(cause.text(), text);
        }
    }
}

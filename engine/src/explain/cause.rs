//! The causes of a step's run.

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::recipe::Value;

/// The format of dates in causes.
const DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
/// The most characters of a value that a cause shows.
const LONGEST: usize = 100;

/// The reason why a step ran, or a difference between two builds of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Cause {
    /// No recorded build has run it before.
    NeverBuilt,
    /// The parts of its earlier key aren't recorded any more.
    Unknown,
    /// The user disabled the cache for it.
    NoCache {
        /// The option that disables the cache.
        option: &'static str,
    },
    /// An input of it ran without the cache.
    Fresh {
        /// The name of the input's step.
        step: String,
    },
    /// An input of it is read anew in each build and has no cache key.
    Ephemeral {
        /// The name of the input's step.
        step: String,
    },
    /// Its result was cached and then pruned.
    Pruned {
        /// The time of the removal.
        at: String,
    },
    /// Its result was cached, and a part of it was missing or damaged.
    Lost {
        /// The time at which kiln noticed the damage.
        #[serde(skip_serializing_if = "Option::is_none")]
        at: Option<String>,
    },
    /// A build with the same key ran it without finishing it.
    Unfinished {
        /// The ID of that build.
        build: String,
        /// The step's status in that build: `failed` or `canceled`.
        status: &'static str,
    },
    /// Its instruction has changed.
    Instruction {
        /// The earlier instruction.
        old: String,
        /// The current instruction.
        new: String,
    },
    /// Its base image has changed.
    Base {
        /// The name of the earlier image.
        old_image: String,
        /// The digest of the earlier image.
        old: String,
        /// The name of the current image.
        image: String,
        /// The digest of the current image.
        new: String,
    },
    /// A build argument has another value.
    BuildArgument(Change),
    /// A variable of `ENV` or `ARG` has another value.
    Variable(Change),
    /// Another property of the step has another value.
    Property(Change),
    /// A file that it reads has changed.
    File {
        /// The path of the file in its source.
        path: String,
        /// The source of the file: a context or a step.
        from: String,
        /// The file's difference.
        change: FileChange,
    },
    /// Further files that it reads have changed.
    MoreFiles {
        /// The number of files.
        count: usize,
        /// The source of the files.
        from: String,
    },
    /// Its files from an input have changed, and kiln doesn't know which.
    Content {
        /// The source of the files.
        from: String,
    },
    /// A step that it depends on has another result or was replaced.
    Step {
        /// The name of that step.
        step: String,
        /// The earlier step, if it was replaced.
        #[serde(skip_serializing_if = "Option::is_none")]
        instead_of: Option<String>,
    },
    /// The number of its inputs has changed.
    Inputs {
        /// The earlier number of inputs.
        old: usize,
        /// The current number of inputs.
        new: usize,
    },
    /// Only the later of two builds has it.
    Added,
    /// Only the earlier of two builds has it.
    Removed,
}

/// A named value that has changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// The name of the value.
    pub name: String,
    /// The earlier value; `None` if it is new.
    pub old: Option<String>,
    /// The current value; `None` if it was removed.
    pub new: Option<String>,
}

/// A difference between two versions of a file.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum FileChange {
    /// The file is new.
    Added,
    /// An ignore file no longer excludes the file.
    NoLongerIgnored,
    /// The file was removed.
    Removed,
    /// An ignore file now excludes the file.
    Ignored,
    /// The contents differ.
    Content {
        /// The earlier size in bytes.
        old: u64,
        /// The current size in bytes.
        new: u64,
    },
    /// The permission bits differ. They are octal numbers.
    Mode {
        /// The earlier bits.
        old: String,
        /// The current bits.
        new: String,
    },
    /// The owner differs. Owners are user and group IDs such as `0:0`.
    Owner {
        /// The earlier owner.
        old: String,
        /// The current owner.
        new: String,
    },
    /// The file types differ.
    Type {
        /// The earlier type.
        old: &'static str,
        /// The current type.
        new: &'static str,
    },
    /// The targets of the symbolic link differ.
    Target {
        /// The earlier target.
        old: String,
        /// The current target.
        new: String,
    },
    /// The device numbers differ. They are major and minor numbers such as `1:3`.
    Device {
        /// The earlier numbers.
        old: String,
        /// The current numbers.
        new: String,
    },
    /// The file capabilities (`security.capability`) differ.
    Capability,
}

impl Change {
    /// Returns the change of a value.
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
    /// Returns the cause as a line of text.
    pub fn text(&self) -> String {
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

/// Formats a time in nanoseconds since 1970.
pub(super) fn date(nanoseconds: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds.into()).ok();
    time.and_then(|time| time.format(DATE).ok()).unwrap_or_default()
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
            (Cause::Pruned { at: date(0) }, "pruned on 1970-01-01 00:00:00 UTC"),
        ] {
            assert_eq!(cause.text(), text);
        }
    }
}

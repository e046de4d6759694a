//! The causes of a step's run.

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::recipe::Value;

/// The format of dates in causes.
const DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");

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
}

/// Formats a time in nanoseconds since 1970.
pub(super) fn date(nanoseconds: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds.into()).ok();
    time.and_then(|time| time.format(DATE).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_in_utc() {
        assert_eq!(date(0), "1970-01-01 00:00:00 UTC");
    }
}

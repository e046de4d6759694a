//! What is remembered of a build.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use kiln_oci::Digest;
use kiln_store::{BuildRow, Removal, RemovalReason};
use serde::{Deserialize, Serialize};

/// A build, but for what has a column of its own. Nothing in it is a credential.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct BuildRecord {
    /// The command, for a shell.
    pub(crate) command: String,
    /// The context: a directory, a URL, or `-`.
    pub(crate) context: String,
    /// The Dockerfile, where it isn't the context's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dockerfile: Option<String>,
    /// The stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
    /// The stages whose steps run in any case; all where it is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) no_cache: Option<Vec<String>>,
    /// Build arguments; those that look like credentials without their values.
    pub(crate) build_args: BTreeMap<String, Option<String>>,
    /// The IDs of secrets.
    pub(crate) secrets: Vec<String>,
    /// The IDs of SSH agents.
    pub(crate) ssh: Vec<String>,
    /// The names that the image was to have.
    pub(crate) tags: Vec<String>,
    /// The digest of the image config.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image_id: Option<String>,
    /// Why the build has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// What was to be told.
    pub(crate) warnings: Vec<String>,
    /// How many steps there were that can be known.
    pub(crate) total_steps: usize,
    /// How many of them were.
    pub(crate) cached_steps: usize,
    /// The steps in the order in which they were first heard of.
    pub(crate) steps: Vec<StepRecord>,
}

/// A step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct StepRecord {
    /// The number that it was shown with; zero for one that never began.
    pub(crate) number: u32,
    /// Its name.
    pub(crate) name: String,
    /// The digest of its op; none for a step outside of the graph.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<String>,
    /// How it stands.
    pub(crate) status: StepStatus,
    /// When it began, in milliseconds since the build did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started_ms: Option<u64>,
    /// How long it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) duration_ms: Option<u64>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// How many bytes it has printed.
    pub(crate) log_bytes: u64,
    /// What its cache key says; none of a step that never had one, as the reading of a context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) made_of: Option<MadeOf>,
}

/// What a step's cache key says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MadeOf {
    /// The canonical key.
    pub(crate) key: Digest,
    /// Where the steps stand in the record that make the inputs.
    pub(crate) inputs: Vec<usize>,
    /// Whether the result was looked up.
    #[serde(default, skip_serializing_if = "LookupRecord::is_asked")]
    pub(crate) lookup: LookupRecord,
    /// Where the step stands because of which it wasn't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) because: Option<usize>,
    /// Whether an earlier build had the same key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) seen: bool,
    /// That the result was removed before the step ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) removed: Option<RemovalRecord>,
}

/// Whether a result was looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LookupRecord {
    /// It was.
    #[default]
    Asked,
    /// The step was to run in any case.
    Ignored,
    /// Another step was, which this one is made of.
    Fresh,
    /// Another step has no key of its own, which this one is made of.
    Ephemeral,
}

impl LookupRecord {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    fn is_asked(&self) -> bool {
        *self == Self::Asked
    }
}

/// How a result came to be gone, and when that was found, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RemovalRecord {
    /// To make room, or because its user wanted it.
    Pruned(i64),
    /// Part of it was gone or damaged.
    Lost(i64),
}

impl From<Removal> for RemovalRecord {
    fn from(removal: Removal) -> Self {
        match removal.reason {
            RemovalReason::Pruned => Self::Pruned(removal.at),
            RemovalReason::Lost => Self::Lost(removal.at),
        }
    }
}

/// How a step stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StepStatus {
    /// It was never heard of again.
    #[default]
    Pending,
    /// It runs.
    Running,
    /// Its result was known.
    Cached,
    /// It has done its work.
    Completed,
    /// It has failed.
    Failed,
    /// It was stopped.
    Canceled,
}

impl StepStatus {
    /// Tells whether the step has begun to work.
    pub(crate) fn has_run(self) -> bool {
        !matches!(self, Self::Pending | Self::Cached)
    }

    /// Returns its name as progress shows it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Cached => "CACHED",
            Self::Completed => "DONE",
            Self::Failed => "ERROR",
            Self::Canceled => "CANCELED",
        }
    }
}

impl BuildRecord {
    /// Reads what a row holds.
    pub(crate) fn of(row: &BuildRow) -> Result<Self> {
        serde_json::from_str(&row.record)
            .with_context(|| format!("the record of build {} is damaged", row.id))
    }

    /// Returns how many steps were known, of how many.
    pub(crate) fn counts(&self) -> (usize, usize) {
        if self.total_steps > 0 {
            return (self.cached_steps, self.total_steps);
        }
        // A build that has made nothing counts what it has come to.
        let steps = || self.steps.iter().filter(|step| step.digest.is_some());
        (steps().filter(|step| step.status == StepStatus::Cached).count(), steps().count())
    }

    /// Returns a step by its number, or by how its digest begins.
    pub(crate) fn step(&self, text: &str) -> Result<&StepRecord> {
        let number: Option<u32> = text.trim_start_matches('#').parse().ok();
        let digest = |step: &&StepRecord| {
            let digest = step.digest.as_deref().unwrap_or_default();
            text.len() >= 6
                && (digest.starts_with(text) || digest[7.min(digest.len())..].starts_with(text))
        };
        let by_number = self.steps.iter().find(|step| number == Some(step.number));
        by_number
            .or_else(|| self.steps.iter().find(digest))
            .with_context(|| format!("the build has no step {text:?}"))
    }
}

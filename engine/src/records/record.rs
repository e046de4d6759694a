//! The record of a build, which the store keeps as JSON.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use kiln_oci::Digest;
use kiln_store::{BuildRow, Removal, RemovalReason};
use serde::{Deserialize, Serialize};

/// The properties of a build that have no column of their own. Contains no credentials.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildRecord {
    /// The command line, quoted for a shell.
    pub command: String,
    /// The context: a directory, a URL, or `-`.
    pub context: String,
    /// The Dockerfile; `None` for the context's default one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    /// The stage that was built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The stages whose steps didn't use the cache; an empty list means all stages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_cache: Option<Vec<String>>,
    /// The build arguments. Those that look like credentials have no value.
    pub build_args: BTreeMap<String, Option<String>>,
    /// The IDs of secrets.
    pub secrets: Vec<String>,
    /// The IDs of SSH agents.
    pub ssh: Vec<String>,
    /// The names of the image.
    pub tags: Vec<String>,
    /// The digest of the image config.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// The error of a failed build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Warnings of the build and of the build checks.
    pub warnings: Vec<String>,
    /// The number of steps that can be cached.
    pub total_steps: usize,
    /// The number of steps whose results came from the cache.
    pub cached_steps: usize,
    /// The steps in the order of their first events.
    pub steps: Vec<StepRecord>,
}

/// The record of a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The number in the build's output; zero if the step never started.
    pub number: u32,
    /// The step's name, without credentials.
    pub name: String,
    /// The digest of the step's op; `None` for a step outside the graph.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The step's last known status.
    pub status: StepStatus,
    /// The time of the start, in milliseconds after the build's start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<u64>,
    /// The duration in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// The error of a failed step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The number of bytes of output.
    pub log_bytes: u64,
    /// The step's cache key; `None` for a step without one, such as the reading of a context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_of: Option<MadeOf>,
}

/// A step's cache key and its lookup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MadeOf {
    /// The canonical key.
    pub key: Digest,
    /// The indexes in the record of the steps that produce the inputs.
    pub inputs: Vec<usize>,
    /// The lookup of the result in the cache.
    #[serde(default, skip_serializing_if = "LookupRecord::is_asked")]
    pub lookup: LookupRecord,
    /// The index of the step that prevented the lookup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<usize>,
    /// `true` if an earlier build had the same key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub seen: bool,
    /// The removal of the result before the step ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<RemovalRecord>,
}

/// The lookup of a result in the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LookupRecord {
    /// The cache was searched.
    #[default]
    Asked,
    /// The user disabled the cache for the step.
    Ignored,
    /// An input ran without the cache.
    Fresh,
    /// An input has no cache key.
    Ephemeral,
}

impl LookupRecord {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    fn is_asked(&self) -> bool {
        *self == Self::Asked
    }
}

/// The reason for a result's removal, and its time in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RemovalRecord {
    /// The result was evicted, or the user removed it.
    Pruned(i64),
    /// A part of the result was missing or damaged.
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

/// The status of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepStatus {
    /// No further event was recorded.
    #[default]
    Pending,
    /// The step is running.
    Running,
    /// The result came from the cache.
    Cached,
    /// The step succeeded.
    Completed,
    /// The step failed.
    Failed,
    /// The build stopped the step.
    Canceled,
}

impl StepStatus {
    /// Returns `true` if the step has started to run.
    pub fn has_run(self) -> bool {
        !matches!(self, Self::Pending | Self::Cached)
    }

    /// Returns the status in the words of the progress display.
    pub fn word(self) -> &'static str {
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
    /// Parses the record of a row.
    pub fn of(row: &BuildRow) -> Result<Self> {
        serde_json::from_str(&row.record)
            .with_context(|| format!("the record of build {} is damaged", row.id))
    }

    /// Returns the number of cached steps and the number of all steps.
    pub fn counts(&self) -> (usize, usize) {
        if self.total_steps > 0 {
            return (self.cached_steps, self.total_steps);
        }
        // The record of a build without a result has no totals, so count its steps.
        let steps = || self.steps.iter().filter(|step| step.digest.is_some());
        (steps().filter(|step| step.status == StepStatus::Cached).count(), steps().count())
    }

    /// Returns the step with a number, or with a prefix of its digest of at least six characters.
    pub fn step(&self, text: &str) -> Result<&StepRecord> {
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

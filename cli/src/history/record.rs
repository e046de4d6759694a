//! What is remembered of a build.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use kiln_store::BuildRow;
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

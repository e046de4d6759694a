//! What is wrong with configuration that isn't kiln's own.
//!
//! Files of docker, podman and containerd are theirs to judge: one that kiln can't read doesn't end a
//! command. But what it says is lost then, and whoever relies on it has to know.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where warnings go; nowhere by default. Cheap to clone.
#[derive(Clone, Default)]
pub struct Warnings(Option<Arc<dyn Fn(String) + Send + Sync>>);

impl Warnings {
    /// Has warnings go to `report`.
    pub fn to(report: impl Fn(String) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(report)))
    }

    /// Warns that a file is not taken into account.
    pub fn ignored(&self, path: &Path, problem: &dyn fmt::Display) {
        self.warn(format!("{}: {problem}; the file is ignored", path.display()));
    }

    /// Warns.
    pub(crate) fn warn(&self, text: String) {
        if let Some(report) = &self.0 {
            report(text);
        }
    }
}

impl fmt::Debug for Warnings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Warnings")
    }
}

/// Says what is wrong with JSON, with its line, and without quoting it: it may hold credentials.
pub fn json_problem(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    if error.is_data() {
        return format!("not the expected values at line {line} column {column}");
    }
    format!("invalid JSON: {error}")
}

//! Warnings about the configuration files of other tools.
//!
//! docker, podman and containerd own their files, so one that kiln can't read doesn't fail a
//! command. But its settings are ignored then, and the user must know that.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// The receiver of warnings. By default, warnings are dropped. Cloning is cheap.
#[derive(Clone, Default)]
pub struct Warnings(Option<Arc<dyn Fn(String) + Send + Sync>>);

impl Warnings {
    /// Creates a receiver that calls `report` with each warning.
    pub fn to(report: impl Fn(String) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(report)))
    }

    /// Warns that a file is ignored, and why.
    pub fn ignored(&self, path: &Path, problem: &dyn fmt::Display) {
        self.warn(format!("{}: {problem}; the file is ignored", path.display()));
    }

    /// Sends a warning to the receiver, if any.
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

/// Returns the message of a JSON error with its line and column. It doesn't quote the JSON, which
/// may contain credentials.
pub fn json_problem(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    if error.is_data() {
        return format!("not the expected values at line {line} column {column}");
    }
    format!("invalid JSON: {error}")
}

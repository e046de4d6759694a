//! The source policy of a build, which an environment variable names as for buildx.

#![expect(clippy::disallowed_methods, reason = "the user names the file")]

use anyhow::{Context as _, Result};
use kiln_worker::{SourcePolicies, SourcePolicy};

use super::super::variable;

/// The environment variable with the path of the policy's file.
const VARIABLE: &str = "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY";

/// Reads the source policy that the environment names. There is no policy without the variable.
pub(super) fn source_policies() -> Result<SourcePolicies> {
    let Some(path) = variable(VARIABLE).filter(|path| !path.is_empty()) else {
        return Ok(SourcePolicies::default());
    };
    let failed = || format!("{VARIABLE}: read the source policy {}", path.display());
    let text = std::fs::read(&path).with_context(failed)?;
    let policy: SourcePolicy = serde_json::from_slice(&text).with_context(failed)?;
    SourcePolicies::new(vec![policy]).with_context(failed)
}

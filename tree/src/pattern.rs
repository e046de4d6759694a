//! Dockerignore patterns, with the exact semantics of moby's pattern matcher.

use crate::error::Result;

/// A list of patterns; the last that matches decides, `!` negates, `**` spans directories.
#[derive(Clone, Debug, Default)]
pub struct PatternMatcher {}

impl PatternMatcher {
    /// Compiles patterns.
    ///
    /// # Errors
    /// Fails on the first malformed pattern.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self> {
        let _ = patterns;
        todo!()
    }

    /// Tells whether `path` (relative, slashes) or one of its parents matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        let _ = path;
        todo!()
    }
}

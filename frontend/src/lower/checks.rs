//! Build checks that fire while instructions are lowered.

use crate::error::{Error, Span};
use crate::lint::{Finding, Linter, Warning};

/// The enabled checks and the warnings so far.
#[derive(Debug, Default)]
pub(super) struct Checks {
    linter: Linter,
    /// The linter of the current instruction, if comments in front of it change the settings.
    narrowed: Option<Linter>,
    warnings: Vec<Warning>,
}

impl Checks {
    /// Begins with the warnings of the parser.
    pub(super) fn new(linter: Linter, warnings: Vec<Warning>) -> Self {
        Self { linter, narrowed: None, warnings }
    }

    /// Applies the comments in front of an instruction, until the next call.
    pub(super) fn enter(&mut self, comments: &[String]) {
        self.narrowed = (!comments.is_empty()).then(|| self.linter.with_comments(comments));
    }

    /// Records a finding if its check is enabled.
    pub(super) fn report(&mut self, finding: Finding, span: Option<Span>) {
        let linter = self.narrowed.as_ref().unwrap_or(&self.linter);
        linter.report(&mut self.warnings, finding, span);
    }

    /// Returns the error for the warnings if the settings treat warnings as errors.
    pub(super) fn error(&self) -> Option<Error> {
        self.linter.error(&self.warnings)
    }

    /// Returns the warnings in the order in which they were reported.
    pub(super) fn into_warnings(self) -> Vec<Warning> {
        self.warnings
    }
}

/// Returns `true` if a variable's name suggests that it holds a secret.
pub(super) fn is_secret(name: &str) -> bool {
    let has = |words: &[&str]| {
        name.split('_').any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)))
    };
    has(&[
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ]) && !has(&["public", "file", "version"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_have_telling_names() {
        for name in ["API_KEY", "token", "GITHUB_TOKEN", "secret_MESSAGE", "x_AUTH_y"] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["KEYBOARD", "PUBLIC_KEY", "TOKEN_FILE", "monkey", "AUTH_VERSION", ""] {
            assert!(!is_secret(name), "{name}");
        }
    }
}

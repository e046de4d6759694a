//! Build checks that fire while instructions are lowered.

use crate::error::{Error, Span};
use crate::lint::{Finding, Linter, Warning};

/// The checks that are wanted, and what they found.
#[derive(Debug, Default)]
pub(super) struct Checks {
    linter: Linter,
    /// The linter of the instruction at hand, where comments in front of it say more.
    narrowed: Option<Linter>,
    warnings: Vec<Warning>,
}

impl Checks {
    /// Begins with what parsing found.
    pub(super) fn new(linter: Linter, warnings: Vec<Warning>) -> Self {
        Self { linter, narrowed: None, warnings }
    }

    /// Minds the comments in front of an instruction, until the next.
    pub(super) fn enter(&mut self, comments: &[String]) {
        self.narrowed = (!comments.is_empty()).then(|| self.linter.with_comments(comments));
    }

    /// Takes in what a check found, if it is wanted.
    pub(super) fn report(&mut self, finding: Finding, span: Option<Span>) {
        let linter = self.narrowed.as_ref().unwrap_or(&self.linter);
        linter.report(&mut self.warnings, finding, span);
    }

    /// Returns the error that the warnings amount to, if they are to be errors.
    pub(super) fn error(&self) -> Option<Error> {
        self.linter.error(&self.warnings)
    }

    /// Returns the warnings in the order in which they were found.
    pub(super) fn into_warnings(self) -> Vec<Warning> {
        self.warnings
    }
}

/// Tells whether a variable's name says that it holds a secret.
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

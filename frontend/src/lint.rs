//! Build checks and their configuration.
//!
//! A check that fires yields a [`Finding`]. A [`Linter`] knows the enabled checks and turns
//! findings into [`Warning`]s. The `check` directive, or a build argument in its place, enables and
//! disables checks. A comment `# check=skip=…` in front of an instruction disables checks for that
//! instruction.

mod config;
pub mod rules;

use std::borrow::Cow;

use crate::error::{Error, Span};
use crate::hint::Hint;

pub use config::Config;

/// A build check's name and documentation.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// The rule's name, as `StageNameCasing`.
    pub name: &'static str,
    /// The rule's description, one sentence.
    pub description: &'static str,
    /// The URL of the rule's documentation, or empty.
    pub url: &'static str,
    /// `true` if the rule is off by default.
    pub is_experimental: bool,
}

/// A check that fired, without its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule of the check.
    pub rule: &'static Rule,
    /// The message, which describes the problem.
    pub message: String,
}

/// A check that fired, with its place. Frontends that are programs of images have rules of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The rule's name, as `StageNameCasing`.
    pub rule: Cow<'static, str>,
    /// The rule's description, one sentence.
    pub description: Cow<'static, str>,
    /// The URL of the rule's documentation, or empty.
    pub url: Cow<'static, str>,
    /// The message, which describes the problem.
    pub message: String,
    /// The lines that the warning is about.
    pub spans: Vec<Span>,
}

/// A filter for findings: it knows the enabled checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Linter {
    config: Config,
}

impl Linter {
    /// Returns a linter with the given settings.
    pub fn new(config: Config) -> Self {
        Self { config }
    }

    /// Returns the linter for a Dockerfile's `check` directive.
    ///
    /// # Errors
    /// Fails if the directive is malformed.
    pub fn from_directive(source: &[u8]) -> Result<Self, Error> {
        let value = crate::parser::directive::find("check", source).unwrap_or_default();
        let config = Config::parse(&value)
            .map_err(|error| error.context("failed to parse check options"))?;
        Ok(Self { config })
    }

    /// Returns the linter for the build argument `BUILDKIT_DOCKERFILE_CHECK`.
    ///
    /// # Errors
    /// Fails if the argument's value is malformed.
    pub fn from_build_arg(value: &str) -> Result<Self, Error> {
        let config = Config::parse(value).map_err(|error| {
            error.context("failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK")
        })?;
        Ok(Self { config })
    }

    /// Returns the linter for an instruction with `comments` in front.
    #[must_use]
    pub fn with_comments(&self, comments: &[String]) -> Self {
        let mut linter = self.clone();
        if let Some(Ok(config)) = comments.iter().find_map(|line| config::in_comment(line)) {
            linter.config.merge(config);
        }
        linter
    }

    /// Returns `true` if a check is enabled.
    pub fn wants(&self, rule: &Rule) -> bool {
        let Config { skip_all, skip, experimental_all, experimental, .. } = &self.config;
        let is_named = |names: &[String]| names.iter().any(|name| name == rule.name);
        if rule.is_experimental {
            *experimental_all || is_named(experimental)
        } else {
            !*skip_all && !is_named(skip)
        }
    }

    /// Appends a warning if its check is enabled.
    pub fn report(&self, warnings: &mut Vec<Warning>, finding: Finding, span: Option<Span>) {
        if self.wants(finding.rule) {
            warnings.push(match span {
                Some(span) => finding.at(span),
                None => finding.nowhere(),
            });
        }
    }

    /// Returns the error for `warnings` if the settings treat warnings as errors.
    pub fn error(&self, warnings: &[Warning]) -> Option<Error> {
        if !self.config.is_error || warnings.is_empty() {
            return None;
        }
        let mut names: Vec<&str> = warnings.iter().map(|warning| &*warning.rule).collect();
        names.sort_unstable();
        names.dedup();
        let message = format!("lint violation found for rules: {}", names.join(", "));
        let spans = warnings.iter().flat_map(|warning| warning.spans.iter().copied()).collect();
        let hint = Some(Hint::ChecksAreErrors);
        Some(Error { message, spans, hint, source: None })
    }
}

impl Finding {
    /// Returns the warning for this finding at a place.
    pub fn at(self, span: Span) -> Warning {
        Warning { spans: vec![span], ..self.nowhere() }
    }

    /// Returns the warning for this finding without a place.
    pub fn nowhere(self) -> Warning {
        Warning {
            rule: self.rule.name.into(),
            description: self.rule.description.into(),
            url: self.rule.url.into(),
            message: self.message,
            spans: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips() {
        let linter = Linter::from_build_arg("skip=StageNameCasing, FromAsCasing").unwrap();
        assert!(!linter.wants(&rules::STAGE_NAME_CASING));
        assert!(!linter.wants(&rules::FROM_AS_CASING));
        assert!(linter.wants(&rules::UNDEFINED_VAR));
        assert!(!linter.wants(&rules::INVALID_DEFINITION_DESCRIPTION));
        let all = Linter::from_build_arg("skip=all;experimental=all").unwrap();
        assert!(!all.wants(&rules::UNDEFINED_VAR));
        assert!(all.wants(&rules::INVALID_DEFINITION_DESCRIPTION));
    }

    #[test]
    fn comments_add_to_the_settings() {
        let linter = Linter::from_build_arg("skip=UndefinedVar").unwrap();
        let comments = ["about".to_owned(), "check=skip=FromAsCasing".to_owned()];
        let merged = linter.with_comments(&comments);
        assert!(!merged.wants(&rules::UNDEFINED_VAR));
        assert!(!merged.wants(&rules::FROM_AS_CASING));
        assert!(linter.wants(&rules::FROM_AS_CASING));
        assert_eq!(linter.with_comments(&["check=nonsense".into()]), linter);
    }

    #[test]
    fn warnings_as_errors() {
        let warnings = [
            rules::undefined_var("x", None).at(Span::line(3)),
            rules::from_as_casing("FROM", "as").at(Span::line(1)),
            rules::undefined_var("y", None).at(Span::line(4)),
        ];
        assert_eq!(Linter::default().error(&warnings), None);
        let strict = Linter::from_directive(b"# check=error=true\nFROM x\n").unwrap();
        assert_eq!(strict.error(&[]), None);
        assert_eq!(
            strict.error(&warnings).unwrap().message,
            "lint violation found for rules: FromAsCasing, UndefinedVar"
        );
    }
}

//! The patterns of identifiers.

use regex::{Regex, RegexBuilder};

use super::{MatchType, PolicyError};

/// The maximal size in bytes of a compiled expression, and of the states that a search keeps.
const LARGEST: usize = 1 << 20;

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct Pattern {
    text: String,
    /// The expression. `None` for a pattern that matches only itself.
    regex: Option<Regex>,
    match_type: MatchType,
}

impl Pattern {
    pub(super) fn new(text: String, match_type: MatchType) -> Result<Self, PolicyError> {
        let regex = match match_type {
            MatchType::Exact => None,
            MatchType::Regex => Some(regex(&text)?),
            MatchType::Wildcard if text.contains("**") => return Err(PolicyError::Wildcard(text)),
            MatchType::Wildcard => {
                let parts: Vec<String> = text.split('*').map(regex::escape).collect();
                Some(regex(&format!("^{}$", parts.join("(.*)")))?)
            }
        };
        Ok(Self { text, regex, match_type })
    }

    /// Returns the pattern as written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn matches(&self, identifier: &str) -> bool {
        let matches = |regex: &Regex| regex.is_match(identifier);
        self.text == identifier || self.regex.as_ref().is_some_and(matches)
    }

    /// Returns the new identifier for one that matches.
    pub(super) fn expand(&self, identifier: &str, template: &str) -> String {
        match (self.match_type, &self.regex) {
            (MatchType::Regex, Some(regex)) => regex.replace_all(identifier, template).into_owned(),
            (MatchType::Wildcard, Some(regex)) => {
                let Some(found) = regex.captures(identifier) else { return identifier.to_owned() };
                let mut new = String::new();
                found.expand(template, &mut new);
                new
            }
            _ => template.to_owned(),
        }
    }
}

/// Compiles an expression.
pub(super) fn regex(pattern: &str) -> Result<Regex, PolicyError> {
    let mut builder = RegexBuilder::new(pattern);
    let compiled = builder.size_limit(LARGEST).dfa_size_limit(LARGEST).build();
    compiled.map_err(|source| PolicyError::Regex {
        pattern: pattern.to_owned(),
        source: Box::new(source),
    })
}

//! Build checks.

use crate::error::Span;

/// A build check that fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The rule's name, as `StageNameCasing`.
    pub rule: &'static str,
    /// What the rule is about, in a sentence.
    pub description: &'static str,
    /// Where the rule is documented.
    pub url: &'static str,
    /// What is wrong here.
    pub message: String,
    /// Where.
    pub spans: Vec<Span>,
}

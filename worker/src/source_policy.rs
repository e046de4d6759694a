//! Source policies: rules that allow, deny or replace the sources of graphs.
//!
//! A policy is a list of rules. A rule selects sources by their identifiers and attributes. The rules
//! of a policy apply in order:
//!
//! - `ALLOW` and `DENY` decide. The last one that selects the source takes precedence.
//! - `CONVERT` replaces the identifier, attributes, or both. If it changes the source, the remaining
//!   rules don't apply, and all policies are evaluated again for the new source. So a source that is
//!   denied by its first name may be allowed under the name that it is converted to.
//!
//! Several policies are evaluated one after the other: each of them may deny a source that the others
//! allow. A source that is converted more often than [`MOST_CONVERSIONS`] times is an error.
//!
//! Identifiers are compared in their normal form ([`normal_identifier`]), so a source can't evade a
//! rule by another spelling of its name. Patterns come from clients: they are compiled before the
//! build begins, within limits of size, and a match takes linear time.
//!
//! The rules, and the form of the JSON document ([`SourcePolicy`] is deserialized from it), are those
//! of BuildKit.

mod document;
mod pattern;

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_llb::op::SourceOp;

use self::pattern::Pattern;
pub use crate::source::identifier::normal_identifier;

/// The most conversions of one source.
const MOST_CONVERSIONS: usize = 20;

/// A list of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourcePolicy {
    /// The rules, in the order in which they apply.
    pub rules: Vec<SourceRule>,
}

/// A rule of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceRule {
    /// The consequence for the selected sources.
    pub action: SourceAction,
    /// The pattern of the identifier. `CONVERT` rules without a new identifier use it as such.
    pub identifier: String,
    /// The syntax of the pattern.
    pub match_type: MatchType,
    /// The conditions on attributes. The rule selects a source if all hold.
    pub constraints: Vec<AttributeConstraint>,
    /// The changes of a `CONVERT` rule.
    pub updates: Option<SourceUpdate>,
}

/// The consequence of a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceAction {
    /// The source may be used.
    #[default]
    Allow,
    /// The source must not be used.
    Deny,
    /// Another source is used.
    Convert,
}

/// The syntax of a rule's pattern. A pattern that equals the identifier matches in every syntax.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MatchType {
    /// `*` stands for any text. The new identifier may refer to these texts (`$1`, `${2}`).
    #[default]
    Wildcard,
    /// The identifier itself.
    Exact,
    /// A regular expression, which may match a part of the identifier. The new identifier replaces
    /// that part and may refer to groups.
    Regex,
}

/// A condition on an attribute of a source. A missing attribute is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttributeConstraint {
    /// The attribute's name.
    pub key: String,
    /// The text or regular expression.
    pub value: String,
    /// The comparison.
    pub condition: AttributeCondition,
}

/// The comparison of an attribute with a constraint's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttributeCondition {
    /// The attribute is the value.
    #[default]
    Equal,
    /// The attribute isn't the value.
    NotEqual,
    /// The value is a regular expression that matches in the attribute.
    Matches,
}

/// The changes of a `CONVERT` rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceUpdate {
    /// The new identifier. If it is empty, the rule's pattern is.
    pub identifier: String,
    /// The attributes to set.
    pub attrs: BTreeMap<String, String>,
}

/// An invalid policy, or a source that policies refuse. The messages are BuildKit's.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A policy denies the source.
    #[error("source {0:?} denied by policy: source denied by policy")]
    Denied(String),
    /// The conversions of a source don't end.
    #[error("too many mutations on a single source: too many operations")]
    Loop,
    /// A `CONVERT` rule without changes.
    #[error("error mutating source policy: missing destination for convert rule")]
    NoUpdates,
    /// A wildcard pattern with two stars in a row, which has no meaning.
    #[error(
        "error matching source policy: failed to translate wildcard {0:?}: invalid wildcard: \"**\""
    )]
    Wildcard(String),
    /// An invalid regular expression, or one that is too large.
    #[error("error matching source policy: invalid regex {pattern:?}")]
    Regex {
        /// The expression.
        pattern: String,
        /// The error of the expression's compiler.
        source: Box<regex::Error>,
    },
}

/// Compiled policies. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct SourcePolicies(Vec<Arc<[Rule]>>);

/// A compiled rule.
#[derive(Debug)]
struct Rule {
    action: SourceAction,
    pattern: Pattern,
    constraints: Vec<Constraint>,
    updates: SourceUpdate,
}

/// A compiled constraint.
#[derive(Debug)]
struct Constraint {
    key: String,
    value: String,
    is_negated: bool,
    regex: Option<regex::Regex>,
}

impl SourcePolicies {
    /// Compiles policies.
    ///
    /// # Errors
    /// Fails if a pattern is invalid, or if a `CONVERT` rule has no changes.
    pub fn new(policies: Vec<SourcePolicy>) -> Result<Self, PolicyError> {
        let compile = |policy: SourcePolicy| policy.rules.into_iter().map(Rule::new).collect();
        policies.into_iter().map(compile).collect::<Result<_, _>>().map(Self)
    }

    /// Returns these policies, followed by others.
    #[must_use]
    pub fn followed_by(&self, others: &Self) -> Self {
        Self(self.0.iter().chain(&others.0).cloned().collect())
    }

    /// Returns `true` if no policy has a rule.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|rules| rules.is_empty())
    }

    /// Applies the policies to a source. Returns `true` if they replace it.
    ///
    /// # Errors
    /// Fails if a policy denies the source, or if its conversions don't end.
    pub fn apply(&self, source: &mut SourceOp) -> Result<bool, PolicyError> {
        if self.is_empty() {
            return Ok(false);
        }
        source.identifier = normal_identifier(source);
        for conversions in 0..=MOST_CONVERSIONS {
            if !self.apply_once(source)? {
                return Ok(conversions > 0);
            }
        }
        Err(PolicyError::Loop)
    }

    /// Applies the policies until a rule converts the source. Returns `true` if one does.
    fn apply_once(&self, source: &mut SourceOp) -> Result<bool, PolicyError> {
        for rules in &self.0 {
            let mut is_denied = false;
            for rule in &**rules {
                if !rule.selects(source) {
                    continue;
                }
                match rule.action {
                    SourceAction::Allow => is_denied = false,
                    SourceAction::Deny => is_denied = true,
                    SourceAction::Convert if rule.convert(source) => return Ok(true),
                    SourceAction::Convert => {}
                }
            }
            if is_denied {
                return Err(PolicyError::Denied(source.identifier.clone()));
            }
        }
        Ok(false)
    }
}

impl Rule {
    fn new(rule: SourceRule) -> Result<Self, PolicyError> {
        let SourceRule { action, identifier, match_type, constraints, updates } = rule;
        if action == SourceAction::Convert && updates.is_none() {
            return Err(PolicyError::NoUpdates);
        }
        let constraints = constraints.into_iter().map(Constraint::new).collect::<Result<_, _>>()?;
        let pattern = Pattern::new(identifier, match_type)?;
        Ok(Self { action, pattern, constraints, updates: updates.unwrap_or_default() })
    }

    fn selects(&self, source: &SourceOp) -> bool {
        self.constraints.iter().all(|constraint| constraint.holds(source))
            && self.pattern.matches(&source.identifier)
    }

    /// Changes a source that the rule selects. Returns `false` if it is as the rule wants it already.
    fn convert(&self, source: &mut SourceOp) -> bool {
        let SourceUpdate { identifier, attrs } = &self.updates;
        let template = if identifier.is_empty() { self.pattern.text() } else { identifier };
        let new = self.pattern.expand(&source.identifier, template);
        let mut has_changed = false;
        if !new.is_empty() && new != source.identifier {
            source.identifier = new;
            has_changed = true;
        }
        for (key, value) in attrs {
            let old = source.attrs.insert(key.clone(), value.clone());
            has_changed |= old.unwrap_or_default() != *value;
        }
        has_changed
    }
}

impl Constraint {
    fn new(constraint: AttributeConstraint) -> Result<Self, PolicyError> {
        let AttributeConstraint { key, value, condition } = constraint;
        let is_regex = condition == AttributeCondition::Matches;
        let regex = if is_regex { Some(pattern::regex(&value)?) } else { None };
        Ok(Self { key, value, is_negated: condition == AttributeCondition::NotEqual, regex })
    }

    fn holds(&self, source: &SourceOp) -> bool {
        let value = source.attrs.get(&self.key).map(String::as_str).unwrap_or_default();
        match &self.regex {
            Some(regex) => regex.is_match(value),
            None => (value == self.value) != self.is_negated,
        }
    }
}

#[cfg(test)]
mod tests;

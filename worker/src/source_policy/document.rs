//! The JSON document of a policy.
//!
//! Enumerations are names or numbers. Members that the format doesn't have are errors: a misspelt rule
//! must not be a rule that is missing.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected};

use super::{
    AttributeCondition, AttributeConstraint, MatchType, SourceAction, SourcePolicy, SourceRule,
    SourceUpdate,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    version: i64,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    action: SourceAction,
    selector: Selector,
    updates: Option<Update>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Selector {
    #[serde(default)]
    identifier: String,
    #[serde(default, alias = "matchType")]
    match_type: MatchType,
    #[serde(default)]
    constraints: Vec<Constraint>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Constraint {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value: String,
    #[serde(default)]
    condition: AttributeCondition,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    #[serde(default)]
    identifier: String,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for SourcePolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Document { version, rules } = Document::deserialize(deserializer)?;
        if !(0..=1).contains(&version) {
            let found = Unexpected::Signed(version);
            return Err(D::Error::invalid_value(found, &"version 1 of the format"));
        }
        Ok(Self { rules: rules.into_iter().map(SourceRule::from).collect() })
    }
}

impl From<Rule> for SourceRule {
    fn from(rule: Rule) -> Self {
        let Rule { action, selector, updates } = rule;
        let Selector { identifier, match_type, constraints } = selector;
        let constraint =
            |Constraint { key, value, condition }| AttributeConstraint { key, value, condition };
        let update = |Update { identifier, attrs }| SourceUpdate { identifier, attrs };
        Self {
            action,
            identifier,
            match_type,
            constraints: constraints.into_iter().map(constraint).collect(),
            updates: updates.map(update),
        }
    }
}

/// An enumeration of the format. The numbers are those of BuildKit's protocol.
trait Numbered: Sized + Copy + 'static {
    /// The values in the order of their numbers, with their names.
    const VALUES: &'static [(&'static str, Self)];
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NameOrNumber {
    Name(String),
    Number(u64),
}

fn value<'de, T: Numbered, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let found = match NameOrNumber::deserialize(deserializer)? {
        NameOrNumber::Name(name) => {
            let found = T::VALUES.iter().find(|(known, _)| *known == name);
            found.ok_or_else(|| D::Error::custom(format!("unknown value {name:?}")))?
        }
        NameOrNumber::Number(number) => {
            let found = usize::try_from(number).ok().and_then(|number| T::VALUES.get(number));
            found.ok_or_else(|| D::Error::custom(format!("unknown value {number}")))?
        }
    };
    Ok(found.1)
}

macro_rules! numbered {
    ($type:ty, $($name:literal = $value:expr),+) => {
        impl Numbered for $type {
            const VALUES: &'static [(&'static str, Self)] = &[$(($name, $value)),+];
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                value(deserializer)
            }
        }

        impl $type {
            /// Returns the value of a number in BuildKit's protocol.
            pub fn of_number(number: i32) -> Option<Self> {
                let found = usize::try_from(number).ok().and_then(|it| Self::VALUES.get(it));
                found.map(|(_, value)| *value)
            }
        }
    };
}

numbered!(SourceAction, "ALLOW" = Self::Allow, "DENY" = Self::Deny, "CONVERT" = Self::Convert);
numbered!(MatchType, "WILDCARD" = Self::Wildcard, "EXACT" = Self::Exact, "REGEX" = Self::Regex);
numbered!(
    AttributeCondition,
    "EQUAL" = Self::Equal,
    "NOTEQUAL" = Self::NotEqual,
    "MATCHES" = Self::Matches
);

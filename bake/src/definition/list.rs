//! Lists of targets and variables.

use serde::Serialize;

use super::Definition;

/// A target or group in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListedTarget {
    /// The name.
    pub name: String,
    /// The purpose. A group names its members.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// `true` for a group.
    #[serde(rename = "group", skip_serializing_if = "std::ops::Not::not")]
    pub is_group: bool,
}

/// A variable in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListedVariable {
    /// The name.
    pub name: String,
    /// The purpose.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The declared type.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The value. Null has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl Definition {
    /// Returns all targets and groups by name, without those that begin with an underscore.
    pub fn listed_targets(&self) -> Vec<ListedTarget> {
        let targets = self.targets.iter().map(|target| ListedTarget {
            name: target.name.clone(),
            description: target.description.clone(),
            is_group: false,
        });
        let groups = self.groups.iter().map(|group| {
            let mut members = group.targets.clone().unwrap_or_default();
            members.sort_unstable();
            let members = members.join(", ");
            let description = match (group.description.is_empty(), members.is_empty()) {
                (true, _) => members,
                (false, true) => group.description.clone(),
                (false, false) => format!("{} ({members})", group.description),
            };
            ListedTarget { name: group.name.clone(), description, is_group: true }
        });
        let mut listed: Vec<ListedTarget> =
            targets.chain(groups).filter(|entry| !entry.name.starts_with('_')).collect();
        listed.sort_by(|left, right| left.name.cmp(&right.name));
        listed
    }

    /// Returns all variables by name.
    pub fn listed_variables(&self) -> Vec<ListedVariable> {
        let mut listed: Vec<ListedVariable> = self
            .variables
            .iter()
            .map(|variable| ListedVariable {
                name: variable.name.clone(),
                description: variable.description.clone(),
                kind: variable.kind.clone(),
                value: variable.value.clone(),
            })
            .collect();
        listed.sort_by(|left, right| left.name.cmp(&right.name));
        listed
    }
}

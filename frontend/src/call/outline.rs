//! The inputs that a build accepts: arguments, secrets and SSH agents.

use serde::Serialize;

use super::json::{self, Location};
use super::table;

/// The inputs that a build of a target accepts.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outline {
    /// The target's name, or empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The target's description, from the comment in front of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The arguments, in order of their lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<OutlineArg>,
    /// The secrets, in order of their lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<OutlineNeed>,
    /// The SSH agents, in order of their lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh: Vec<OutlineNeed>,
    /// The Dockerfile, as the only element.
    #[serde(serialize_with = "json::byte_lists")]
    pub sources: Vec<Vec<u8>>,
}

/// A build argument that the target uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OutlineArg {
    /// The name of the argument.
    pub name: String,
    /// The argument's description, from the comment in front of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The default, or the value that the build was given.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// The lines of the declaration.
    pub location: Location,
}

/// A secret or an SSH agent that the target uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OutlineNeed {
    /// The ID of the secret or agent.
    pub name: String,
    /// `true` if the build fails without it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// The lines of its first use.
    pub location: Location,
}

impl Outline {
    /// Returns the outline as JSON.
    pub fn to_json(&self) -> String {
        json::to_string(self)
    }

    /// Returns the outline as tables. An empty line follows each table.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        if !self.name.is_empty() || !self.description.is_empty() {
            let name = if self.name.is_empty() { "(default)" } else { &self.name };
            let mut rows = vec![vec!["TARGET:", name]];
            if !self.description.is_empty() {
                rows.push(vec!["DESCRIPTION:", &self.description]);
            }
            table::push(&mut out, 1, &rows);
            out.push('\n');
        }
        if !self.args.is_empty() {
            let mut rows = vec![vec!["BUILD ARG", "VALUE", "DESCRIPTION"]];
            rows.extend(
                self.args.iter().map(|arg| vec![&*arg.name, &*arg.value, &*arg.description]),
            );
            table::push(&mut out, 3, &rows);
            out.push('\n');
        }
        push_needs(&mut out, "SECRET", &self.secrets);
        push_needs(&mut out, "SSH", &self.ssh);
        out
    }
}

fn push_needs(out: &mut String, heading: &str, needs: &[OutlineNeed]) {
    if needs.is_empty() {
        return;
    }
    let mut rows = vec![vec![heading, "REQUIRED"]];
    let required = |need: &OutlineNeed| if need.required { "true" } else { "" };
    rows.extend(needs.iter().map(|need| vec![need.name.as_str(), required(need)]));
    table::push(out, 3, &rows);
    out.push('\n');
}

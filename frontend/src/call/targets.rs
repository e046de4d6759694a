//! The stages that a build can select as its target.

use serde::Serialize;

use super::json::{self, Location};
use super::table;
use crate::error::Error;
use crate::lint::Linter;
use crate::parser;

/// The stages that a build can select as its target.
#[derive(Clone, Debug, Serialize)]
pub struct Targets {
    targets: Vec<Target>,
    #[serde(serialize_with = "json::byte_lists")]
    sources: Vec<Vec<u8>>,
}

/// A stage that a build can select.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Target {
    /// The stage's name, or empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `true` if the build selects this stage without `--target`.
    #[serde(rename = "default", skip_serializing_if = "std::ops::Not::not")]
    pub is_default: bool,
    /// The stage's description, from the comment in front of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The base as written in the `FROM` instruction.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub base: String,
    /// The value of `--platform` as written.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// The lines of the `FROM` instruction.
    pub location: Location,
}

/// Lists the stages of a Dockerfile.
///
/// # Errors
/// Returns the syntax errors of the Dockerfile.
pub fn targets(source: &[u8]) -> Result<Targets, Vec<Error>> {
    let dockerfile = parser::parse_with(source, Linter::default())?;
    let last = dockerfile.stages.len().saturating_sub(1);
    let target = |(number, stage): (usize, crate::instruction::Stage)| Target {
        name: stage.name,
        is_default: number == last,
        description: stage.doc,
        base: stage.base,
        platform: stage.platform,
        location: Location::of(&[stage.span]),
    };
    let targets = dockerfile.stages.into_iter().enumerate().map(target).collect();
    Ok(Targets { targets, sources: vec![source.to_vec()] })
}

impl Targets {
    /// Returns the stages in the order of the Dockerfile.
    pub fn list(&self) -> &[Target] {
        &self.targets
    }

    /// Returns the list as JSON.
    pub fn to_json(&self) -> String {
        json::to_string(self)
    }

    /// Returns the list as a table of names and descriptions.
    pub fn to_text(&self) -> String {
        let name = |target: &Target| match (target.name.as_str(), target.is_default) {
            ("", true) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        };
        let names: Vec<String> = self.targets.iter().map(name).collect();
        let mut rows = vec![vec!["TARGET", "DESCRIPTION"]];
        let described = names.iter().zip(&self.targets);
        rows.extend(described.map(|(name, target)| vec![name.as_str(), &target.description]));
        let mut out = String::new();
        table::push(&mut out, 1, &rows);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKERFILE: &str = "\
# build defines stage for compiling the binary
FROM --platform=$BUILDPLATFORM alpine AS build
RUN true
FROM busybox
# binary returns <the> binary
FROM \\
  scratch AS binary
";

    #[test]
    fn as_text() {
        let targets = targets(DOCKERFILE.as_bytes()).unwrap();
        let expected = "\
TARGET           DESCRIPTION
build            defines stage for compiling the binary
                 \n\
binary (default) returns <the> binary
";
        assert_eq!(targets.to_text(), expected);
    }

    #[test]
    fn as_json() {
        let json = targets(DOCKERFILE.as_bytes()).unwrap().to_json();
        let begin = r#"{
  "targets": [
    {
      "name": "build",
      "description": "defines stage for compiling the binary",
      "base": "alpine",
      "platform": "$BUILDPLATFORM",
      "location": {
        "ranges": [
          {
            "start": {
              "line": 2
            },
            "end": {
              "line": 2
            }
          }
        ]
      }
    },
    {
      "base": "busybox","#;
        assert!(json.starts_with(begin), "{json}");
        assert!(json.contains(r#""description": "returns \u003cthe\u003e binary""#), "{json}");
        assert_eq!(json.matches("\"start\"").count(), 4);
        assert_eq!(json.matches("\"default\": true").count(), 1);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["sources"][0], kiln_llb::base64::encode(DOCKERFILE.as_bytes()));
    }

    #[test]
    fn a_dockerfile_must_be_right() {
        assert_eq!(targets(b"FROM x\nRUM y\nADD z\n").unwrap_err().len(), 2);
        assert_eq!(targets(b"").unwrap_err().len(), 1);
    }
}

//! Statements as in-toto has them. (in-toto Attestation Framework, "Statement v1".)

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::assemble::json;
use crate::error::{Error, Result};

/// The type of statements.
const STATEMENT: &str = "https://in-toto.io/Statement/v1";

/// Something that is said about something.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    /// What kind of thing is said.
    pub(crate) predicate_type: &'static str,
    /// About what.
    pub(crate) subjects: Vec<Subject>,
    /// What.
    pub(crate) predicate: Value,
}

/// What a statement is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Subject {
    name: String,
    digest: BTreeMap<&'static str, String>,
}

impl Subject {
    /// Returns something with a name and a SHA-256, in hexadecimal digits.
    pub(crate) fn new(name: String, sha256: &str) -> Self {
        Self { name, digest: BTreeMap::from([("sha256", sha256.to_string())]) }
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    #[serde(rename = "_type")]
    kind: &'static str,
    #[serde(rename = "predicateType")]
    predicate_type: &'a str,
    subject: &'a [Subject],
    predicate: &'a Value,
}

impl Statement {
    fn envelope(&self) -> Envelope<'_> {
        Envelope {
            kind: STATEMENT,
            predicate_type: self.predicate_type,
            subject: &self.subjects,
            predicate: &self.predicate,
        }
    }

    /// Returns it in as few bytes as possible.
    pub(crate) fn compact(&self) -> Result<Vec<u8>> {
        json(&self.envelope())
    }

    /// Returns it for people.
    pub(crate) fn indented(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(&self.envelope())
            .map_err(|error| Error::Config(error.to_string()))
    }
}

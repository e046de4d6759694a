//! in-toto statements. (in-toto Attestation Framework, "Statement v1".)

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::error::Result;

/// The `_type` of statements.
const STATEMENT: &str = "https://in-toto.io/Statement/v1";

/// A statement: a predicate about subjects.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    /// The URI of the predicate's format.
    pub(crate) predicate_type: Cow<'static, str>,
    /// The artifacts that the statement is about.
    pub(crate) subjects: Vec<Subject>,
    /// The content in the predicate type's format.
    pub(crate) predicate: Value,
}

/// An artifact that a statement is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// The name of the artifact.
    pub name: String,
    /// The digests in hexadecimal digits, by algorithm.
    pub digest: BTreeMap<String, String>,
}

impl Subject {
    /// Creates a subject of a name and a SHA-256 digest in hexadecimal digits.
    pub(crate) fn new(name: String, sha256: &str) -> Self {
        Self { name, digest: BTreeMap::from([("sha256".to_owned(), sha256.to_owned())]) }
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
            predicate_type: &self.predicate_type,
            subject: &self.subjects,
            predicate: &self.predicate,
        }
    }

    /// Serializes to compact JSON.
    pub(crate) fn compact(&self) -> Result<Vec<u8>> {
        Ok(kiln_oci::json::to_go(&self.envelope())?)
    }

    /// Serializes to indented JSON.
    pub(crate) fn indented(&self) -> Result<Vec<u8>> {
        Ok(serde_json::to_vec_pretty(&self.envelope())?)
    }
}

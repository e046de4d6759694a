//! Marshalled graphs.

use std::collections::BTreeMap;

use kiln_oci::Digest;

use crate::graph::GraphError;

/// A graph as bytes: ops in order, what is said about them, and where they came from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Definition {
    /// The canonical bytes of each op, inputs first, the head last.
    pub ops: Vec<Vec<u8>>,
    /// What is said about each op; no part of its identity.
    pub metadata: BTreeMap<Digest, OpMetadata>,
    /// Source files, and the place in them that each op came from.
    pub sources: Vec<SourceInfo>,
    /// Places by op.
    pub locations: BTreeMap<Digest, Vec<SourceLocation>>,
}

/// What is said about an op without being part of its identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpMetadata {
    /// Whether the op runs even when its result is known.
    pub ignore_cache: bool,
    /// Descriptions, as `llb.customname`.
    pub description: BTreeMap<String, String>,
    /// Whether its result goes into an exported cache; `None` leaves it to the exporter.
    pub export_cache: Option<bool>,
    /// Capabilities that the solver needs.
    pub caps: BTreeMap<String, bool>,
    /// The group that progress shows the op in: ID, name, and whether it is weak.
    pub progress_group: Option<(String, String, bool)>,
    /// Where the op came from: indexes into [`Definition::sources`] are filled in on marshalling.
    pub locations: Vec<SourceLocation>,
}

impl OpMetadata {
    /// Returns the step's name as progress shows it (`llb.customname`).
    pub fn name(&self) -> Option<&str> {
        self.description.get("llb.customname").map(String::as_str)
    }
}

/// A source file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceInfo {
    /// Its name.
    pub filename: String,
    /// Its content.
    pub data: Vec<u8>,
    /// Its language, as `Dockerfile`.
    pub language: String,
}

/// Lines of a source file, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceLocation {
    /// Index of the file in [`Definition::sources`].
    pub source: u32,
    /// First line.
    pub start: u32,
    /// Last line.
    pub end: u32,
}

impl Definition {
    /// Returns the definition as a `pb.Definition` message.
    pub fn to_bytes(&self) -> Vec<u8> {
        todo!()
    }

    /// Reads a `pb.Definition` message. The ops keep their bytes; they are checked by
    /// [`crate::Graph::load`].
    ///
    /// # Errors
    /// Fails on bytes that are no such message.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, GraphError> {
        let _ = bytes;
        todo!()
    }
}

//! Graphs to be solved: decoded, checked, in topological order.

use kiln_oci::Digest;

use crate::definition::{Definition, OpMetadata};
use crate::op::Op;

/// A checked graph.
#[derive(Debug)]
pub struct Graph {
    vertices: Vec<Vertex>,
    target: (usize, u32),
}

/// A vertex of a graph.
#[derive(Clone, Debug)]
pub struct Vertex {
    /// The digest of the op's bytes.
    pub digest: Digest,
    /// The op.
    pub op: Op,
    /// The vertices that the op reads and which of their outputs, in the order of
    /// [`Op::inputs`].
    pub inputs: Vec<(usize, u32)>,
    /// What is said about the op.
    pub metadata: OpMetadata,
}

/// Why a definition is no graph.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// Bytes that are no protobuf message of the expected type.
    #[error("decode {what}")]
    Decode {
        /// What was decoded.
        what: &'static str,
        /// Why it failed.
        source: prost::DecodeError,
    },
    /// A value outside its range.
    #[error("op {op}: {problem}")]
    Invalid {
        /// The op.
        op: Digest,
        /// What is wrong with it.
        problem: String,
    },
    /// No ops, or no head.
    #[error("the definition has no target")]
    NoTarget,
}

impl Graph {
    /// Decodes and checks a definition: every input is defined and has that output, there is no
    /// cycle, every index and enumeration value is in its range.
    ///
    /// # Errors
    /// Names the first op that is wrong.
    pub fn load(definition: &Definition) -> Result<Self, GraphError> {
        let _ = definition;
        todo!()
    }

    /// Returns the vertices, inputs before their users.
    pub fn vertices(&self) -> &[Vertex] {
        &self.vertices
    }

    /// Returns the vertex and the output that the definition asks for.
    pub fn target(&self) -> (usize, u32) {
        self.target
    }
}

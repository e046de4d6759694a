//! Graphs under construction: nodes that own their inputs.

use std::sync::Arc;

use kiln_oci::{Digest, Platform};

use crate::definition::{Definition, OpMetadata};
use crate::op::{Op, OpKind};

/// A vertex with the vertices it reads. Immutable: its digest is known as soon as it is made.
#[derive(Debug)]
pub struct Node {
    op: Op,
    digest: Digest,
    encoded: Vec<u8>,
    inputs: Vec<Edge>,
    metadata: OpMetadata,
}

/// An output of a node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Edge {
    node: Arc<Node>,
    index: u32,
}

impl Node {
    /// Makes a node from what it does, what it reads, where, and what is said about it.
    ///
    /// Inputs must be in the op's own order, without repetitions: [`OpKind`] refers to them by
    /// index.
    pub fn new(
        kind: OpKind,
        inputs: Vec<Edge>,
        platform: Option<Platform>,
        metadata: OpMetadata,
    ) -> Arc<Self> {
        let _ = (kind, inputs, platform, metadata);
        todo!()
    }

    /// Returns the op.
    pub fn op(&self) -> &Op {
        &self.op
    }

    /// Returns the digest of the op's canonical bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns the op's canonical bytes.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Returns what the node reads.
    pub fn inputs(&self) -> &[Edge] {
        &self.inputs
    }

    /// Returns what is said about the op.
    pub fn metadata(&self) -> &OpMetadata {
        &self.metadata
    }

    /// Returns the node's output `index`.
    pub fn output(self: &Arc<Self>, index: u32) -> Edge {
        Edge { node: Arc::clone(self), index }
    }
}

impl Edge {
    /// Returns the node.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Returns which of the node's outputs it is.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Returns everything that this edge needs as a definition: inputs before their users, each op
    /// once, the head last, in the order in which BuildKit's client marshals.
    pub fn marshal(&self) -> Definition {
        todo!()
    }
}

//! Graphs under construction: nodes that own their inputs.
//!
//! A graph can be as deep as a Dockerfile is long, so nothing here recurses along inputs.
//! Marshalling and dropping use explicit stacks.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use kiln_oci::{Digest, Platform};

use crate::definition::{Definition, OpMetadata};
use crate::graph::{Graph, GraphError};
use crate::op::{FileOp, Input, Op, OpKind};

/// An immutable vertex with its inputs. Its digest is computed on creation.
pub struct Node {
    op: Op,
    digest: Digest,
    encoded: Vec<u8>,
    inputs: Vec<Edge>,
    metadata: OpMetadata,
}

/// An output of a node. Cloning is cheap.
#[derive(Clone)]
pub struct Edge {
    node: Arc<Node>,
    index: u32,
}

impl Node {
    /// Creates a node from its op's kind, its inputs, its platform and its metadata.
    ///
    /// Inputs must be in the op's own order without duplicates, because [`OpKind`] refers to them
    /// by index.
    pub fn new(
        kind: OpKind,
        inputs: Vec<Edge>,
        platform: Option<Platform>,
        metadata: OpMetadata,
    ) -> Arc<Self> {
        let op = Op {
            inputs: inputs.iter().map(Edge::input).collect(),
            platform,
            constraints: Vec::new(),
            kind: Some(kind),
        };
        let encoded = op.encode();
        Arc::new(Self { op, digest: Digest::of(&encoded), encoded, inputs, metadata })
    }

    /// Returns the node's op, with the digests of its inputs.
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

    /// Returns the outputs of other nodes that this node reads.
    pub fn inputs(&self) -> &[Edge] {
        &self.inputs
    }

    /// Returns the op's metadata.
    pub fn metadata(&self) -> &OpMetadata {
        &self.metadata
    }

    /// Returns the node's output `index`.
    pub fn output(self: &Arc<Self>, index: u32) -> Edge {
        Edge { node: Arc::clone(self), index }
    }

    /// Returns the node's inputs in the order in which BuildKit's client visits them.
    fn visiting_order(&self) -> Vec<&Arc<Node>> {
        match &self.op.kind {
            Some(OpKind::File(file)) => file_inputs_in_visiting_order(file, self.inputs.len())
                .into_iter()
                .filter_map(|index| self.inputs.get(index).map(Edge::node))
                .collect(),
            _ => self.inputs.iter().map(Edge::node).collect(),
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("digest", &self.digest)
            .field("op", &self.op)
            .field("metadata", &self.metadata)
            .finish_non_exhaustive()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let mut orphans = std::mem::take(&mut self.inputs);
        while let Some(edge) = orphans.pop() {
            if let Some(mut node) = Arc::into_inner(edge.node) {
                orphans.append(&mut node.inputs);
            }
        }
    }
}

impl Edge {
    /// Rebuilds the nodes of a definition, and returns the output that it targets. The ops keep
    /// their bytes. Source locations are dropped: they refer to files of that definition.
    ///
    /// # Errors
    /// Fails if the definition isn't a valid graph.
    pub fn load(definition: &Definition) -> Result<Self, GraphError> {
        let graph = Graph::load(definition)?;
        let bytes: HashMap<Digest, &Vec<u8>> =
            definition.ops.iter().map(|op| (Digest::of(op), op)).collect();
        let mut nodes: Vec<Arc<Node>> = Vec::with_capacity(graph.vertices().len());
        for vertex in graph.vertices() {
            let inputs = vertex.inputs.iter().map(|&(node, index)| nodes[node].output(index));
            let encoded = bytes.get(&vertex.digest).map(|bytes| (*bytes).clone());
            nodes.push(Arc::new(Node {
                op: vertex.op.clone(),
                digest: vertex.digest,
                encoded: encoded.unwrap_or_else(|| vertex.op.encode()),
                inputs: inputs.collect(),
                metadata: OpMetadata { locations: Vec::new(), ..vertex.metadata.clone() },
            }));
        }
        let &(node, index) = graph.targets().first().ok_or(GraphError::NoTarget)?;
        Ok(nodes[node].output(index))
    }

    /// Returns the node that produces the output.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Returns the number of the output.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Returns the edge as an input of another op.
    pub fn input(&self) -> Input {
        Input { digest: self.node.digest, index: self.index }
    }

    /// Marshals everything that this edge depends on: inputs before their users, each op once, the
    /// head last, in the order of BuildKit's client.
    ///
    /// If two nodes have the same op, their metadata is merged, and the node visited last takes
    /// precedence. The locations of the nodes refer to source files that the caller adds as
    /// [`Definition::sources`].
    pub fn marshal(&self) -> Definition {
        let mut definition = Definition::default();
        let mut seen = HashSet::new();
        for node in post_order(&self.node) {
            let metadata = OpMetadata { locations: Vec::new(), ..node.metadata.clone() };
            definition.metadata.entry(node.digest).or_default().merge(metadata);
            if !node.metadata.locations.is_empty() {
                let locations = definition.locations.entry(node.digest).or_default();
                locations.extend_from_slice(&node.metadata.locations);
            }
            if seen.insert(node.digest) {
                definition.ops.push(node.encoded.clone());
            }
        }
        let head =
            Op { inputs: vec![self.input()], platform: None, constraints: Vec::new(), kind: None };
        let head = head.encode();
        let metadata = head_metadata(&definition);
        definition.metadata.insert(Digest::of(&head), metadata);
        definition.ops.push(head);
        definition
    }
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.node.digest, self.index)
    }
}

/// Returns `root` and the nodes below it without duplicates, inputs before their users.
fn post_order(root: &Arc<Node>) -> Vec<&Arc<Node>> {
    let mut done = HashSet::new();
    let mut order = Vec::new();
    let mut stack = vec![(root, root.visiting_order().into_iter())];
    while let Some((node, inputs)) = stack.last_mut() {
        if let Some(input) = inputs.next() {
            if !done.contains(&Arc::as_ptr(input)) {
                stack.push((input, input.visiting_order().into_iter()));
            }
        } else {
            if done.insert(Arc::as_ptr(node)) {
                order.push(*node);
            }
            stack.pop();
        }
    }
    order
}

/// Returns a file op's inputs from the last action back to the first, with an action's base before
/// its source. This is the reverse of the op's numbering of inputs, except for the first one.
fn file_inputs_in_visiting_order(file: &FileOp, count: usize) -> Vec<usize> {
    let mut order = Vec::new();
    let mut push = |index: usize| {
        if !order.contains(&index) {
            order.push(index);
        }
    };
    // Actions of one chain share their base, which only the chain's first action refers to.
    let mut bases: Vec<Option<usize>> = Vec::new();
    for action in &file.actions {
        bases.push(match action.input.map(|input| input as usize) {
            Some(input) if input < count => Some(input),
            Some(input) => bases.get(input - count).copied().flatten(),
            None => None,
        });
    }
    let mut pending: Vec<usize> = file.actions.len().checked_sub(1).into_iter().collect();
    let mut visited = HashSet::new();
    while let Some(number) = pending.pop() {
        let Some(action) = file.actions.get(number).filter(|_| visited.insert(number)) else {
            continue;
        };
        bases[number].into_iter().for_each(&mut push);
        let relative = |index: Option<u32>| {
            index.and_then(|index| (index as usize).checked_sub(count)).filter(|i| *i < number)
        };
        pending.extend(relative(action.input));
        match action.secondary_input.map(|index| index as usize) {
            Some(index) if index < count => push(index),
            _ => pending.extend(relative(action.secondary_input)),
        }
    }
    // Inputs of unused actions come last.
    (0..count).for_each(push);
    order
}

/// Returns the metadata of the head: the capabilities that the whole definition requires.
fn head_metadata(definition: &Definition) -> OpMetadata {
    let mut metadata = OpMetadata::default();
    let mut need = |name: &str| {
        metadata.caps.insert(name.to_owned(), true);
    };
    need("constraints");
    need("platform");
    for said in definition.metadata.values() {
        if said.ignore_cache {
            need("meta.ignorecache");
        }
        if !said.description.is_empty() {
            need("meta.description");
        }
        if said.export_cache.is_some() {
            need("meta.exportcache");
        }
    }
    metadata
}

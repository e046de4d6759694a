//! Graphs to be solved: decoded, checked, in topological order.
//!
//! A [`Graph`] holds what its targets reach, and nothing else. Each op is one vertex, however
//! often the definitions list it, and keeps the digest of the bytes in which it came: an op is
//! never encoded again, for that would lose what this version doesn't know.

use std::collections::{BTreeMap, HashMap};

use kiln_oci::{Digest, ParseDigestError};
use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef as _;

use crate::definition::{Definition, OpMetadata, SourceInfo, SourceLocation};
use crate::op::{FileActionKind, Op, OpKind};

/// A checked graph.
#[derive(Debug)]
pub struct Graph {
    vertices: Vec<Vertex>,
    /// One node per vertex, in the same numbers; edges run from an input to its user.
    shape: DiGraph<(), u32>,
    targets: Vec<(usize, u32)>,
    sources: Vec<SourceInfo>,
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
    /// Where the op came from; `source` counts in [`Graph::sources`].
    pub locations: Vec<SourceLocation>,
}

impl Vertex {
    /// Returns the digests of the ops that the op reads, in the order of [`Op::inputs`].
    pub fn input_digests(&self) -> Vec<Digest> {
        self.op.inputs.iter().map(|input| input.digest).collect()
    }
}

/// Why a definition is no graph.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// Bytes that are no protobuf message of the expected type.
    #[error("decode {what}")]
    Decode {
        /// What was decoded.
        what: String,
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
    /// Something is said about an op whose name is no digest.
    #[error("metadata or locations of an op")]
    Key {
        /// What is wrong with the name.
        source: ParseDigestError,
    },
    /// An input that is no op of the definition.
    #[error("op {op}: input {input} is not in the definition")]
    Undefined {
        /// The op.
        op: Digest,
        /// Its input.
        input: Digest,
    },
    /// Ops that read each other.
    #[error("op {op}: reads its own result")]
    Cycle {
        /// One of the ops.
        op: Digest,
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
        Self::load_all(std::slice::from_ref(definition))
    }

    /// Decodes and checks definitions, and makes one graph of them, with a target for each: an op
    /// that several of them have is one vertex. What is said about it counts as the first says it.
    ///
    /// # Errors
    /// As [`Graph::load`].
    pub fn load_all(definitions: &[Definition]) -> Result<Self, GraphError> {
        let mut heads = Vec::new();
        let mut all: Vec<&[u8]> = Vec::new();
        for definition in definitions {
            let (head, ops) = definition.ops.split_last().ok_or(GraphError::NoTarget)?;
            let digest = Digest::of(head);
            let head = Op::decode(head)?;
            let (&[target], None) = (head.inputs.as_slice(), &head.kind) else {
                return Err(GraphError::NoTarget);
            };
            heads.push((digest, target));
            all.extend(ops.iter().map(Vec::as_slice));
        }
        let (decoded, numbers) = decode(&all)?;
        let shape = connect(&decoded, &numbers)?;
        let mut targets = Vec::new();
        for (head, target) in heads {
            let number = *numbers
                .get(&target.digest)
                .ok_or(GraphError::Undefined { op: head, input: target.digest })?;
            let (digest, op) = &decoded[number];
            has_output(*digest, op, target.index)?;
            targets.push((number, target.index));
        }
        if targets.is_empty() {
            return Err(GraphError::NoTarget);
        }
        let order = topological_order(&shape, &targets)
            .map_err(|number| GraphError::Cycle { op: decoded[number].0 })?;
        Ok(Self::assemble(&Said::merge(definitions), decoded, &order, &targets))
    }

    /// Numbers the vertices by `order`.
    fn assemble(
        said: &Said,
        decoded: Vec<(Digest, Op)>,
        order: &[usize],
        targets: &[(usize, u32)],
    ) -> Self {
        let digests: Vec<Digest> = targets.iter().map(|(number, _)| decoded[*number].0).collect();
        let mut decoded: Vec<_> = decoded.into_iter().map(Some).collect();
        let mut numbers: HashMap<Digest, usize> = HashMap::new();
        let mut vertices: Vec<Vertex> = Vec::new();
        let mut shape = DiGraph::new();
        for (digest, op) in order.iter().filter_map(|number| decoded[*number].take()) {
            let number = shape.add_node(());
            let inputs: Vec<_> = op
                .inputs
                .iter()
                .filter_map(|input| Some((*numbers.get(&input.digest)?, input.index)))
                .collect();
            for (input, index) in &inputs {
                shape.add_edge(NodeIndex::new(*input), number, *index);
            }
            numbers.insert(digest, number.index());
            vertices.push(Vertex {
                digest,
                op,
                inputs,
                metadata: said.metadata.get(&digest).cloned().unwrap_or_default(),
                locations: said.locations.get(&digest).cloned().unwrap_or_default(),
            });
        }
        let number = |digest: &Digest| numbers.get(digest).copied();
        let targets = digests.iter().zip(targets);
        let targets =
            targets.filter_map(|(digest, (_, output))| Some((number(digest)?, *output))).collect();
        Self { vertices, shape, targets, sources: said.sources.clone() }
    }

    /// Returns the vertices, inputs before their users.
    pub fn vertices(&self) -> &[Vertex] {
        &self.vertices
    }

    /// Returns the vertex and the output that each definition asks for.
    pub fn targets(&self) -> &[(usize, u32)] {
        &self.targets
    }

    /// Returns the source files that [`Vertex::locations`] refer to.
    pub fn sources(&self) -> &[SourceInfo] {
        &self.sources
    }

    /// Returns the vertices that read a result of `vertex`, each once, in topological order.
    pub fn users(&self, vertex: usize) -> Vec<usize> {
        let users = self.shape.neighbors_directed(NodeIndex::new(vertex), Direction::Outgoing);
        let mut users: Vec<_> = users.map(NodeIndex::index).collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    /// Returns the outputs of `vertex` that something reads, in ascending order, those of targets
    /// among them.
    pub fn used_outputs(&self, vertex: usize) -> Vec<u32> {
        let edges = self.shape.edges_directed(NodeIndex::new(vertex), Direction::Outgoing);
        let mut outputs: Vec<_> = edges.map(|edge| *edge.weight()).collect();
        outputs
            .extend(self.targets.iter().filter(|target| target.0 == vertex).map(|target| target.1));
        outputs.sort_unstable();
        outputs.dedup();
        outputs
    }
}

impl Graph {
    /// Returns where a vertex came from; where nobody has said that of it, as of what `ADD` reads,
    /// where the nearest that uses it came from.
    pub fn locations(&self, vertex: usize) -> &[SourceLocation] {
        let mut current = vertex;
        loop {
            let own = self.vertices[current].locations.as_slice();
            // Users come after what they use, so that this ends.
            match self.users(current).into_iter().find(|user| *user > current) {
                Some(user) if own.is_empty() => current = user,
                _ => return own,
            }
        }
    }
}

impl Vertex {
    /// Returns the step's name: the one it was given, or what it does.
    pub fn name(&self) -> String {
        self.metadata.name().map_or_else(|| self.op.summary(), str::to_owned)
    }
}

impl Op {
    /// Returns how many outputs the op has: one more than the highest that is written to.
    pub fn output_count(&self) -> u32 {
        let highest = match &self.kind {
            None => return 0,
            Some(OpKind::Exec(exec)) => {
                let mounts = exec.mounts.iter().filter(|mount| mount.kind.has_content());
                mounts.filter_map(|mount| mount.output).max()
            }
            Some(OpKind::File(file)) => file.actions.iter().filter_map(|a| a.output).max(),
            Some(OpKind::Source(_) | OpKind::Merge(_) | OpKind::Diff(_) | OpKind::Build(_)) => {
                Some(0)
            }
        };
        highest.map_or(0, |highest| highest + 1)
    }

    /// Returns what the op does, in a few words.
    pub fn summary(&self) -> String {
        match &self.kind {
            None => "head".to_owned(),
            Some(OpKind::Source(source)) => source.identifier.clone(),
            Some(OpKind::Exec(exec)) => exec.meta.args.join(" "),
            Some(OpKind::File(file)) => {
                let actions: Vec<_> = file.actions.iter().map(|a| a.kind.summary()).collect();
                actions.join(", ")
            }
            Some(OpKind::Merge(_)) => "merge".to_owned(),
            Some(OpKind::Diff(_)) => "diff".to_owned(),
            Some(OpKind::Build(_)) => "build".to_owned(),
        }
    }
}

impl FileActionKind {
    /// Returns what the action does, in a few words.
    fn summary(&self) -> String {
        match self {
            Self::Copy(copy) => format!("copy {} {}", copy.src, copy.dest),
            Self::MkFile(file) => format!("mkfile {}", file.path),
            Self::MkDir(dir) => format!("mkdir {}", dir.path),
            Self::Rm(rm) => format!("rm {}", rm.path),
            Self::Symlink(link) => format!("symlink {} -> {}", link.new_path, link.old_path),
        }
    }
}

/// What is said about the ops of several definitions.
#[derive(Default)]
struct Said {
    metadata: BTreeMap<Digest, OpMetadata>,
    locations: BTreeMap<Digest, Vec<SourceLocation>>,
    sources: Vec<SourceInfo>,
}

impl Said {
    /// The first has the last word, but for what must not be taken from the cache.
    fn merge(definitions: &[Definition]) -> Self {
        let mut all = Self::default();
        for definition in definitions {
            for (digest, said) in &definition.metadata {
                let ignore_cache = said.ignore_cache;
                let known = all.metadata.entry(*digest).or_insert_with(|| said.clone());
                known.ignore_cache |= ignore_cache;
            }
            let numbers: Vec<u32> =
                definition.sources.iter().map(|source| all.number(source)).collect();
            for (digest, places) in &definition.locations {
                let numbered = |place: &SourceLocation| {
                    let source = *numbers.get(place.source as usize)?;
                    Some(SourceLocation { source, ..*place })
                };
                let places = || places.iter().filter_map(numbered).collect();
                all.locations.entry(*digest).or_insert_with(places);
            }
        }
        all
    }

    /// Returns the number of a source file, which is kept once.
    fn number(&mut self, source: &SourceInfo) -> u32 {
        let known = self.sources.iter().position(|known| known == source);
        known.unwrap_or_else(|| {
            self.sources.push(source.clone());
            self.sources.len() - 1
        }) as u32
    }
}

/// Decodes ops, each once, and numbers them by digest.
#[expect(clippy::type_complexity, reason = "two views of one list")]
fn decode(ops: &[&[u8]]) -> Result<(Vec<(Digest, Op)>, HashMap<Digest, usize>), GraphError> {
    let mut decoded = Vec::new();
    let mut numbers = HashMap::new();
    for bytes in ops {
        let digest = Digest::of(bytes);
        if numbers.contains_key(&digest) {
            continue;
        }
        let op = Op::decode(bytes)?;
        if op.kind.is_none() {
            let problem = "it does nothing, and is not the last op".to_owned();
            return Err(GraphError::Invalid { op: digest, problem });
        }
        numbers.insert(digest, decoded.len());
        decoded.push((digest, op));
    }
    Ok((decoded, numbers))
}

/// Connects inputs to their users, and checks that each has the output that is read.
fn connect(
    ops: &[(Digest, Op)],
    numbers: &HashMap<Digest, usize>,
) -> Result<DiGraph<(), u32>, GraphError> {
    let mut shape = DiGraph::with_capacity(ops.len(), ops.len());
    for _ in ops {
        shape.add_node(());
    }
    for (number, (digest, op)) in ops.iter().enumerate() {
        for input in &op.inputs {
            let from = *numbers
                .get(&input.digest)
                .ok_or(GraphError::Undefined { op: *digest, input: input.digest })?;
            let (source, source_op) = &ops[from];
            has_output(*source, source_op, input.index)?;
            shape.add_edge(NodeIndex::new(from), NodeIndex::new(number), input.index);
        }
    }
    Ok(shape)
}

/// Checks that the op with a digest has an output.
fn has_output(digest: Digest, op: &Op, index: u32) -> Result<(), GraphError> {
    if index < op.output_count() {
        return Ok(());
    }
    let problem = format!("output {index} is read, but it has {}", op.output_count());
    Err(GraphError::Invalid { op: digest, problem })
}

/// Returns what the targets reach, inputs before their users and else in ascending order.
///
/// # Errors
/// Returns a vertex of a cycle.
fn topological_order(
    shape: &DiGraph<(), u32>,
    targets: &[(usize, u32)],
) -> Result<Vec<usize>, usize> {
    let sorted = petgraph::algo::toposort(shape, None).map_err(|cycle| cycle.node_id().index())?;
    let mut reached = vec![false; shape.node_count()];
    for (target, _) in targets {
        reached[*target] = true;
    }
    for number in sorted.iter().rev() {
        let mut users = shape.neighbors_directed(*number, Direction::Outgoing);
        reached[number.index()] |= users.any(|user| reached[user.index()]);
    }
    let ascends = |edge: petgraph::graph::EdgeReference<'_, u32>| edge.source() < edge.target();
    let order: Vec<usize> = if shape.edge_references().all(ascends) {
        (0..shape.node_count()).collect()
    } else {
        sorted.into_iter().map(NodeIndex::index).collect()
    };
    Ok(order.into_iter().filter(|number| reached[*number]).collect())
}

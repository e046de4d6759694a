//! Graphs for solving: decoded, checked, in topological order.
//!
//! A [`Graph`] holds exactly the ops that its targets reach. Each op is one vertex, however often
//! the definitions list it, and keeps the digest of the bytes in which it came. An op is never
//! encoded again, because that would lose fields that this version doesn't know.

mod shape;

use std::collections::{BTreeMap, HashMap};

use kiln_oci::{Digest, ParseDigestError};

use self::shape::{Cycle, Shape};
use crate::definition::{Definition, OpMetadata, SourceInfo, SourceLocation};
use crate::op::{FileActionKind, Op, OpKind};

/// A decoded and checked graph.
#[derive(Debug)]
pub struct Graph {
    vertices: Vec<Vertex>,
    shape: Shape,
    targets: Vec<(usize, u32)>,
    sources: Vec<SourceInfo>,
}

/// A vertex of a graph.
#[derive(Clone, Debug)]
pub struct Vertex {
    /// The digest of the op's bytes.
    pub digest: Digest,
    /// The op, decoded from its bytes.
    pub op: Op,
    /// The vertices and outputs that the op reads, in the order of [`Op::inputs`].
    pub inputs: Vec<(usize, u32)>,
    /// The metadata of the op in its definition.
    pub metadata: OpMetadata,
    /// The op's source locations. `source` is an index into [`Graph::sources`].
    pub locations: Vec<SourceLocation>,
}

impl Vertex {
    /// Returns the digests of the ops that the op reads, in the order of [`Op::inputs`].
    pub fn input_digests(&self) -> Vec<Digest> {
        self.op.inputs.iter().map(|input| input.digest).collect()
    }
}

/// The reason why a definition isn't a valid graph.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// The bytes aren't a protobuf message of the expected type.
    #[error("decode {what}")]
    Decode {
        /// The expected object, such as `definition`.
        what: String,
        /// The error of the protobuf decoder.
        source: prost::DecodeError,
    },
    /// A value of an op is invalid.
    #[error("op {op}: {problem}")]
    Invalid {
        /// The digest of the op.
        op: Digest,
        /// A description of the problem.
        problem: String,
    },
    /// The key of metadata or locations isn't a digest.
    #[error("metadata or locations of an op")]
    Key {
        /// The error of the digest's parser.
        source: ParseDigestError,
    },
    /// An input isn't an op of the definition.
    #[error("op {op}: input {input} is not in the definition")]
    Undefined {
        /// The digest of the op.
        op: Digest,
        /// The digest of the op's input.
        input: Digest,
    },
    /// Ops read each other's results.
    #[error("op {op}: reads its own result")]
    Cycle {
        /// The digest of one of the ops.
        op: Digest,
    },
    /// The definition has no ops or no head.
    #[error("the definition has no target")]
    NoTarget,
}

impl Graph {
    /// Decodes and checks a definition. Every input must be defined and have the output that is
    /// read. There must be no cycle, and every index and enumeration value must be valid.
    ///
    /// # Errors
    /// Returns the first problem.
    pub fn load(definition: &Definition) -> Result<Self, GraphError> {
        Self::load_all(std::slice::from_ref(definition))
    }

    /// Decodes and checks definitions and combines them into one graph with a target for each. An
    /// op in several definitions is one vertex, with the metadata of the first definition.
    ///
    /// # Errors
    /// Fails in the same cases as [`Graph::load`].
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
        let order = shape
            .order(targets.iter().map(|target| target.0))
            .map_err(|Cycle(number)| GraphError::Cycle { op: decoded[number].0 })?;
        Ok(Self::assemble(&MergedMetadata::merge(definitions), decoded, &order, &targets))
    }

    /// Creates the graph with the vertices in the order `order`.
    fn assemble(
        said: &MergedMetadata,
        decoded: Vec<(Digest, Op)>,
        order: &[usize],
        targets: &[(usize, u32)],
    ) -> Self {
        let digests: Vec<Digest> = targets.iter().map(|(number, _)| decoded[*number].0).collect();
        let mut decoded: Vec<_> = decoded.into_iter().map(Some).collect();
        let mut numbers: HashMap<Digest, usize> = HashMap::new();
        let mut vertices: Vec<Vertex> = Vec::new();
        let mut shape = Shape::default();
        for (digest, op) in order.iter().filter_map(|number| decoded[*number].take()) {
            let number = shape.add_vertex();
            let inputs: Vec<_> = op
                .inputs
                .iter()
                .filter_map(|input| Some((*numbers.get(&input.digest)?, input.index)))
                .collect();
            for (input, index) in &inputs {
                shape.add_edge(*input, number, *index);
            }
            numbers.insert(digest, number);
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

    /// Returns the target of each definition as vertex and output.
    pub fn targets(&self) -> &[(usize, u32)] {
        &self.targets
    }

    /// Returns the source files that [`Vertex::locations`] refer to.
    pub fn sources(&self) -> &[SourceInfo] {
        &self.sources
    }

    /// Returns the vertices that read a result of `vertex`, in topological order without
    /// duplicates.
    pub fn users(&self, vertex: usize) -> Vec<usize> {
        let mut users: Vec<_> = self.shape.edges(vertex).iter().map(|edge| edge.user).collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    /// Returns the outputs of `vertex` that vertices or targets use, in ascending order.
    pub fn used_outputs(&self, vertex: usize) -> Vec<u32> {
        let mut outputs: Vec<_> = self.shape.edges(vertex).iter().map(|edge| edge.output).collect();
        outputs
            .extend(self.targets.iter().filter(|target| target.0 == vertex).map(|target| target.1));
        outputs.sort_unstable();
        outputs.dedup();
        outputs
    }
}

impl Graph {
    /// Returns the source locations of a vertex. If it has none, such as the source of an `ADD`,
    /// returns those of the nearest user with locations.
    pub fn locations(&self, vertex: usize) -> &[SourceLocation] {
        let mut current = vertex;
        loop {
            let own = self.vertices[current].locations.as_slice();
            // Users come after their inputs, so the loop ends.
            match self.users(current).into_iter().find(|user| *user > current) {
                Some(user) if own.is_empty() => current = user,
                _ => return own,
            }
        }
    }
}

impl Vertex {
    /// Returns the step's display name, or else a summary of its op.
    pub fn name(&self) -> String {
        self.metadata.name().map_or_else(|| self.op.summary(), str::to_owned)
    }
}

impl Op {
    /// Returns the number of outputs: the highest written one plus one.
    pub fn output_count(&self) -> u32 {
        let highest = match &self.kind {
            None => return 0,
            Some(OpKind::Exec(exec)) => {
                let mounts = exec.mounts.iter().filter(|mount| mount.kind.has_content());
                mounts.filter_map(|mount| mount.output).max()
            }
            Some(OpKind::File(file)) => file.actions.iter().filter_map(|a| a.output).max(),
            Some(OpKind::Passthrough(op)) => return op.outputs.len() as u32,
            Some(OpKind::Source(_) | OpKind::Merge(_) | OpKind::Diff(_) | OpKind::Build(_)) => {
                Some(0)
            }
        };
        highest.map_or(0, |highest| highest + 1)
    }

    /// Returns a short description of the op.
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
            Some(OpKind::Passthrough(op)) => format!("passthrough {}", op.id),
        }
    }
}

impl FileActionKind {
    /// Returns a short description of the action.
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

/// The combined metadata of several definitions.
#[derive(Default)]
struct MergedMetadata {
    metadata: BTreeMap<Digest, OpMetadata>,
    locations: BTreeMap<Digest, Vec<SourceLocation>>,
    sources: Vec<SourceInfo>,
}

impl MergedMetadata {
    /// Combines the metadata. The first definition takes precedence, but `ignore_cache` of any of
    /// them applies.
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

    /// Returns the number of a source file. Equal files have one number.
    fn number(&mut self, source: &SourceInfo) -> u32 {
        let known = self.sources.iter().position(|known| known == source);
        known.unwrap_or_else(|| {
            self.sources.push(source.clone());
            self.sources.len() - 1
        }) as u32
    }
}

/// Decodes the distinct ops and numbers them by digest.
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

/// Connects inputs to their users and checks that each input has the output that is read.
fn connect(ops: &[(Digest, Op)], numbers: &HashMap<Digest, usize>) -> Result<Shape, GraphError> {
    let mut shape = Shape::new(ops.len());
    for (number, (digest, op)) in ops.iter().enumerate() {
        for input in &op.inputs {
            let from = *numbers
                .get(&input.digest)
                .ok_or(GraphError::Undefined { op: *digest, input: input.digest })?;
            let (source, source_op) = &ops[from];
            has_output(*source, source_op, input.index)?;
            shape.add_edge(from, number, input.index);
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

//! The graph during dispatch.
//!
//! The used files of a local context are known only when every stage is dispatched, but a [`Node`]
//! has its digest from the start. So dispatch collects *plans*, whose inputs are numbers of earlier
//! plans, and [`Graph::finish`] turns the plans that the target reaches into nodes. A plan's inputs
//! are always older than the plan, so one pass in order without recursion is enough.

use std::collections::BTreeSet;

use kiln_llb::op::{ExecOp, FileAction, FileActionKind, FileOp, MergeOp, Mount, OpKind, SourceOp};
use kiln_llb::{Edge, Node, OpMetadata};
use kiln_oci::Platform;

use crate::error::{Error, Span};

use super::capabilities;
use super::go_text;
use super::path;

/// The output of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Output {
    plan: usize,
}

/// The number of a set of used paths of a local context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PathSet(usize);

/// An op whose inputs are plans.
#[derive(Debug)]
pub(super) enum Plan {
    /// A source with complete attributes.
    Source(SourceOp),
    /// A directory of the client. The used paths become its `local.followpaths`.
    Local(SourceOp, PathSet),
    /// A process, and the sources of its mounts, in the order of [`ExecOp::mounts`].
    Exec(Box<ExecOp>, Vec<Option<Output>>),
    /// A sequence of file actions, and the files to which the first one applies.
    File(Option<Output>, Vec<Action>),
    /// A merge of layers, the lowest first.
    Merge(Vec<Output>),
    /// An output of a graph that the caller has made.
    Given(Edge),
}

/// A file action and the files from which it copies.
#[derive(Debug)]
pub(super) struct Action {
    /// The files to copy from; `None` for actions that don't copy, and for an empty file system.
    pub from: Option<Output>,
    /// The change to the files.
    pub kind: FileActionKind,
}

struct Entry {
    plan: Plan,
    platform: Option<Platform>,
    metadata: OpMetadata,
}

/// The plans, and the used paths of contexts.
#[derive(Default)]
pub(super) struct Graph {
    entries: Vec<Entry>,
    path_sets: Vec<BTreeSet<String>>,
}

impl Graph {
    /// Adds an op. Only processes and images use `platform`.
    pub(super) fn add(
        &mut self,
        plan: Plan,
        platform: Option<Platform>,
        metadata: OpMetadata,
    ) -> Output {
        self.entries.push(Entry { plan, platform, metadata });
        Output { plan: self.entries.len() - 1 }
    }

    /// Adds an empty set of paths.
    pub(super) fn new_path_set(&mut self) -> PathSet {
        self.path_sets.push(BTreeSet::new());
        PathSet(self.path_sets.len() - 1)
    }

    /// Records that a path, relative to the root of a context, is used.
    pub(super) fn use_path(&mut self, set: PathSet, used: &str) {
        self.path_sets[set.0].insert(path::join("/", used));
    }

    /// Returns the used paths of a context relative to its root. Returns none if all of it is used.
    pub(super) fn used_paths(&self, set: PathSet) -> Vec<String> {
        followed_paths(&self.path_sets[set.0])
    }

    /// Creates nodes of all plans that `target` reaches.
    ///
    /// # Errors
    /// Fails on a reachable process without a program.
    pub(super) fn finish(self, target: Output) -> Result<Edge, Error> {
        let finished = self.finish_all(&[target])?;
        // The target is always reached, so the empty file system is never used.
        Ok(finished.into_iter().next().unwrap_or_else(|| {
            Node::new(OpKind::File(FileOp::default()), Vec::new(), None, OpMetadata::default())
                .output(0)
        }))
    }

    /// Creates nodes of all plans that some targets reach. Returns the targets' edges in order.
    ///
    /// # Errors
    /// Fails on a reachable process without a program.
    pub(super) fn finish_all(self, targets: &[Output]) -> Result<Vec<Edge>, Error> {
        let count = targets.iter().map(|target| target.plan + 1).max().unwrap_or_default();
        let mut reached = vec![false; self.entries.len()];
        for target in targets {
            reached[target.plan] = true;
        }
        for index in (0..count).rev() {
            if reached[index] {
                self.entries[index].check()?;
                self.entries[index].plan.for_each_input(|input| reached[input.plan] = true);
            }
        }
        let mut edges: Vec<Option<Edge>> = Vec::with_capacity(count);
        for (entry, reached) in self.entries.into_iter().zip(reached).take(count) {
            let edge = reached.then(|| entry.into_edge(&edges, &self.path_sets));
            edges.push(edge);
        }
        Ok(targets.iter().filter_map(|target| edges[target.plan].clone()).collect())
    }
}

impl Plan {
    fn for_each_input(&self, mut visit: impl FnMut(Output)) {
        match self {
            Self::Source(_) | Self::Local(..) | Self::Given(_) => {}
            Self::Exec(_, inputs) => inputs.iter().flatten().copied().for_each(visit),
            Self::File(base, actions) => {
                base.iter().copied().for_each(&mut visit);
                actions.iter().filter_map(|action| action.from).for_each(visit);
            }
            Self::Merge(inputs) => inputs.iter().copied().for_each(visit),
        }
    }
}

impl Entry {
    fn check(&self) -> Result<(), Error> {
        match &self.plan {
            Plan::Exec(exec, _) if exec.meta.args.is_empty() => {
                let spans = self.metadata.locations.iter();
                let spans = spans.map(|place| Span { start: place.start, end: place.end });
                Err(spans.fold(Error::new("arguments are required"), Error::at))
            }
            _ => Ok(()),
        }
    }

    fn into_edge(self, edges: &[Option<Edge>], path_sets: &[BTreeSet<String>]) -> Edge {
        let mut inputs = Inputs { edges, list: Vec::new() };
        let kind = match self.plan {
            Plan::Given(edge) => return edge,
            Plan::Source(source) => OpKind::Source(source),
            Plan::Local(source, set) => OpKind::Source(followed(source, &path_sets[set.0])),
            Plan::Exec(exec, sources) => OpKind::Exec(mounted(*exec, &sources, &mut inputs)),
            Plan::File(base, actions) => OpKind::File(changed(base, actions, &mut inputs)),
            Plan::Merge(layers) => OpKind::Merge(MergeOp {
                // The reference lists every layer, even duplicates.
                inputs: layers.into_iter().map(|layer| inputs.push(layer)).collect(),
            }),
        };
        let specific = match &kind {
            OpKind::Exec(_) => true,
            OpKind::Source(source) => {
                source.identifier.starts_with("docker-image://")
                    || source.identifier.starts_with("oci-layout://")
            }
            _ => false,
        };
        let mut metadata = self.metadata;
        metadata.caps = capabilities::of(&kind);
        Node::new(kind, inputs.list, self.platform.filter(|_| specific), metadata).output(0)
    }
}

/// The inputs of an op under construction.
struct Inputs<'a> {
    edges: &'a [Option<Edge>],
    list: Vec<Edge>,
}

impl Inputs<'_> {
    fn edge(&self, output: Output) -> Option<Edge> {
        self.edges.get(output.plan).cloned().flatten()
    }

    fn push(&mut self, output: Output) -> Option<u32> {
        let edge = self.edge(output)?;
        self.list.push(edge);
        Some(self.list.len() as u32 - 1)
    }

    /// Returns an input's number. If two nodes are the same op, `keep` selects the one that stays:
    /// the node that the reference visits last gives the step its name.
    fn number(&mut self, output: Option<Output>, keep: Keep) -> Option<u32> {
        let edge = self.edge(output?)?;
        let same = |other: &Edge| other.input() == edge.input();
        let index = self.list.iter().position(same).unwrap_or(self.list.len());
        if index == self.list.len() {
            self.list.push(edge);
        } else if keep == Keep::Later {
            self.list[index] = edge;
        }
        Some(index as u32)
    }
}

/// The node that stays if two nodes are the same op.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Earlier,
    Later,
}

fn mounted(mut exec: ExecOp, sources: &[Option<Output>], inputs: &mut Inputs<'_>) -> ExecOp {
    let mut outputs = 0;
    for (mount, source) in exec.mounts.iter_mut().zip(sources) {
        mount.input = inputs.number(*source, Keep::Later);
        if is_result(mount) {
            mount.output = Some(outputs);
            outputs += 1;
        }
    }
    exec
}

/// Returns `true` if the op outputs the final content of a mount. Of the mounts in a Dockerfile,
/// only the root's is an output.
fn is_result(mount: &Mount) -> bool {
    mount.output.is_some() && mount.kind == kiln_llb::op::MountKind::Bind
}

fn changed(base: Option<Output>, actions: Vec<Action>, inputs: &mut Inputs<'_>) -> FileOp {
    let base = inputs.number(base, Keep::Earlier);
    let secondary: Vec<Option<u32>> = actions
        .iter()
        .map(|action| {
            let before = inputs.list.len();
            let number = inputs.number(action.from, Keep::Earlier);
            if number.is_some() && number == base && before == 1 {
                return inputs.number(action.from, Keep::Later);
            }
            number
        })
        .collect();
    let count = inputs.list.len() as u32;
    let last = actions.len().saturating_sub(1);
    let actions = actions.into_iter().zip(secondary).enumerate();
    FileOp {
        actions: actions
            .map(|(number, (action, secondary_input))| FileAction {
                input: number.checked_sub(1).map_or(base, |before| Some(count + before as u32)),
                secondary_input,
                output: (number == last).then_some(0),
                kind: action.kind,
            })
            .collect(),
    }
}

/// Adds the used paths to a local source, unless the whole context is used.
fn followed(mut source: SourceOp, paths: &BTreeSet<String>) -> SourceOp {
    let paths = followed_paths(paths);
    if !paths.is_empty() {
        source.attrs.insert("local.followpaths".to_owned(), go_text::json_list(&paths));
    }
    source
}

/// Returns used paths relative to the root of their context. Returns none if all of it is used.
fn followed_paths(paths: &BTreeSet<String>) -> Vec<String> {
    if paths.contains("/") {
        return Vec::new();
    }
    let mut paths: Vec<String> =
        paths.iter().map(|used| path::clean(used.trim_start_matches('/'))).collect();
    paths.sort();
    paths
}

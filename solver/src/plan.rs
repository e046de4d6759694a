//! The static facts about a graph, computed before the build starts.

use kiln_llb::Graph;
use kiln_llb::Vertex;
use kiln_llb::op::Op;
use kiln_oci::Digest;

use crate::executor::{CacheRule, Executor, StepError};
use crate::name::step_name;

/// A graph with the facts that the driver looks up often.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// The requested outputs, as vertex and output number.
    pub(crate) targets: Vec<(usize, u32)>,
}

/// The facts about a vertex that don't change during the build.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) rule: CacheRule,
    /// The bytes that represent the op in its keys.
    pub(crate) salt: Vec<u8>,
    pub(crate) ignore_cache: bool,
    /// The input vertices, sorted and without duplicates.
    pub(crate) inputs: Vec<usize>,
    /// The input vertices that count by content, sorted and without duplicates.
    pub(crate) content: Vec<usize>,
    /// The vertices that have this one among their inputs.
    pub(crate) users: Vec<usize>,
    /// The number of outputs that users need: the highest number plus one.
    pub(crate) outputs: usize,
    /// `true` if no other step reads the files of its results.
    pub(crate) is_last: bool,
    /// The outputs that are part of a target.
    pub(crate) kept: Vec<u32>,
}

impl Step {
    /// Returns `true` if displays show the vertex as a step.
    pub(crate) fn visible(&self) -> bool {
        !self.rule.hidden
    }

    fn keep(&mut self, output: u32) {
        if !self.kept.contains(&output) {
            self.kept.push(output);
        }
    }

    /// Returns the digest that all steps with the same op share, whatever their inputs.
    pub(crate) fn kind(&self) -> Digest {
        Digest::of(&self.salt)
    }

    /// Returns the inputs of which neither this step nor a step that adds to it reads a file.
    fn added_to(&self) -> &[usize] {
        match self {
            step if !step.visible() => &step.rule.bases,
            step if step.is_last => &step.rule.added_to,
            _ => &[],
        }
    }

    /// Returns `true` if the step counts as one that can be cached.
    pub(crate) fn counted(&self) -> bool {
        self.visible() && !self.rule.ephemeral
    }
}

impl Plan {
    /// Returns `true` if an output of the vertex was requested.
    pub(crate) fn is_target(&self, number: usize) -> bool {
        self.targets.iter().any(|(target, _)| *target == number)
    }

    /// Returns the last vertex, which represents the build when no other is known.
    pub(crate) fn last(&self) -> usize {
        self.steps.len().saturating_sub(1)
    }

    /// Asks the executor for the rule of each vertex and computes the users of each vertex.
    ///
    /// # Errors
    /// Returns the number and name of the first vertex that can't be run, and the error.
    pub(crate) fn new<E: Executor>(
        graph: &Graph,
        executor: &E,
    ) -> Result<Self, (usize, String, StepError)> {
        let mut steps = Vec::with_capacity(graph.vertices().len());
        for (number, vertex) in graph.vertices().iter().enumerate() {
            let rule = executor.rule(vertex).map_err(|error| (number, step_name(vertex), error))?;
            steps.push(Step::new(vertex, rule));
        }
        let mut plan = Self { steps, targets: graph.targets().to_vec() };
        plan.connect(graph);
        Ok(plan)
    }

    fn connect(&mut self, graph: &Graph) {
        for (target, output) in &self.targets {
            let step = &mut self.steps[*target];
            step.outputs = step.outputs.max(*output as usize + 1);
            step.keep(*output);
        }
        // Users come after their inputs, so this order completes the users' facts first.
        for (number, vertex) in graph.vertices().iter().enumerate().rev() {
            let added_to = self.steps[number].added_to().to_vec();
            for (index, (input, output)) in vertex.inputs.iter().enumerate() {
                let step = &mut self.steps[*input];
                step.outputs = step.outputs.max(*output as usize + 1);
                step.is_last &= added_to.contains(&index);
                if step.users.last() != Some(&number) {
                    step.users.push(number);
                }
            }
            if self.steps[number].kept.is_empty() {
                continue;
            }
            for base in self.steps[number].rule.bases.clone() {
                if let Some((input, output)) = vertex.inputs.get(base) {
                    self.steps[*input].keep(*output);
                }
            }
        }
    }
}

impl Step {
    fn new(vertex: &Vertex, mut rule: CacheRule) -> Self {
        rule.content_inputs.retain(|index| *index < vertex.inputs.len());
        rule.content_inputs.dedup();
        rule.selected.resize(rule.content_inputs.len(), Vec::new());
        let distinct = |mut numbers: Vec<usize>| {
            numbers.sort_unstable();
            numbers.dedup();
            numbers
        };
        let inputs = distinct(vertex.inputs.iter().map(|(input, _)| *input).collect());
        let content = rule.content_inputs.iter().filter_map(|index| vertex.inputs.get(*index));
        let content = distinct(content.map(|(input, _)| *input).collect());
        let salt = rule.salt.take().unwrap_or_else(|| op_salt(&vertex.op));
        Self {
            name: step_name(vertex),
            salt,
            ignore_cache: vertex.metadata.ignore_cache,
            inputs,
            content,
            users: Vec::new(),
            outputs: 0,
            is_last: true,
            kept: Vec::new(),
            rule,
        }
    }
}

/// Returns the op's bytes without the digests of its inputs. Those cover the whole history, while a
/// key refers to inputs by key or content.
fn op_salt(op: &Op) -> Vec<u8> {
    Op { inputs: Vec::new(), ..op.clone() }.encode()
}

//! What is known of a graph before anything happens.

use kiln_llb::graph::Vertex;
use kiln_llb::{Graph, Op};

use crate::executor::{CacheRule, Executor, StepError};
use crate::name::step_name;

/// A graph with what the driver looks up again and again.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// What is asked for: vertices, and which of their outputs.
    pub(crate) targets: Vec<(usize, u32)>,
}

/// What doesn't change of a vertex.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) rule: CacheRule,
    /// What stands for the op in its keys.
    pub(crate) salt: Vec<u8>,
    pub(crate) ignore_cache: bool,
    /// Its inputs, each vertex once.
    pub(crate) inputs: Vec<usize>,
    /// Those of its inputs of which content matters, each vertex once.
    pub(crate) content: Vec<usize>,
    /// The vertices that have it among their inputs.
    pub(crate) users: Vec<usize>,
    /// How many steps follow it on the longest way to a target.
    pub(crate) height: u32,
    /// How many outputs somebody reads: one more than the highest number.
    pub(crate) outputs: usize,
}

impl Step {
    /// Tells whether people see it as a step.
    pub(crate) fn visible(&self) -> bool {
        !self.rule.hidden
    }

    /// Tells whether no other step reads its results.
    pub(crate) fn is_last(&self, plan: &Plan) -> bool {
        self.users.iter().all(|user| !plan.steps[*user].visible())
    }

    /// Tells whether it counts as a step that can be cached.
    pub(crate) fn counted(&self) -> bool {
        self.visible() && !self.rule.ephemeral
    }
}

impl Plan {
    /// Tells whether a vertex is asked for.
    pub(crate) fn is_target(&self, number: usize) -> bool {
        self.targets.iter().any(|(target, _)| *target == number)
    }

    /// Returns the vertex that stands for the whole where no other can be named.
    pub(crate) fn last(&self) -> usize {
        self.steps.len().saturating_sub(1)
    }

    /// Asks the executor for the rule of each vertex and works out who uses what.
    ///
    /// # Errors
    /// Returns the number of the first vertex that can't be run, its name, and why.
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
        }
        // Users come after their inputs, so that a user's height is final when it is read.
        for (number, vertex) in graph.vertices().iter().enumerate().rev() {
            let height = self.steps[number].height + 1;
            for (input, output) in &vertex.inputs {
                let step = &mut self.steps[*input];
                step.height = step.height.max(height);
                step.outputs = step.outputs.max(*output as usize + 1);
                if step.users.last() != Some(&number) {
                    step.users.push(number);
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
            height: 0,
            outputs: 0,
            rule,
        }
    }
}

/// Returns the op's bytes without its inputs' digests: they stand for the whole history, and a key
/// speaks of inputs by key or content.
fn op_salt(op: &Op) -> Vec<u8> {
    Op { inputs: Vec::new(), ..op.clone() }.encode()
}

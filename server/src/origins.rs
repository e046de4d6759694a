//! The requests that made the graphs of a build, for the provenance of its images.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bollard_buildkit_proto::pb;
use kiln::build::{GraphRequest, ProvenInput};
use prost::Message as _;

use crate::jobs::Job;
use crate::references::Reference;

/// A call of a frontend, and the graphs that it has made.
#[derive(Debug)]
pub(crate) struct FrontendCall {
    /// The request.
    pub(crate) request: GraphRequest,
    /// The graphs.
    pub(crate) made: Vec<Arc<Reference>>,
}

impl FrontendCall {
    /// Returns the request if it has made the graph that ends in an op.
    fn made(&self, head: &str) -> Option<ProvenInput> {
        let has_made = self.made.iter().any(|it| head_of(&it.definition).as_deref() == Some(head));
        has_made.then(|| ProvenInput {
            frontend: self.request.frontend.clone(),
            options: self.request.options.clone(),
            inputs: self.request.inputs.clone(),
        })
    }
}

/// Returns the digest of the op that a graph ends in.
fn head_of(graph: &pb::Definition) -> Option<String> {
    let last = pb::Op::decode(graph.def.last()?.as_slice()).ok()?;
    Some(last.inputs.first()?.digest.clone())
}

/// Returns the request of a build's client. `None` if the client requests nothing.
pub(crate) fn of_client(job: &Job) -> Option<ProvenInput> {
    let root = ProvenInput { inputs: of_inputs(job, &job.inputs), ..job.root.clone() };
    let is_empty = root.frontend.is_empty() && root.options.is_empty() && root.inputs.is_empty();
    (!is_empty).then_some(root)
}

/// Returns the requests that made the inputs of a frontend. An input that no frontend has made, or
/// that two different requests have made, has none.
pub(crate) fn of_inputs(
    job: &Job,
    inputs: &HashMap<String, pb::Definition>,
) -> BTreeMap<String, ProvenInput> {
    let find = |(name, graph): (&String, &pb::Definition)| {
        let head = head_of(graph)?;
        let mut found = job.each_call(|call| call.made(&head)).into_iter();
        let first = found.next()?;
        found.all(|other| other == first).then(|| (name.clone(), first))
    };
    inputs.iter().filter_map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graphs_are_known_by_the_op_that_they_end_in() {
        let input = pb::Input { digest: "sha256:1".to_owned(), index: 0 };
        let last = pb::Op { inputs: vec![input], ..pb::Op::default() }.encode_to_vec();
        let graph = pb::Definition { def: vec![Vec::new(), last], ..pb::Definition::default() };
        assert_eq!(head_of(&graph).as_deref(), Some("sha256:1"));
        assert_eq!(head_of(&pb::Definition::default()), None);
        let empty = pb::Definition { def: vec![Vec::new()], ..pb::Definition::default() };
        assert_eq!(head_of(&empty), None);
    }
}

//! The results that a client refers to: graphs that are solved when someone needs them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    self, AttestationKind, Attestations, InTotoSubject, Ref, RefMap, RefMapDeprecated,
    Result as Message, result,
};
use bollard_buildkit_proto::pb;
use kiln_llb::{Definition, Graph};
use kiln_solver::VertexKeys;
use kiln_worker::{Output, SourcePolicies};
use tokio::sync::OnceCell;
use tonic::Status;

use crate::caps;
use crate::errors::of_error;

/// A graph that a client has sent, and its result once it is solved.
#[derive(Debug)]
pub(crate) struct Reference {
    /// The graph as the client has sent it.
    pub(crate) definition: pb::Definition,
    /// The checked graph.
    graph: Arc<Graph>,
    /// The source policies that apply to this graph, besides the build's.
    pub(crate) policies: SourcePolicies,
    /// The graph that source policies have made of it, if they have replaced sources.
    enforced: OnceLock<(pb::Definition, Arc<Graph>)>,
    /// The result, or the reason why there is none.
    pub(crate) solved: OnceCell<Result<Output, Status>>,
    /// The cache keys of the graph's vertices, once it is solved.
    pub(crate) keys: OnceLock<Vec<Option<VertexKeys>>>,
}

impl Reference {
    /// Checks a graph. Returns `None` for one without ops, which stands for an empty file system.
    /// `policies` are for its sources, besides the build's.
    ///
    /// # Errors
    /// Fails if the graph is invalid, or if it needs a capability that the server lacks.
    pub(crate) fn new(
        message: pb::Definition,
        policies: SourcePolicies,
    ) -> Result<Option<Self>, Status> {
        if message.def.is_empty() {
            return Ok(None);
        }
        let definition = Definition::from_pb(message.clone()).map_err(|error| of_error(&error))?;
        for said in definition.metadata.values() {
            let wanted = said.caps.iter().filter(|(_, is_needed)| **is_needed).map(|(id, _)| id);
            if let Some(missing) = caps::missing(wanted) {
                let text = format!("requested feature {missing} is not supported by build server");
                return Err(Status::unimplemented(text));
            }
        }
        let graph = Arc::new(Graph::load(&definition).map_err(|error| of_error(&error))?);
        let (solved, keys, enforced) = (OnceCell::new(), OnceLock::new(), OnceLock::new());
        Ok(Some(Self { definition: message, graph, policies, enforced, solved, keys }))
    }

    /// Returns the graph to solve.
    pub(crate) fn graph(&self) -> &Arc<Graph> {
        self.enforced.get().map_or(&self.graph, |(_, graph)| graph)
    }

    /// Returns the definition of the graph to solve.
    pub(crate) fn definition(&self) -> &pb::Definition {
        self.enforced.get().map_or(&self.definition, |(definition, _)| definition)
    }

    /// Replaces the graph to solve, after source policies have replaced sources.
    pub(crate) fn replace(&self, definition: pb::Definition, graph: Graph) {
        // Set once, before the graph is solved.
        let _ = self.enforced.set((definition, Arc::new(graph)));
    }

    /// Returns the cache keys of the graph's vertices. None before the graph is solved.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Option<VertexKeys>> {
        self.keys.get().into_iter().flatten().copied()
    }
}

/// A result for one platform; `None` for an empty file system.
pub(crate) type Slot = Option<Arc<Reference>>;

/// The result of a frontend: files for each platform, and what it says about them.
#[derive(Clone, Debug, Default)]
pub(crate) struct FrontendResult {
    /// The files, unless there are several platforms.
    pub(crate) single: Slot,
    /// The files by the platform's ID.
    pub(crate) several: BTreeMap<String, Slot>,
    /// The metadata, such as the image config.
    pub(crate) metadata: HashMap<String, Vec<u8>>,
    /// The statements about the images, by the platform's ID.
    pub(crate) attestations: BTreeMap<String, Vec<Attestation>>,
}

/// A statement about an image, or a directory of them.
#[derive(Clone, Debug)]
pub(crate) struct Attestation {
    /// The kind of the file.
    pub(crate) kind: AttestationKind,
    /// The metadata, such as the reason for the statement.
    pub(crate) metadata: HashMap<String, Vec<u8>>,
    /// The result that holds the file.
    pub(crate) slot: Slot,
    /// The path of the file, or the directory of a bundle.
    pub(crate) path: String,
    /// The type of the predicate. Empty for a bundle with statements of any type.
    pub(crate) predicate_type: String,
    /// The artifacts that the statement is about.
    pub(crate) subjects: Vec<InTotoSubject>,
}

impl Attestation {
    fn to_message(&self, reference: Ref) -> frontend::Attestation {
        frontend::Attestation {
            kind: self.kind.into(),
            metadata: self.metadata.clone(),
            r#ref: Some(reference),
            path: self.path.clone(),
            in_toto_predicate_type: self.predicate_type.clone(),
            in_toto_subjects: self.subjects.clone(),
        }
    }

    fn from_message(message: frontend::Attestation, slot: Slot) -> Self {
        Self {
            kind: message.kind(),
            metadata: message.metadata,
            slot,
            path: message.path,
            predicate_type: message.in_toto_predicate_type,
            subjects: message.in_toto_subjects,
        }
    }
}

impl FrontendResult {
    /// Returns a result of one graph without metadata.
    pub(crate) fn of(single: Slot) -> Self {
        Self { single, ..Self::default() }
    }

    /// Returns all references.
    pub(crate) fn references(&self) -> impl Iterator<Item = &Arc<Reference>> {
        self.single.iter().chain(self.several.values().flatten())
    }

    /// Returns the message for a client. `register` returns the ID for a reference. A client that
    /// doesn't understand references with graphs gets IDs alone.
    pub(crate) fn to_message(
        &self,
        with_graphs: bool,
        mut register: impl FnMut(&Arc<Reference>) -> String,
    ) -> Message {
        let mut id = |slot: &Slot| slot.as_ref().map(&mut register).unwrap_or_default();
        let full = |id: String, slot: &Slot| Ref {
            id,
            def: slot.as_ref().map(|reference| reference.definition.clone()),
        };
        let several: Vec<(String, String, &Slot)> =
            self.several.iter().map(|(name, slot)| (name.clone(), id(slot), slot)).collect();
        let result = match (several.is_empty(), with_graphs) {
            (true, true) => result::Result::Ref(full(id(&self.single), &self.single)),
            (true, false) => result::Result::RefDeprecated(id(&self.single)),
            (false, true) => result::Result::Refs(RefMap {
                refs: several.into_iter().map(|(name, id, slot)| (name, full(id, slot))).collect(),
            }),
            (false, false) => result::Result::RefsDeprecated(RefMapDeprecated {
                refs: several.into_iter().map(|(name, id, _)| (name, id)).collect(),
            }),
        };
        let attestations = self.attestations.iter().map(|(name, list)| {
            let list = list.iter().map(|it| it.to_message(full(id(&it.slot), &it.slot)));
            (name.clone(), Attestations { attestation: list.collect() })
        });
        let attestations = attestations.collect();
        Message { metadata: self.metadata.clone(), attestations, result: Some(result) }
    }

    /// Reads a client's message. `find` returns the reference of an ID that isn't empty.
    ///
    /// # Errors
    /// Fails if `find` fails.
    pub(crate) fn from_message(
        message: Message,
        find: impl Fn(&str) -> Result<Slot, Status>,
    ) -> Result<Self, Status> {
        let slot = |id: &str| if id.is_empty() { Ok(None) } else { find(id) };
        let mut read = Self { metadata: message.metadata, ..Self::default() };
        for (name, list) in message.attestations {
            let list = list.attestation.into_iter().map(|message| {
                let id = message.r#ref.as_ref().map(|it| it.id.as_str()).unwrap_or_default();
                let slot = slot(id)?;
                Ok(Attestation::from_message(message, slot))
            });
            read.attestations.insert(name, list.collect::<Result<_, Status>>()?);
        }
        match message.result {
            None => {}
            Some(result::Result::Ref(Ref { id, .. }) | result::Result::RefDeprecated(id)) => {
                read.single = slot(&id)?;
            }
            Some(result::Result::Refs(RefMap { refs })) => {
                for (name, Ref { id, .. }) in refs {
                    read.several.insert(name, slot(&id)?);
                }
            }
            Some(result::Result::RefsDeprecated(RefMapDeprecated { refs })) => {
                for (name, id) in refs {
                    read.several.insert(name, slot(&id)?);
                }
            }
        }
        Ok(read)
    }
}

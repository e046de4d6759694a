//! What keys are made of, told to whoever wants to say later why a step has missed.

use kiln_oci::Digest;

use crate::event::VertexId;
use crate::key::Key;

/// What something is made of, by name, as people know it. Names that begin with [`VARIABLE`] are
/// those of variables.
pub type Ingredients = Vec<(String, String)>;

/// What the name of an ingredient begins with that is a variable of a process.
pub const VARIABLE: &str = "variable ";

/// A step's canonical key, and what it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepKey {
    /// The key.
    pub key: Key,
    /// The digest of what stands for the op in the key.
    pub salt: Digest,
    /// What that is made of.
    pub ingredients: Ingredients,
    /// The lines that the step came from.
    pub instruction: Option<String>,
    /// The inputs, in their order.
    pub inputs: Vec<StepInput>,
    /// Whether the contents of inputs were looked at. Where the definition key was known already,
    /// they weren't, and every input counts by its key here.
    pub by_link: bool,
    /// Whether the result is looked up.
    pub lookup: Lookup,
}

/// An input of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepInput {
    /// The vertex that makes it.
    pub vertex: VertexId,
    /// What the step's key says about it.
    pub part: InputPart,
    /// The paths that are selected of it, where it counts by its content.
    pub selected: Vec<String>,
    /// What an ephemeral input is made of; nothing of others, which have keys of their own.
    pub ingredients: Ingredients,
}

/// What a key says about an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputPart {
    /// The canonical key of the vertex that makes it.
    Key(Key),
    /// The digest of what is selected of it.
    Content(Digest),
}

/// Whether a result is looked up under its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It is.
    Asked,
    /// It isn't: the vertex is to run in any case.
    Ignored,
    /// It isn't: this input is made anew, or of something that is.
    Fresh(VertexId),
    /// It isn't: this input is made in each build, or of something that is.
    Ephemeral(VertexId),
}

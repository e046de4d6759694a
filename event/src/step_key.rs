//! The parts of keys, from which a caller can explain cache misses.

use std::fmt;

use kiln_oci::Digest;
use serde::{Deserialize, Serialize};

use crate::event::VertexId;

/// The hash that identifies a result in the cache.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(pub Digest);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.hex())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0.short())
    }
}

/// The readable parts of a salt, as pairs of name and value. Names of environment variables begin
/// with [`VARIABLE`].
pub type Ingredients = Vec<(String, String)>;

/// The prefix of an ingredient's name that marks a process's environment variable.
pub const VARIABLE: &str = "variable ";

/// The canonical key of a step and its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepKey {
    /// The canonical key of the step.
    pub key: Key,
    /// The digest of the bytes that represent the op in the key.
    pub salt: Digest,
    /// The readable parts of the salt.
    pub ingredients: Ingredients,
    /// The source lines of the instruction that the step comes from.
    pub instruction: Option<String>,
    /// The inputs in the op's order.
    pub inputs: Vec<StepInput>,
    /// `true` if a link led to the canonical key. The contents of the inputs weren't read, and
    /// every input is listed with its key.
    pub by_link: bool,
    /// The state of the lookup under this key.
    pub lookup: Lookup,
}

/// An input of a step, as its key sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepInput {
    /// The number of the vertex that produces the input.
    pub vertex: VertexId,
    /// The input's part of the step's key.
    pub part: InputPart,
    /// The selected paths, if the input counts by its content.
    pub selected: Vec<String>,
    /// The readable parts of an ephemeral input. Empty for other inputs, which have events of their
    /// own.
    pub ingredients: Ingredients,
}

/// The part of a key that represents one input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputPart {
    /// The canonical key of the input's vertex.
    Key(Key),
    /// The digest of the selected content of the input.
    Content(Digest),
}

/// The decision to look a result up, or the reason not to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The solver asks the cache.
    Asked,
    /// The step runs in any case, because its vertex ignores the cache.
    Ignored,
    /// The step runs because this input, or one of its own inputs, ignores the cache.
    Fresh(VertexId),
    /// The step runs because this input, or one of its own inputs, is ephemeral.
    Ephemeral(VertexId),
}

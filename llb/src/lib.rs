//! BuildKit's low-level build graph (LLB): op types, canonical bytes, digests, checked graphs.
//!
//! A build is a graph whose vertices are [ops](op) and whose edges lead from an op's outputs to
//! the inputs of others. An op names its inputs by digest, so an op's digest covers everything
//! below it, and a graph is nothing but a list of ops. There are two views:
//!
//! - [`Node`] and [`Edge`]: a graph under construction, as the frontend makes it. Nodes own their
//!   inputs; [`Edge::marshal`] writes everything that an edge needs as a [`Definition`].
//! - [`Graph`]: a definition that was decoded and checked, as the solver takes it. What comes in
//!   is hostile until [`Graph::load`] has seen it.
//!
//! # Canonical bytes
//!
//! An op's digest is the SHA-256 of its bytes, and an op that BuildKit's client would write has to
//! come out with the same digest here. So the bytes are those of the Go protobuf encoder in its
//! deterministic mode, written by an encoder of our own, for protobuf itself defines no canonical
//! form and other encoders differ:
//!
//! - Fields stand in ascending number, **but the member of a oneof last**. An op is its inputs (1),
//!   platform (10), constraints (11), and then what it does (2 to 7).
//! - Map entries are sorted by key, bytewise, and have both key and value even where those are
//!   empty.
//! - Numbers, texts, bytes, truth values and enumeration values that are zero or empty are left
//!   out, unless they are members of a oneof (user 0 is written) or of a list.
//! - Messages that are set are written even where they are empty. Every op but the head has the
//!   message of worker constraints, nearly always empty: `5a 00`.
//! - Negative numbers are varints of ten bytes. An index of -1 stands for "no input" and "no
//!   output"; the types here have `None`.
//! - Lists of numbers are packed.
//!
//! The *head*, the last op of a definition, has no kind and no constraints: its only input is the
//! target.
//!
//! An op that was received keeps the bytes in which it came, and their digest. It is never encoded
//! again: bytes may hold fields that this version doesn't know, and another encoder's order.
//!
//! # Order of a definition
//!
//! [`Edge::marshal`] lists ops in the order in which BuildKit's client meets them: depth first,
//! inputs before their users, each op once. A node's inputs are visited in the op's own order,
//! except below a file op, whose actions are visited from the last to the first.

pub mod base64;
mod decode;
pub mod definition;
pub mod dump;
mod encode;
mod extension;
pub mod go_json;
pub mod graph;
pub mod json;
pub mod node;
pub mod op;
mod schema;
mod wire;

pub use bollard_buildkit_proto::pb;
pub use definition::{Definition, OpMetadata, SourceInfo, SourceLocation};
pub use graph::{Graph, GraphError, Vertex};
pub use json::JsonError;
pub use node::{Edge, Node};
pub use op::Op;

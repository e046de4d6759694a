//! BuildKit's low-level build graph (LLB): op types, canonical bytes, digests, checked graphs.
//!
//! A build is a graph. Its vertices are [ops](op), and its edges lead from an op's outputs to the
//! inputs of others. An op refers to its inputs by digest, so an op's digest covers everything
//! below it, and a graph is simply a list of ops. There are two views:
//!
//! - [`Node`] and [`Edge`]: a graph under construction in the frontend. Nodes own their inputs;
//!   [`Edge::marshal`] writes everything that an edge depends on as a [`Definition`].
//! - [`Graph`]: a decoded and checked definition for the solver. Received definitions are untrusted
//!   until [`Graph::load`] has checked them.
//!
//! # Canonical bytes
//!
//! An op's digest is the SHA-256 of its bytes. An op must have the same digest here as in
//! BuildKit's client, so the bytes are those of the Go protobuf encoder in its deterministic mode.
//! Protobuf itself defines no canonical form, and other encoders differ. This crate therefore has
//! its own encoder:
//!
//! - Fields are in ascending order of their numbers, **but the member of a oneof comes last**. An
//!   op consists of its inputs (1), platform (10), constraints (11), and then its kind (2 to 7).
//! - Map entries are sorted by the bytes of their keys. They contain key and value even if these
//!   are empty.
//! - Numbers, texts, bytes, booleans and enumeration values that are zero or empty are left out,
//!   unless they are members of a oneof (user 0 is written) or of a list.
//! - Set messages are written even if they are empty. Every op except the head has the message of
//!   worker constraints, which is nearly always empty: `5a 00`.
//! - Negative numbers are varints of ten bytes. The index -1 means "no input" or "no output"; the
//!   types in this crate use `None`.
//! - Lists of numbers are packed.
//!
//! The *head*, the last op of a definition, has no kind and no constraints: its only input is the
//! target.
//!
//! A received op keeps the bytes in which it came, and their digest. It is never encoded again,
//! because the bytes may contain fields that this version doesn't know, or follow another encoder's
//! order.
//!
//! # Order of a definition
//!
//! [`Edge::marshal`] lists ops in the order of BuildKit's client: depth first, inputs before their
//! users, each op once. A node's inputs are visited in the op's own order. A file op is an
//! exception: its actions are visited from the last to the first.

pub mod base64;
mod decode;
mod definition;
pub mod dump;
mod encode;
mod extension;
pub mod go_json;
mod graph;
pub mod json;
mod node;
pub mod op;
mod rewrite;
mod schema;
mod wire;

pub use bollard_buildkit_proto::pb;
pub use definition::{Definition, OpMetadata, SourceInfo, SourceLocation};
pub use graph::{Graph, GraphError, Vertex};
pub use node::{Edge, Node};
pub use rewrite::replace_sources;

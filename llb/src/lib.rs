//! BuildKit's low-level build graph.

mod base64;
mod decode;
pub mod definition;
pub mod dump;
mod encode;
pub mod graph;
pub mod json;
pub mod node;
pub mod op;
mod schema;
mod wire;

pub use bollard_buildkit_proto::pb;
pub use definition::{Definition, OpMetadata, SourceInfo, SourceLocation};
pub use graph::{Graph, GraphError};
pub use node::{Edge, Node};
pub use op::Op;

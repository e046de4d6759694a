//! BuildKit's low-level build graph.

mod decode;
pub mod definition;
mod encode;
pub mod graph;
pub mod node;
pub mod op;
mod wire;

pub use bollard_buildkit_proto::pb;
pub use definition::{Definition, OpMetadata, SourceInfo, SourceLocation};
pub use graph::{Graph, GraphError};
pub use node::{Edge, Node};
pub use op::Op;

//! BuildKit's low-level build graph.

pub mod definition;
pub mod graph;
pub mod node;
pub mod op;

pub use bollard_buildkit_proto::pb;
pub use definition::{Definition, OpMetadata, SourceInfo, SourceLocation};
pub use graph::{Graph, GraphError};
pub use node::{Edge, Node};
pub use op::Op;

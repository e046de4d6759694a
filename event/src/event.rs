//! The events of a build.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use kiln_oci::Digest;

use crate::step_key::StepKey;

/// The number of a vertex in the order of its graph. Steps outside the graph, such as resolving an
/// image or writing an output, have higher numbers.
pub type VertexId = u32;

/// The stream of a process that output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    /// The process's standard output.
    Stdout,
    /// The process's standard error.
    Stderr,
}

/// The state of a layer in a pull or a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerState {
    /// The destination has the layer already.
    Exists,
    /// The transfer of the layer will begin.
    Waiting,
    /// The registry has added the layer from another repository.
    Mounted {
        /// The other repository's name within its registry, such as `library/alpine`.
        from: String,
    },
    /// The layer has been transferred.
    Transferred,
}

/// An event of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A vertex is part of the build. Sent once for each vertex, before its other events.
    Vertex {
        /// The number of the vertex.
        id: VertexId,
        /// The vertex's display name, such as `[build 2/5] RUN make`.
        name: String,
        /// The digest of the vertex's op. `None` for a step outside the graph.
        digest: Option<Digest>,
        /// The digests of the op's inputs, in the op's order.
        inputs: Vec<Digest>,
    },
    /// The vertex's key is known. Sent before the vertex starts or is found in the cache. Not sent
    /// for ephemeral vertices.
    Keyed {
        /// The number of the vertex.
        id: VertexId,
        /// The key and the parts that it depends on.
        key: Arc<StepKey>,
    },
    /// The vertex has started to run.
    Started {
        /// The number of the vertex.
        id: VertexId,
    },
    /// The vertex's result came from the cache or isn't needed.
    Cached {
        /// The number of the vertex.
        id: VertexId,
    },
    /// The vertex has run successfully.
    Completed {
        /// The number of the vertex.
        id: VertexId,
        /// The run time of the vertex.
        duration: Duration,
    },
    /// The vertex has failed.
    Failed {
        /// The number of the vertex.
        id: VertexId,
        /// The text of the error.
        error: String,
    },
    /// The vertex was cancelled, by the user or because another vertex failed.
    Cancelled {
        /// The number of the vertex.
        id: VertexId,
    },
    /// The progress of a part of a vertex, such as the download of a layer.
    Status {
        /// The number of the vertex.
        id: VertexId,
        /// The part's name, such as `sha256:… extracting`.
        name: String,
        /// The number of bytes done.
        current: u64,
        /// The total number of bytes, if known.
        total: Option<u64>,
        /// `true` if the part is complete.
        done: bool,
    },
    /// The progress of a layer between the store and a registry. [`Event::Status`] counts the bytes.
    Layer {
        /// The number of the vertex.
        id: VertexId,
        /// The digest of the layer's blob.
        digest: Digest,
        /// The new state of the layer.
        state: LayerState,
    },
    /// Output of a process, in the chunks that the process wrote. Chunks don't end at line ends.
    Log {
        /// The number of the vertex.
        id: VertexId,
        /// The stream that the process wrote to.
        stream: LogStream,
        /// The raw output, in any encoding.
        bytes: Vec<u8>,
    },
    /// A warning for the user.
    Warning {
        /// The number of the vertex that the warning is about, if any.
        id: Option<VertexId>,
        /// The text of the warning.
        message: String,
        /// The error behind the warning, if any. The text contains its message; it may have a hint.
        cause: Option<Cause>,
    },
}

impl Event {
    /// Returns the number of the vertex that the event is about, which the caller may change. `None`
    /// for a warning about the whole build.
    pub fn vertex_mut(&mut self) -> Option<&mut VertexId> {
        match self {
            Self::Vertex { id, .. }
            | Self::Keyed { id, .. }
            | Self::Started { id }
            | Self::Cached { id }
            | Self::Completed { id, .. }
            | Self::Failed { id, .. }
            | Self::Cancelled { id }
            | Self::Status { id, .. }
            | Self::Layer { id, .. }
            | Self::Log { id, .. } => Some(id),
            Self::Warning { id, .. } => id.as_mut(),
        }
    }
}

/// The error behind a warning. Cloning is cheap. Causes are equal if their messages are.
#[derive(Clone, Debug)]
pub struct Cause(Arc<dyn Error + Send + Sync>);

impl Cause {
    /// Wraps an error.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into().into())
    }

    /// Returns the error.
    pub fn error(&self) -> &(dyn Error + 'static) {
        self.0.as_ref()
    }
}

impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_string() == other.0.to_string()
    }
}

impl Eq for Cause {}

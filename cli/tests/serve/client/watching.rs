//! The progress of a build, as its client sees it.

use std::collections::BTreeMap;

use bollard_buildkit_proto::moby::buildkit::v1::{StatusResponse, Vertex, VertexWarning};
use tonic::Streaming;

/// The progress of a build that has ended.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    /// The name of the build.
    pub(crate) reference: String,
    /// The last message about each vertex, by digest.
    pub(crate) vertexes: BTreeMap<String, Vertex>,
    /// The output of programs.
    pub(crate) output: String,
    /// The warnings.
    pub(crate) warnings: Vec<VertexWarning>,
}

impl Watched {
    /// Reads a stream to its end.
    pub(crate) async fn read(reference: String, mut messages: Streaming<StatusResponse>) -> Self {
        let mut watched = Self { reference, ..Self::default() };
        loop {
            match messages.message().await {
                Ok(Some(message)) => watched.add(message),
                // The build has its own error.
                Ok(None) | Err(_) => return watched,
            }
        }
    }

    fn add(&mut self, message: StatusResponse) {
        for vertex in message.vertexes {
            self.vertexes.insert(vertex.digest.clone(), vertex);
        }
        for log in message.logs {
            self.output.push_str(&String::from_utf8_lossy(&log.msg));
        }
        self.warnings.extend(message.warnings);
    }

    /// Returns the vertex with a name.
    pub(crate) fn vertex(&self, name: &str) -> &Vertex {
        let found = self.vertexes.values().find(|vertex| vertex.name.contains(name));
        found.unwrap_or_else(|| panic!("no vertex {name}: {:#?}", self.vertexes))
    }

    /// Returns the names of all vertexes and whether they were cached, in order.
    pub(crate) fn steps(&self) -> Vec<(String, bool)> {
        let mut steps: Vec<_> =
            self.vertexes.values().map(|it| (it.name.clone(), it.cached)).collect();
        steps.sort();
        steps
    }
}

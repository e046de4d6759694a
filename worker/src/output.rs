//! The outputs of vertices.

use std::sync::Arc;

use kiln_store::LayerId;

use crate::source::local::LocalContext;

/// The output of a vertex. Cloning is cheap. The store keeps the layers until it is closed.
#[derive(Clone, Debug)]
pub enum Output {
    /// A chain of layers by its uppermost one. `None` stands for an empty file system.
    Layer(Option<LayerId>),
    /// A build context, which is read in place.
    Local(Arc<LocalContext>),
}

impl Output {
    /// Returns the uppermost layer of a chain (`Some(None)` for an empty file system), or `None`
    /// for a build context.
    pub fn layer(&self) -> Option<Option<&LayerId>> {
        match self {
            Self::Layer(layer) => Some(layer.as_ref()),
            Self::Local(_) => None,
        }
    }
}

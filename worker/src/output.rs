//! What an edge yields.

use std::sync::Arc;

use kiln_store::LayerId;

use crate::source::local::LocalContext;

/// What an edge yields. Cheap to clone; the store keeps the layers until it is closed.
#[derive(Clone, Debug)]
pub enum Output {
    /// A chain of layers by its uppermost; `None` for an empty file system.
    Layer(Option<LayerId>),
    /// A build context, read where it lies.
    Local(Arc<LocalContext>),
}

impl Output {
    /// Returns the uppermost layer of a chain (`Some(None)` for an empty file system), and `None`
    /// for a build context.
    pub fn layer(&self) -> Option<Option<&LayerId>> {
        match self {
            Self::Layer(layer) => Some(layer.as_ref()),
            Self::Local(_) => None,
        }
    }
}

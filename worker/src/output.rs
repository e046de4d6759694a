//! The outputs of vertices.

use std::path::Path;
use std::sync::Arc;

use kiln_event::Reporter;
use kiln_images::Snapshots;
use kiln_store::LayerId;

use crate::error::Result;
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

    /// Returns the uppermost layer of a chain. Copies a build context into a layer.
    pub(crate) fn to_layer(&self, snapshots: &Snapshots) -> Result<Option<LayerId>> {
        match self {
            Self::Layer(layer) => Ok(layer.clone()),
            Self::Local(context) => {
                let copy = context.copy(snapshots, Path::new("/"), &[])?;
                Ok(Some(snapshots.commit_pending(copy)?))
            }
        }
    }
}

/// Unpacks all layers of `outputs` that have no tree.
pub(crate) async fn materialise(
    snapshots: &Snapshots,
    outputs: impl IntoIterator<Item = &Output>,
    reporter: &Reporter,
) -> Result<()> {
    let tops = outputs.into_iter().filter_map(Output::layer).flatten();
    Ok(snapshots.materialise(tops, reporter).await?)
}

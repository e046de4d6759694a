//! A chain of layers as one directory.

use std::path::PathBuf;

use kiln_store::LayerId;
use kiln_tree::{Dir, Overlay};

use crate::error::{Error, Result};
use crate::export::ExportContext;

/// Opens the files of an image, as a container of it would see them. The overlay that shows them is
/// attached nowhere and goes with its descriptor.
///
/// The lowest tree of a chain has no whiteouts, and can be read as it is.
pub(crate) fn open(layer: Option<&LayerId>, context: &ExportContext<'_>) -> Result<Dir> {
    let Some(layer) = layer else {
        return Ok(Dir::open(&context.store.temp_dir()?)?);
    };
    let layers = context.store.layers();
    if layers.chain(layer)?.iter().any(|layer| !layer.has_tree) {
        context
            .fetcher
            .unpack(layer)
            .map_err(|source| Error::Fetch { layer: layer.to_string(), source })?;
    }
    layers.hold([layer])?;
    let chain = layers.chain(layer)?;
    layers.check_trees(&chain)?;
    let trees: Vec<PathBuf> = chain.iter().rev().map(|layer| layers.tree_path(&layer.id)).collect();
    match trees.as_slice() {
        [only] => Ok(Dir::open(only)?),
        _ => Ok(Overlay { lowers: trees, upper: None }.open()?),
    }
}

//! The layers of the steps in a build's provenance (`mode=max`).

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use kiln_attest::{BuildSteps, StepLayers};
use kiln_oci::{Descriptor, Digest};
use kiln_store::{LayerId, Store};

use crate::build::cache_export::Cacheable;

impl Cacheable<'_> {
    /// Adds the layers of all step outputs that are packed, or that are in the image whose uppermost
    /// layer is `top`.
    ///
    /// # Errors
    /// Fails if the store can't be read.
    pub(super) async fn describe_layers(
        &self,
        steps: &mut BuildSteps,
        store: &Store,
        top: Option<&LayerId>,
    ) -> Result<()> {
        let Some(graph) = self.graph else { return Ok(()) };
        let known = self.cache.known(self.keys).await.map_err(|error| anyhow!(error))?;
        let by_key: BTreeMap<Digest, Vec<Option<LayerId>>> =
            known.results.into_iter().map(|result| (result.key, result.outputs)).collect();
        let image = top.map(|top| chain(store, top)).transpose()?.unwrap_or_default();
        for (vertex, keys) in graph.vertices().iter().zip(self.keys) {
            let step = steps.digests.get(&vertex.digest.to_string());
            let outputs = keys.and_then(|keys| by_key.get(&keys.canonical.0));
            let (Some(step), Some(outputs)) = (step, outputs) else { continue };
            for (number, output) in outputs.iter().enumerate() {
                let Some(output) = output else { continue };
                if let Some(layers) = layers_of(store, output, &image)? {
                    steps.layers.insert(format!("{step}:{number}"), layers);
                }
            }
        }
        Ok(())
    }
}

/// Returns the IDs of a layer and those below it, the lowest first.
fn chain(store: &Store, top: &LayerId) -> Result<Vec<LayerId>> {
    Ok(store.layers().chain(top)?.into_iter().map(|layer| layer.id).collect())
}

/// Returns the layers of an output. `None` if one of them isn't packed.
fn layers_of(store: &Store, output: &LayerId, image: &[LayerId]) -> Result<Option<StepLayers>> {
    if let Some(position) = image.iter().position(|layer| layer == output) {
        return Ok(Some(StepLayers::First(position + 1)));
    }
    let mut own = Vec::new();
    for layer in chain(store, output)? {
        let Some(blob) = store.layers().blobs(&layer)?.into_iter().next() else { return Ok(None) };
        own.push(Descriptor::new(&blob.media_type, &blob.digest, blob.size));
    }
    Ok(Some(StepLayers::Own(own)))
}

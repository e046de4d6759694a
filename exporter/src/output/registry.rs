//! `type=registry`: images that are pushed to registries.

use std::collections::{BTreeMap, BTreeSet};

use kiln_images::{PackedLayer, packed_before};
use kiln_oci::Reference;
use kiln_registry::Repository;
use kiln_store::{LayerId, Store};

use super::image::Image;
use super::keys::{Checked, Keys};
use super::{Export, Output, options};
use crate::error::{Error, Result};
use crate::export::ExportContext;
use crate::push::{PushContext, Remote, Shipment, push};

/// Reads the keys of `type=registry`: the image is pushed, and stored on request.
pub(super) fn parse(keys: &mut Keys) -> Checked<Output> {
    let mut output = Output { push: true, ..options::image(keys, Image { is_stored: false })? };
    if keys.switch("push")? == Some(false) {
        return Err("type registry with push=false goes nowhere".to_owned());
    }
    if keys.switch("store")? == Some(true) {
        output.set_exporter(Image { is_stored: true });
    }
    options::repository(keys, &mut output)?;
    Ok(output)
}

impl Output {
    /// Creates an image in registries with default options.
    pub fn registry() -> Self {
        Self { push: true, ..Self::new(Image { is_stored: false }) }
    }
}

/// Returns the blob of a layer that was packed before, if the store doesn't have it but all
/// repositories of the output do. Such a layer needs neither packing nor an upload.
pub(crate) fn find_pushed(
    output: &Output,
    layer: &LayerId,
    store: &Store,
    remote: Option<Remote<'_>>,
) -> Result<Option<PackedLayer>> {
    let Some(remote) = remote.filter(|_| output.push && !output.names.is_empty()) else {
        return Ok(None);
    };
    let Some(packed) = packed_before(store, layer, output.packing)? else {
        return Ok(None);
    };
    let repositories: BTreeSet<Repository> = output.names.iter().map(Repository::from).collect();
    for repository in &repositories {
        let has = remote.client.has_blob(repository, &packed.digest);
        if !remote.runtime.block_on(has)? {
            return Ok(None);
        }
    }
    Ok(Some(packed))
}

/// Pushes an image under each of its names, or by digest only.
pub(super) fn upload(export: &Export<'_>, context: &ExportContext<'_>) -> Result<()> {
    let Export { assembled, output, .. } = *export;
    let problem = || Error::Unsupported("there is nobody to speak to registries".to_owned());
    let remote = context.remote.ok_or_else(problem)?;
    let mut repositories: BTreeMap<Repository, Vec<Reference>> = BTreeMap::new();
    for name in &output.naming.names(&output.names, assembled.top()?.digest) {
        let names = repositories.entry(Repository::from(name)).or_default();
        if !output.push_by_digest {
            names.push(name.clone());
        }
    }
    let shipment = Shipment::of(assembled)?;
    let progress = context.progress;
    let pushing = PushContext { store: context.store, remote, fetcher: context.fetcher, progress };
    progress.status("pushing layers", 0, None, false);
    for (repository, names) in &repositories {
        let digest = push(&shipment, repository, names, &pushing)?;
        let shown: Vec<String> = names.iter().map(ToString::to_string).collect();
        let shown = if shown.is_empty() { vec![repository.to_string()] } else { shown };
        for name in shown {
            progress.status(&format!("pushing manifest for {name}@{digest}"), 0, None, true);
        }
    }
    progress.status("pushing layers", 0, None, true);
    Ok(())
}

//! `type=registry`: images that are pushed to registries.

use std::collections::BTreeMap;

use kiln_oci::Reference;
use kiln_registry::Repository;

use super::image::Image;
use super::keys::{Checked, Keys};
use super::{Export, Output, options};
use crate::error::{Error, Result};
use crate::export::ExportContext;
use crate::push::{PushContext, Shipment, push};

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

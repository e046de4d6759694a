//! The push of an exported image to registries.

use std::collections::BTreeMap;

use kiln_oci::Reference;
use kiln_registry::Repository;

use crate::assemble::Assembled;
use crate::error::{Error, Result};
use crate::export::ExportContext;
use crate::push::{PushContext, Shipment, push};
use crate::spec::Output;

/// Pushes an image under each of its names, or by digest only.
pub(crate) fn write(
    assembled: &Assembled,
    output: &Output,
    context: &ExportContext<'_>,
) -> Result<()> {
    let problem = || Error::Unsupported("there is nobody to speak to registries".to_owned());
    let remote = context.remote.ok_or_else(problem)?;
    let mut repositories: BTreeMap<Repository, Vec<Reference>> = BTreeMap::new();
    for name in &output.naming.names(&output.names, assembled.top()?.descriptor.digest) {
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

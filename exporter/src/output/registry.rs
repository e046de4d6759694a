//! `type=registry`: images that are pushed to registries.

use std::collections::BTreeMap;

use kiln_oci::Reference;
use kiln_registry::{Pushed, Repository};

use super::image::Image;
use super::keys::{Checked, Keys};
use super::{Export, Output, options};
use crate::error::{Error, Result};
use crate::export::ExportContext;
use crate::progress::Progress;
use crate::push::{PushBlob, PushContext, PushObserver, Shipment, push};

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
    let observer = PushProgress(progress);
    let pushing =
        PushContext { store: context.store, remote, fetcher: context.fetcher, observer: &observer };
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

/// A push observer that reports to an export's progress.
pub(crate) struct PushProgress<'a>(pub(crate) &'a dyn Progress);

impl PushObserver for PushProgress<'_> {
    fn sending(&self, blob: &PushBlob, sent: u64) {
        let name = format!("pushing layer {}", blob.digest);
        self.0.status(&name, sent, Some(blob.size), false);
    }

    fn done(&self, blob: &PushBlob, how: &Pushed) {
        let name = match how {
            Pushed::Sent => {
                let name = format!("pushing layer {}", blob.digest);
                return self.0.status(&name, blob.size, Some(blob.size), true);
            }
            Pushed::Existed => format!("layer {} is there already", blob.digest),
            Pushed::Mounted(from) => format!("mounting layer {} from {from}", blob.digest),
        };
        self.0.status(&name, 0, None, true);
    }

    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }
}

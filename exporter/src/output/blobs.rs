//! Images whose blobs the caller takes.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Export, Exporter, Output, OutputForm, OutputKind};
use crate::error::Result;
use crate::export::ExportContext;
use crate::receiver::{BlobReceiver, BlobSink};

#[derive(Debug)]
struct Given {
    sink: BlobSink,
    is_for_one_platform: bool,
}

impl Output {
    /// Changes the destination of the image to a receiver of its blobs. The options stay.
    pub fn give_blobs_to(&mut self, receiver: Arc<dyn BlobReceiver>) {
        let is_for_one_platform = self.form().is_for_one_platform;
        self.set_exporter(Given { sink: BlobSink(receiver), is_for_one_platform });
    }
}

impl Exporter for Given {
    fn form(&self) -> OutputForm {
        let is_for_one_platform = self.is_for_one_platform;
        OutputForm { is_for_one_platform, ..OutputForm::of(OutputKind::Archive) }
    }

    fn write(&self, export: &mut Export<'_>, context: &mut ExportContext<'_>) -> Result<()> {
        let assembled = export.assembled;
        let mut seen = BTreeSet::new();
        for layer in assembled.images.iter().flat_map(|image| &image.layers) {
            if seen.insert(layer.digest) {
                self.sink.blob(context.store, &layer.digest, layer.size)?;
            }
        }
        assembled.documents().try_for_each(|document| self.sink.document(document))
    }
}

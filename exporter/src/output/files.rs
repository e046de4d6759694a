//! The files of images, for outputs without an image config, and outputs whose files the caller takes.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use kiln_event::Reporter;
use kiln_tree::Dir;

use super::{Export, Exporter, Output, OutputForm, OutputKind};
use crate::attest::FileAttestation;
use crate::error::{Error, Result};
use crate::export::ExportContext;
use crate::platforms;

/// The files of an image.
#[derive(Debug)]
pub struct ExportedFiles {
    /// The directory of the output that the files belong into. `None` for the output's root.
    pub below: Option<String>,
    /// The directory that holds the files.
    pub dir: Dir,
    /// The time of all files in seconds since 1970. `None` for the times that they have.
    pub epoch: Option<i64>,
    /// The files with attestations, which belong beside the image's files.
    pub attestations: Vec<FileAttestation>,
}

/// A receiver of the files of images. Its method blocks.
pub trait FilesReceiver: fmt::Debug + Send + Sync {
    /// Takes the files of all images.
    ///
    /// # Errors
    /// Fails if the files can't be read or don't arrive.
    fn receive(
        &self,
        files: Vec<ExportedFiles>,
        progress: &Reporter,
    ) -> std::result::Result<(), Box<dyn StdError + Send + Sync>>;
}

#[derive(Debug)]
struct Given(Arc<dyn FilesReceiver>);

impl Output {
    /// Changes the destination of the files to a receiver. The options stay.
    pub fn give_files_to(&mut self, receiver: Arc<dyn FilesReceiver>) {
        self.set_exporter(Given(receiver));
    }
}

impl Exporter for Given {
    fn form(&self) -> OutputForm {
        OutputForm { description: "the files", ..OutputForm::of(OutputKind::Files) }
    }

    fn write(&self, export: &mut Export<'_>, context: &mut ExportContext<'_>) -> Result<()> {
        let files = of_images(export, context)?;
        self.0.receive(files, context.progress).map_err(Error::Receive)
    }
}

/// Opens the files of all images of an output.
///
/// # Errors
/// Fails if images share a directory in which a path would have several meanings, and if an image has
/// a file with the name of an attestation.
pub(super) fn of_images(
    export: &Export<'_>,
    context: &ExportContext<'_>,
) -> Result<Vec<ExportedFiles>> {
    let Export { request, output, .. } = export;
    let is_split = output.is_split(request);
    let sources = platforms::open(request, context)?;
    if !is_split {
        platforms::check_conflicts(request, &sources)?;
    }
    let shares = !is_split && request.is_index();
    let prefix = &output.attestation_prefix;
    let images = request.images.iter().zip(sources).enumerate();
    let files = images.map(|(number, (image, dir))| {
        let attestations = request.attest_files(number, &dir, prefix, shares)?;
        let below = is_split.then(|| platforms::directory(&image.platform));
        Ok(ExportedFiles { below, dir, epoch: image.epoch, attestations })
    });
    files.collect()
}

//! The exporter's port for attestations over the crate that makes them.

use std::sync::Arc;

use kiln_attest::{Attestations, FileLayers, FilesSubject, ImageSubject, Sbom};
use kiln_exporter::{
    Attested, AttestedFiles, AttestedImage, ExportContext, ExportRequest, FileAttestation,
    ImageAttestations, open_files,
};

/// An attester that the exporter can call.
#[derive(Debug)]
struct Attester(kiln_attest::Attester);

/// Returns the attester of an export, or `None` if no attestation is requested. Searches the images
/// for packages if a bill of materials is requested.
///
/// # Errors
/// Fails if the files of an image can't be read.
pub(in crate::build) fn attester(
    asked: Attestations,
    request: &ExportRequest,
    context: &ExportContext<'_>,
) -> kiln_exporter::Result<Option<Arc<dyn kiln_exporter::Attester>>> {
    if asked.is_empty() {
        return Ok(None);
    }
    let mut sboms = Vec::new();
    for image in request.images.iter().filter(|_| asked.sbom.is_some()) {
        let name = "looking for packages";
        context.progress.status(name, 0, None, false);
        let files = open_files(image.layer.as_ref(), context)?;
        sboms.push(Sbom::scan(&files, context.store).map_err(failed)?);
        context.progress.status(name, 0, None, true);
    }
    let numbers = 0..request.images.len();
    let found = numbers.map(|number| file_layers(&asked, number, request, context));
    let found = found.collect::<kiln_exporter::Result<_>>()?;
    let attester = kiln_attest::Attester::new(asked, sboms).with_file_layers(found);
    Ok(Some(Arc::new(Attester(attester))))
}

/// Finds the layers of the files that statements about an image list.
fn file_layers(
    asked: &Attestations,
    number: usize,
    request: &ExportRequest,
    context: &ExportContext<'_>,
) -> kiln_exporter::Result<FileLayers> {
    let wanted = asked.described_files(number);
    let is_image = |output: &kiln_exporter::Output| output.is_image();
    let top = request.images[number].layer.as_ref().filter(|_| !wanted.is_empty());
    let Some(top) = top.filter(|_| request.outputs.iter().any(is_image)) else {
        return Ok(FileLayers::default());
    };
    let chain = context.store.layers().chain(top)?;
    FileLayers::find(wanted, chain.len(), |layer| {
        let listed = context.fetcher.list(&chain[layer])?;
        Ok(listed.paths().map(<[u8]>::to_vec).collect())
    })
}

fn failed(error: kiln_attest::Error) -> kiln_exporter::Error {
    kiln_exporter::Error::Attest(Box::new(error))
}

impl kiln_exporter::Attester for Attester {
    fn is_required(&self) -> bool {
        self.0.is_required()
    }

    fn warnings(&self) -> Vec<String> {
        self.0.warnings()
    }

    fn attest_image(&self, image: &AttestedImage<'_>) -> Attested<Option<ImageAttestations>> {
        let subject = ImageSubject {
            number: image.number,
            names: image.names,
            platform: image.platform,
            manifest: image.manifest,
            layers: image.layers,
            created: image.created,
        };
        let made = self.0.of_image(&subject, image.is_artifact)?;
        Ok(made.map(|made| ImageAttestations { manifest: made.manifest, blobs: made.blobs }))
    }

    fn attest_files(&self, files: &AttestedFiles<'_>) -> Attested<Vec<FileAttestation>> {
        let AttestedFiles { number, dir, created } = *files;
        let made = self.0.of_files(&FilesSubject { number, dir, created })?;
        let file = |file: kiln_attest::AttestationFile| FileAttestation {
            name: file.name,
            bytes: file.bytes,
        };
        Ok(made.into_iter().map(file).collect())
    }
}

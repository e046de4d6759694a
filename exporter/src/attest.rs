//! The port for attestations: statements about images and files that are exported with them.
//!
//! The export doesn't know the content of a statement. An [`Attester`] makes the documents once it
//! knows the image's manifest, or the files. An image needs an index for them, in which they are a
//! second manifest beside each platform's manifest. An image of one platform gets an index for this
//! purpose, too. Outputs of files get a file for each statement.

use std::error::Error as StdError;
use std::fmt;
use std::path::Path;

use kiln_oci::{Descriptor, Document, Platform, Reference};
use kiln_tree::{Attributes, Dir};

use crate::assemble::Image;
use crate::config;
use crate::error::{Error, Result};
use crate::export::ExportRequest;
use crate::output::{Output, OutputKind};
use crate::platforms;

/// The mode of the files with statements.
const MODE: u32 = 0o600;

/// A maker of attestations.
pub trait Attester: fmt::Debug + Send + Sync {
    /// Returns `true` if each output must hold the attestations. `false` leaves them out of outputs
    /// that would need a separate file, or an archive's index just for them.
    fn is_required(&self) -> bool;

    /// Returns warnings for the user.
    fn warnings(&self) -> Vec<String>;

    /// Returns the attestations of an image. Returns `None` for an image without any.
    fn attest_image(&self, image: &AttestedImage<'_>) -> Attested<Option<ImageAttestations>>;

    /// Returns the attestations of the files of an image.
    fn attest_files(&self, files: &AttestedFiles<'_>) -> Attested<Vec<FileAttestation>>;
}

/// A result of an [`Attester`].
pub type Attested<T> = std::result::Result<T, Box<dyn StdError + Send + Sync>>;

/// An image in an output.
#[derive(Clone, Copy, Debug)]
pub struct AttestedImage<'a> {
    /// The position of the image in [`ExportRequest::images`].
    pub number: usize,
    /// The names of the image in the output.
    pub names: &'a [Reference],
    /// The platform that the image is for.
    pub platform: &'a Platform,
    /// The manifest of the image.
    pub manifest: &'a Document,
    /// The layers of the image with OCI's media types, base first.
    pub layers: &'a [Descriptor],
    /// The creation time in the image's config.
    pub created: Option<&'a str>,
    /// `true` if the attestations must be an OCI 1.1 artifact.
    pub is_artifact: bool,
}

/// The files of an image in an output of files.
#[derive(Clone, Copy, Debug)]
pub struct AttestedFiles<'a> {
    /// The position of the image in [`ExportRequest::images`].
    pub number: usize,
    /// The directory that holds the files.
    pub dir: &'a Dir,
    /// The output's `SOURCE_DATE_EPOCH` in RFC 3339's format.
    pub created: Option<&'a str>,
}

/// The documents with the attestations of an image.
#[derive(Clone, Debug)]
pub struct ImageAttestations {
    /// The manifest that the index lists.
    pub manifest: Document,
    /// The documents that the manifest refers to.
    pub blobs: Vec<Document>,
}

/// A file with an attestation.
#[derive(Clone, Debug)]
pub struct FileAttestation {
    /// The name of the file. In a directory of several platforms, the platform is added to it.
    pub name: String,
    /// The content of the file.
    pub bytes: Vec<u8>,
}

impl ImageAttestations {
    /// Returns all documents. The manifest comes last.
    pub(crate) fn documents(&self) -> impl Iterator<Item = &Document> {
        self.blobs.iter().chain([&self.manifest])
    }
}

impl ExportRequest {
    /// Returns `true` if the output gets an index for its attestations alone.
    pub(crate) fn is_index_for_attestations(&self, output: &Output) -> bool {
        let is_archive = !matches!(output.kind(), OutputKind::Stored | OutputKind::Pushed);
        let attester = self.attester.as_ref();
        output.oci_types && attester.is_some_and(|it| it.is_required() || !is_archive)
    }

    /// Returns the attestations of the image at position `number`.
    pub(crate) fn attest_image(
        &self,
        number: usize,
        image: &Image,
        output: &Output,
    ) -> Result<Option<ImageAttestations>> {
        let attester = self.attester.as_ref().filter(|_| output.oci_types);
        let Some(attester) = attester else { return Ok(None) };
        let image = AttestedImage {
            number,
            names: &output.names,
            platform: &self.images[number].platform,
            manifest: &image.manifest,
            layers: &image.oci_layers(),
            created: image.created.as_deref(),
            is_artifact: output.oci_artifact == Some(true),
        };
        attester.attest_image(&image).map_err(Error::Attest)
    }

    /// Returns the attestations of the files in `dir`, which are those of the image at position
    /// `number`. Their names begin with `prefix`. `shares` is `true` if images of other platforms go
    /// to the same directory.
    ///
    /// # Errors
    /// Fails if there is a file with the name of an attestation.
    pub(crate) fn attest_files(
        &self,
        number: usize,
        dir: &Dir,
        prefix: &str,
        shares: bool,
    ) -> Result<Vec<FileAttestation>> {
        let image = &self.images[number];
        let Some(attester) = &self.attester else { return Ok(Vec::new()) };
        let created = image.epoch.and_then(|epoch| config::text_of_seconds(epoch).ok());
        let files = AttestedFiles { number, dir, created: created.as_deref() };
        let mut files = attester.attest_files(&files).map_err(Error::Attest)?;
        for file in &mut files {
            file.name.insert_str(0, prefix);
            if shares {
                file.name = file_name(&file.name, &platforms::directory(&image.platform));
            }
            if dir.metadata(Path::new(&file.name), false)?.is_some() {
                let problem = "the image has a file of that name; give another with filename=";
                return Err(Error::Unsupported(format!("can't write {}: {problem}", file.name)));
            }
        }
        Ok(files)
    }
}

/// Writes files with attestations into a directory. Replaces existing entries of the same names.
pub(crate) fn write(files: &[FileAttestation], dir: &Dir) -> Result<()> {
    for FileAttestation { name, bytes } in files {
        let path = Path::new(name);
        dir.remove_all(path)?;
        dir.write_file(path, bytes, &Attributes { mode: Some(MODE), ..Attributes::default() })?;
    }
    Ok(())
}

/// Inserts a platform before the extension of a file's name: `provenance.linux_amd64.json`.
fn file_name(name: &str, platform: &str) -> String {
    match name.rsplit_once('.') {
        Some((stem, extension)) => format!("{stem}.{platform}.{extension}"),
        None => format!("{name}.{platform}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_several_platforms_are_told_apart() {
        assert_eq!(file_name("sbom.spdx.json", "linux_arm_v7"), "sbom.spdx.linux_arm_v7.json");
        assert_eq!(file_name("sbom", "linux_arm_v7"), "sbom.linux_arm_v7");
    }

    #[test]
    fn links_in_the_way_are_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("secret"), "secret").unwrap();
        std::fs::create_dir(temp.path().join("out")).unwrap();
        std::os::unix::fs::symlink("../secret", temp.path().join("out/x.json")).unwrap();
        let dir = Dir::open(&temp.path().join("out")).unwrap();
        let file = FileAttestation { name: "x.json".to_owned(), bytes: b"{}".to_vec() };
        write(&[file], &dir).unwrap();
        assert_eq!(std::fs::read(temp.path().join("secret")).unwrap(), b"secret");
        assert_eq!(std::fs::read(temp.path().join("out/x.json")).unwrap(), b"{}");
    }
}

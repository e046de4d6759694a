//! The summary of an export.

use kiln_oci::Digest;

use crate::assemble::Assembled;
use crate::error::{Error, Result};
use crate::output::{Output, OutputKind, oci};

/// The digests, sizes and names of an exported image. Outputs of files (`local`, `tar`) have no
/// digests, because nothing is packed for them. If several outputs have different options, the
/// digests are the first output's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// The image ID: the digest of the config, or of the index if the output has one.
    pub image_id: Option<Digest>,
    /// The digest of the config. `None` if the output has an index.
    pub config: Option<Digest>,
    /// The digest of the manifest, or of the index if the output has one.
    pub manifest: Option<Digest>,
    /// The descriptor of the manifest or index as JSON.
    pub descriptor: Option<serde_json::Value>,
    /// The image's configs, manifests and index, and the documents of its attestations.
    pub documents: Vec<Vec<u8>>,
    /// The compressed size of the image in bytes, including its documents.
    pub size: Option<u64>,
    /// The full names of the image.
    pub names: Vec<String>,
    /// The warnings of the attester.
    pub warnings: Vec<String>,
    /// A message for each engine that has loaded the image.
    pub told: Vec<String>,
}

impl Exported {
    /// Adds the image that was written to an output.
    pub(crate) fn note(&mut self, assembled: &Assembled, output: &Output) -> Result<()> {
        let top = assembled.top()?;
        if self.manifest.is_none() {
            let config = || assembled.images.first().map(|image| image.config.digest);
            let index = assembled.index.as_ref().map(|index| index.digest);
            self.config = if index.is_some() { None } else { config() };
            self.image_id = index.or_else(config);
            self.manifest = Some(top.digest);
            let descriptor = match output.kind() {
                OutputKind::Stored | OutputKind::Pushed => top.descriptor.clone(),
                _ => oci::top(assembled)?,
            };
            let failed = |error: serde_json::Error| Error::Config(error.to_string());
            self.descriptor = Some(serde_json::to_value(descriptor).map_err(failed)?);
            self.size = Some(assembled.size());
        }
        self.documents.extend(assembled.documents().map(|document| document.bytes.clone()));
        for name in output.naming.names(&output.names, top.digest) {
            let name = name.to_string();
            if !self.names.contains(&name) {
                self.names.push(name);
            }
        }
        Ok(())
    }
}

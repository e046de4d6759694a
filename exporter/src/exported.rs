//! What an export has come to.

use kiln_oci::Digest;

use crate::assemble::Assembled;
use crate::error::{Error, Result};
use crate::oci;
use crate::spec::{Output, OutputKind};

/// What was exported. Outputs of files alone (`local`, `tar`) have no digests: nothing was packed for
/// them. Where outputs differ in options, the first of them is told of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// The image's ID: the digest of its config, or of the index where there is one.
    pub image_id: Option<Digest>,
    /// The digest of the config, where there is one image.
    pub config: Option<Digest>,
    /// The digest of the manifest, or of the index where there are several platforms.
    pub manifest: Option<Digest>,
    /// The descriptor of that, as JSON.
    pub descriptor: Option<serde_json::Value>,
    /// How many bytes the image has, compressed, with its documents.
    pub size: Option<u64>,
    /// The names that the image has got, in full.
    pub names: Vec<String>,
    /// What couldn't be found out about it.
    pub warnings: Vec<String>,
    /// What there is to say about where it went.
    pub told: Vec<String>,
}

impl Exported {
    /// Notes what was written to an output.
    pub(crate) fn note(&mut self, assembled: &Assembled, output: &Output) -> Result<()> {
        let top = &assembled.top()?.descriptor;
        if self.manifest.is_none() {
            let config = || assembled.images.first().map(|image| image.config.descriptor.digest);
            let index = assembled.index.as_ref().map(|index| index.descriptor.digest);
            self.config = if index.is_some() { None } else { config() };
            self.image_id = index.or_else(config);
            self.manifest = Some(top.digest);
            let descriptor = match &output.kind {
                OutputKind::Image | OutputKind::Registry => top.clone(),
                _ => oci::top(assembled)?,
            };
            let failed = |error: serde_json::Error| Error::Config(error.to_string());
            self.descriptor = Some(serde_json::to_value(descriptor).map_err(failed)?);
            self.size = Some(assembled.size());
        }
        for name in output.naming.names(&output.names, top.digest) {
            let name = name.to_string();
            if !self.names.contains(&name) {
                self.names.push(name);
            }
        }
        Ok(())
    }
}

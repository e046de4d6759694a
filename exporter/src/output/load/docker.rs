//! Loading into a Docker engine.

use std::collections::BTreeSet;

use kiln_images::PackedLayer;
use kiln_oci::{Digest, Reference};
use kiln_store::chain_id;
use tokio::runtime::Handle;

use super::api::{Api, ApiError, EngineAddress};
use super::{Failure, count, feed};
use crate::archive::Files;
use crate::assemble::{Assembled, Image};
use crate::error::Error;
use crate::export::ExportContext;
use crate::output::{docker, oci};

/// The maximum number of an engine's images that are inspected for layers.
const IMAGES: usize = 500;

/// A Docker engine that has answered a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerEngine {
    /// The address that the engine listens on.
    pub address: EngineAddress,
    /// `true` if containerd stores the images: compressed, and with indexes.
    pub keeps_blobs: bool,
}

impl DockerEngine {
    /// Connects to an engine and determines its kind.
    ///
    /// # Errors
    /// Fails if the address doesn't answer, or if the answer isn't a Docker engine's.
    pub async fn connect(address: EngineAddress) -> Result<Self, ApiError> {
        let runtime = Handle::current();
        let keeps_blobs = Api::new(&address, &runtime)?.info().await?.keeps_blobs();
        Ok(Self { address, keeps_blobs })
    }
}

/// Loads an image. Returns a message with the number of layers sent.
pub(super) fn load(
    engine: &DockerEngine,
    assembled: &Assembled,
    names: &[Reference],
    name: &str,
    context: &ExportContext<'_>,
) -> Result<String, Failure> {
    let runtime = context.remote.map(|remote| remote.runtime);
    let nobody = || Error::Unsupported("there is nobody to speak to engines".to_owned());
    let api = Api::new(&engine.address, runtime.ok_or_else(nobody)?)?;
    let loading = Loading { api, assembled, names, name, context };
    if engine.keeps_blobs { loading.blobs() } else { loading.layers() }
}

struct Loading<'a, 'c> {
    api: Api<'a>,
    assembled: &'a Assembled,
    names: &'a [Reference],
    name: &'a str,
    context: &'a ExportContext<'c>,
}

impl Loading<'_, '_> {
    /// Loads into an engine with containerd's image store, which identifies images by their
    /// manifest or index.
    fn blobs(&self) -> Result<String, Failure> {
        if self.is_there(&self.assembled.top()?.digest)? {
            return Ok("it was there already".to_owned());
        }
        let files = match (self.assembled.images.as_slice(), &self.assembled.index) {
            ([_], None) => docker::files(self.assembled, self.names)?,
            _ => oci::layout(self.assembled, self.names)?,
        };
        let layers = self.assembled.images.iter().flat_map(|image| &image.layers);
        let layers: Vec<&PackedLayer> = layers.collect();
        self.send(&files, &layers)?;
        Ok(format!("{} sent", count(layers.len(), "layer")))
    }

    /// Loads into an engine that identifies images by their config and unpacks layers.
    fn layers(&self) -> Result<String, Failure> {
        let [image] = self.assembled.images.as_slice() else {
            return Err(docker::no_index().into());
        };
        if self.is_there(&image.config.digest)? {
            return Ok("it was there already".to_owned());
        }
        let known = self.known(image)?;
        let mut files = docker::files(self.assembled, self.names)?;
        let missing = &image.layers[known..];
        for layer in &image.layers[..known] {
            // A layer further up may have the same digest.
            if !missing.iter().any(|other| other.digest == layer.digest) {
                files.remove_blob(&layer.digest);
            }
        }
        match self.send(&files, &missing.iter().collect::<Vec<_>>()) {
            Err(Failure::Engine(error)) if known > 0 && is_missed_file(&*error) => {
                let files = docker::files(self.assembled, self.names)?;
                self.send(&files, &image.layers.iter().collect::<Vec<_>>())?;
                Ok(format!("{} sent", count(image.layers.len(), "layer")))
            }
            Err(failure) => Err(failure),
            Ok(()) => Ok(format!("{} sent, {known} there already", count(missing.len(), "layer"))),
        }
    }

    /// Returns `true` if the engine has the image, and adds the names to it.
    fn is_there(&self, id: &Digest) -> Result<bool, Failure> {
        let id = id.to_string();
        if self.api.image(&id)?.is_none() {
            return Ok(false);
        }
        for name in self.names {
            self.api.tag(&id, name)?;
        }
        Ok(true)
    }

    /// Returns the number of layers, from the base up, that the engine has.
    fn known(&self, image: &Image) -> Result<usize, Failure> {
        let mut chains = Vec::new();
        for layer in &image.layers {
            chains.push(chain_id(chains.last(), &layer.diff_id));
        }
        let mut there = BTreeSet::new();
        let mut known = 0;
        let mut asked = BTreeSet::new();
        for listed in self.api.images()?.into_iter().take(IMAGES) {
            if known == chains.len() || !asked.insert(listed.id.clone()) {
                continue;
            }
            // The image may have been removed meanwhile.
            let Some(found) = self.api.image(&listed.id)? else { continue };
            let mut chain = None;
            for diff_id in found.layers() {
                let next = chain_id(chain.as_ref(), diff_id);
                there.insert(next);
                chain = Some(next);
            }
            known = chains.iter().take_while(|chain| there.contains(*chain)).count();
        }
        Ok(known)
    }

    fn send(&self, files: &Files, layers: &[&PackedLayer]) -> Result<(), Failure> {
        super::fetch(layers, self.context)?;
        let progress = self.context.progress;
        feed::send(files, self.context.store, self.name, progress, |body| {
            self.api.load(body, progress)
        })?;
        Ok(())
    }
}

/// Returns `true` if the engine reports a missing file of the archive.
fn is_missed_file(error: &(dyn std::error::Error + Send + Sync)) -> bool {
    error.to_string().contains("no such file")
}

//! Docker's engine.

use std::collections::BTreeSet;

use kiln_oci::{Digest, Reference};
use kiln_store::chain_id;
use tokio::runtime::Handle;

use super::api::{Api, ApiError, EngineAddress};
use super::{Failure, count, feed};
use crate::archive::Files;
use crate::assemble::{Assembled, Image};
use crate::error::Error;
use crate::export::ExportContext;
use crate::pack::PackedLayer;
use crate::{docker, oci};

/// How many of an engine's images are looked into for layers that it has.
const IMAGES: usize = 500;

/// A Docker engine that has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerEngine {
    /// Where it listens.
    pub address: EngineAddress,
    /// Whether images are kept by containerd, as they come, and indexes too.
    pub keeps_blobs: bool,
}

impl DockerEngine {
    /// Asks whoever listens whether it is an engine, and of which kind.
    ///
    /// # Errors
    /// Fails where nobody answers, or something else than an engine.
    pub async fn connect(address: EngineAddress) -> Result<Self, ApiError> {
        let runtime = Handle::current();
        let keeps_blobs = Api::new(&address, &runtime)?.info().await?.keeps_blobs();
        Ok(Self { address, keeps_blobs })
    }
}

/// Loads the image, and returns how much was sent.
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
    /// Loads into an engine that knows images by their manifests or indexes, and keeps them whole.
    fn blobs(&self) -> Result<String, Failure> {
        if self.is_there(&self.assembled.top()?.descriptor.digest)? {
            return Ok("it was there already".to_owned());
        }
        let files = match (self.assembled.images.as_slice(), &self.assembled.index) {
            ([_], None) => docker::archive(self.assembled, self.names)?,
            _ => oci::layout(self.assembled, self.names)?,
        };
        let layers = self.assembled.images.iter().flat_map(|image| &image.layers);
        let layers: Vec<&PackedLayer> = layers.collect();
        self.send(&files, &layers)?;
        Ok(format!("{} sent", count(layers.len(), "layer")))
    }

    /// Loads into an engine that knows images by their configs, and unpacks layers.
    fn layers(&self) -> Result<String, Failure> {
        let [image] = self.assembled.images.as_slice() else {
            return Err(docker::no_index().into());
        };
        if self.is_there(&image.config.descriptor.digest)? {
            return Ok("it was there already".to_owned());
        }
        let known = self.known(image)?;
        let mut files = docker::archive(self.assembled, self.names)?;
        let missing = &image.layers[known..];
        for layer in &image.layers[..known] {
            // The same bytes may be a layer further up as well.
            if !missing.iter().any(|other| other.digest == layer.digest) {
                files.remove_blob(&layer.digest);
            }
        }
        match self.send(&files, &missing.iter().collect::<Vec<_>>()) {
            Err(Failure::Engine(error)) if known > 0 && is_missed_file(&*error) => {
                let files = docker::archive(self.assembled, self.names)?;
                self.send(&files, &image.layers.iter().collect::<Vec<_>>())?;
                Ok(format!("{} sent", count(image.layers.len(), "layer")))
            }
            Err(failure) => Err(failure),
            Ok(()) => Ok(format!("{} sent, {known} there already", count(missing.len(), "layer"))),
        }
    }

    /// Gives an image that the engine has its names, and tells whether it has it.
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

    /// Returns how many of the lowest layers the engine has.
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
            // It may be gone by now.
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

/// Tells whether an engine has looked in vain for a file of the archive.
fn is_missed_file(error: &(dyn std::error::Error + Send + Sync)) -> bool {
    error.to_string().contains("no such file")
}

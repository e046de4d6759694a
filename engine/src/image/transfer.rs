//! Images that come into the store and go out of it: pull, push, load, import and save.

use std::io::Read;

use anyhow::{Context, Result, bail};
use kiln_event::Reporter;
use kiln_exporter::push::Remote;
use kiln_exporter::push::{PushContext, Shipment, push};
use kiln_exporter::{Destination, ExportContext, ImportRequest, SavedImage, import, save};
use kiln_images::{
    Fetcher, LoadOptions, LoadedImage, PullPolicy, PullRequest, Pulled, Snapshots, load,
};
use kiln_oci::{Digest, ImageConfig, Platform, Reference};
use kiln_registry::{Client, Repository};
use kiln_store::{ImageRow, Store};
use time::OffsetDateTime;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::{StoredImage, Wanted, find_rows, is_bare, no_such_image};
use crate::build::{OutputStream, Step};
use crate::engine::Engine;
use crate::image::named::is_tagged;
use crate::monitor::Monitor;

/// An image that was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedImage {
    /// The digest of the manifest or index.
    pub digest: Digest,
    /// The size of the manifest or index in bytes.
    pub size: usize,
    /// The index of which only this image was pushed, because the other platforms are neither in the
    /// store nor in the repository. `None` if the whole image was pushed.
    pub part_of: Option<Digest>,
}

impl Engine {
    /// Gives an image another name. An image that has the name loses it.
    ///
    /// # Errors
    /// Fails if no image matches `image`.
    pub fn tag(&self, image: &str, name: &Reference) -> Result<()> {
        let Some(row) = find_rows(&self.store, image)?.into_iter().next() else {
            return Err(no_such_image(&self.store, image));
        };
        let (name, created_at) = (Some(name.to_string()), now());
        Ok(self.store.images().put(&ImageRow { name, created_at, ..row })?)
    }

    /// Lists the tags of a repository at its registry.
    ///
    /// # Errors
    /// Fails if the registry refuses.
    pub async fn tags(&self, repository: &Repository) -> Result<Vec<String>> {
        Ok(self.images(PullPolicy::default()).tags(repository).await?)
    }

    /// Downloads an image and names it.
    ///
    /// # Errors
    /// Fails if the registry or the store refuses.
    pub async fn pull(
        &self,
        reference: &Reference,
        platform: &Platform,
        monitor: Monitor,
    ) -> Result<Pulled> {
        let resolver = self.images(PullPolicy::default());
        let (reference, platform) = (reference.clone(), platform.clone());
        let request = PullRequest { reference, platform, now: now() };
        let step = Step::begin(&monitor.events, format!("pulling {}", request.reference));
        let reporter = step.reporter(&monitor.cancel);
        Ok(step.end(resolver.pull(&request, &reporter).await)?)
    }

    /// Uploads an image of the store to the registry of `name`. If the store has a single platform of
    /// an index, and the repository lacks the others, uploads that platform's image alone.
    ///
    /// # Errors
    /// Fails if the registry or the store refuses.
    pub async fn push(
        &self,
        row: ImageRow,
        name: Reference,
        monitor: Monitor,
    ) -> Result<PushedImage> {
        let (engine, runtime) = (self.clone(), Handle::current());
        let work = move || {
            let step = Step::begin(&monitor.events, format!("pushing {name}"));
            let reporter = step.reporter(&monitor.cancel);
            step.end(engine.push_now(&row, &name, &reporter, &runtime))
        };
        spawn_blocking(work).await.context("push")?
    }

    fn push_now(
        &self,
        row: &ImageRow,
        name: &Reference,
        reporter: &Reporter,
        runtime: &Handle,
    ) -> Result<PushedImage> {
        let (client, repository) = (self.registries(), Repository::from(name));
        let mut shipment = Shipment::stored(&self.store, &row.digest, &row.media_type)?;
        let mut part_of = None;
        if !has_all(client, &shipment, &repository, runtime)? {
            if !shipment.reduce() {
                let (missing, whole) = (shipment.missing.len(), row.digest);
                bail!(
                    "{missing} images of the index {whole} are neither here nor in {repository}: \
                     pull them, or push the platforms that are here one by one"
                );
            }
            part_of = Some(row.digest);
        }
        let fetcher = self.fetcher(runtime, reporter);
        let context = PushContext {
            store: &self.store,
            remote: Remote { client, runtime },
            fetcher: &fetcher,
            progress: reporter,
        };
        let digest = push(&shipment, &repository, std::slice::from_ref(name), &context)?;
        let size = shipment.top().map_or(0, |top| top.bytes.len());
        Ok(PushedImage { digest, size, part_of })
    }

    /// Returns a fetcher of base image layers that the store lacks because nothing has used them.
    fn fetcher(&self, runtime: &Handle, reporter: &Reporter) -> Fetcher {
        let snapshots = Snapshots::new(self.store.clone(), &self.images(PullPolicy::default()));
        Fetcher::new(snapshots, runtime.clone(), reporter.clone())
    }

    /// Takes in the images of an archive that docker, kiln or another tool has written.
    ///
    /// # Errors
    /// Fails if the archive can't be read or holds no images.
    pub async fn load(
        &self,
        archive: impl Read + Send + 'static,
    ) -> Result<Vec<LoadedImage>, kiln_images::Error> {
        let options =
            LoadOptions { store: self.store.clone(), limits: self.archive_limits(), now: now() };
        kiln_images::blocking(move || load(archive, &options)).await
    }

    /// Makes an image of the archive of a root file system, and returns its ID. `message` stands in
    /// the image's history.
    ///
    /// # Errors
    /// Fails if the archive can't be read.
    pub async fn import(
        &self,
        mut archive: impl Read + Send + 'static,
        config: ImageConfig,
        message: String,
        name: Option<Reference>,
    ) -> Result<Digest> {
        let (names, limits) = (name.into_iter().collect(), self.archive_limits());
        let request = ImportRequest { config, message, names, now: now(), limits };
        let store = self.store.clone();
        let work = move || import(&mut archive, request, &store);
        Ok(spawn_blocking(work).await.context("import")??)
    }

    /// Writes images to an archive in the layout that docker and kiln load. A name without a tag
    /// stands for all tags of the repository. `stream` is the destination [`Destination::Stdout`].
    ///
    /// # Errors
    /// Fails if no image matches a text, or if the archive can't be written.
    pub async fn save(
        &self,
        images: &[String],
        platform: Option<&Platform>,
        dest: Destination,
        mut stream: OutputStream,
        monitor: Monitor,
    ) -> Result<()> {
        let images = chosen(&self.store, images, platform)?;
        let (engine, runtime) = (self.clone(), Handle::current());
        let work = move || {
            let step = Step::begin(&monitor.events, "fetching layers".to_owned());
            let fetcher = engine.fetcher(&runtime, &step.reporter(&monitor.cancel));
            let mut context = ExportContext {
                store: &engine.store,
                fetcher: &fetcher,
                limits: engine.archive_limits(),
                progress: &Reporter::silent(),
                remote: None,
                stdout: &mut stream,
            };
            step.end(save(&images, &dest, &mut context))
        };
        spawn_blocking(work).await.context("save")??;
        Ok(())
    }
}

fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// Returns `true` if the repository has all manifests of the index that the store lacks.
fn has_all(
    client: &Client,
    shipment: &Shipment,
    repository: &Repository,
    runtime: &Handle,
) -> Result<bool> {
    for missing in &shipment.missing {
        if !runtime.block_on(client.has_manifest(repository, missing))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns the images to save, without duplicates.
fn chosen(store: &Store, texts: &[String], platform: Option<&Platform>) -> Result<Vec<SavedImage>> {
    let mut images: Vec<SavedImage> = Vec::new();
    for text in texts {
        for (row, name) in rows(store, text)? {
            let image = saved(store, row, platform).with_context(|| format!("image {text}"))?;
            match images.iter_mut().find(|known| known.digest == image.digest) {
                Some(known) => known.names.extend(name.filter(|name| !known.names.contains(name))),
                None => images.push(SavedImage { names: name.into_iter().collect(), ..image }),
            }
        }
    }
    Ok(images)
}

/// Returns the images that a text names, with the names to save them under. An image named by its
/// ID is saved without a name.
fn rows(store: &Store, text: &str) -> Result<Vec<(ImageRow, Option<Reference>)>> {
    let reference = text.parse::<Reference>().ok();
    if let Some(reference) = reference.as_ref().filter(|_| is_bare(text)) {
        let mut all = Vec::new();
        for row in store.images().list()? {
            let name = row.name.as_deref().and_then(|name| name.parse::<Reference>().ok());
            let is_meant = |name: &Reference| is_tagged(name) && name.name() == reference.name();
            if let Some(name) = name.filter(is_meant) {
                all.push((row, Some(name)));
            }
        }
        all.sort_by(|(_, a), (_, b)| a.cmp(b));
        if !all.is_empty() {
            return Ok(all);
        }
    }
    let Some(row) = find_rows(store, text)?.into_iter().next() else {
        return Err(no_such_image(store, text));
    };
    let named = row
        .name
        .clone()
        .filter(|name| reference.is_some_and(|reference| reference.to_string() == *name));
    let name = named.and_then(|name| name.parse().ok()).filter(is_tagged);
    Ok(vec![(row, name)])
}

fn saved(store: &Store, row: ImageRow, platform: Option<&Platform>) -> Result<SavedImage> {
    let wanted = platform.map_or(Wanted::Any, Wanted::Platform);
    let image = StoredImage::load(store, row, wanted)?;
    let (mut digest, mut size) = (image.row.digest, image.row.size);
    let mut media_type = image.row.media_type;
    if let Some((entry, _)) =
        image.entries.iter().find(|(entry, _)| entry.digest().is_ok_and(|it| it == image.digest))
        && platform.is_some()
    {
        (digest, size) = (image.digest, entry.size);
        media_type.clone_from(&entry.media_type);
    }
    Ok(SavedImage { digest, media_type, size, manifest: image.digest, names: Vec::new() })
}

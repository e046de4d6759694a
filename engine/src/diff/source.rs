//! Lookup of the images to compare.

#![expect(clippy::disallowed_methods, reason = "the user names the files")]

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use kiln_event::Reporter;
use kiln_images::{ArchivedImage, ImageResolver, LoadOptions, PullPolicy, bring};
use kiln_oci::{Digest, ImageConfig, Platform, Reference};
use kiln_registry::check_document;
use kiln_store::{ImageRow, LayerBlob, Store};

use crate::engine::Engine;
use crate::image::{StoredImage, Wanted, find_rows};
use crate::json::Json;

/// The most bytes of a manifest, index or config.
const DOCUMENT: u64 = 16 << 20;

/// One of the two images. All of its parts are in the store.
#[derive(Debug)]
pub(super) struct Side {
    /// The name that the user gave.
    pub(super) name: String,
    pub(super) manifest_digest: Digest,
    pub(super) manifest: Json,
    pub(super) raw_config: Json,
    pub(super) config: ImageConfig,
    /// The blobs of the layers, base first.
    pub(super) layers: Vec<LayerBlob>,
    /// The platforms of the image's index with the digests of their manifests; empty without an
    /// index.
    pub(super) index: Vec<(String, Digest)>,
}

impl Side {
    pub(super) fn diff_ids(&self) -> &[Digest] {
        self.config.rootfs.diff_ids()
    }

    /// Returns the image ID, the digest of the config.
    pub(super) fn image_id(&self) -> Option<&Json> {
        self.manifest.get("config")?.get("digest")
    }
}

/// A finder of images that imports them into the store without a name.
#[derive(Debug)]
pub(super) struct Finder {
    store: Store,
    resolver: ImageResolver,
    options: LoadOptions,
    platform: Option<Platform>,
}

/// An image whose documents have not been read yet.
struct Located {
    row: ImageRow,
    /// The repository of blobs that the store lacks.
    origin: Option<String>,
}

impl Finder {
    /// Creates a finder of images for a platform; this machine's for `None`.
    pub(super) fn new(engine: &Engine, platform: Option<Platform>) -> Self {
        // The store was searched already.
        let resolver = engine.images(PullPolicy::Always);
        let (store, limits) = (engine.store.clone(), engine.options.archive_limits);
        let options = LoadOptions { store: store.clone(), limits, now: 0 };
        Self { store, resolver, options, platform }
    }

    /// Finds an image: in the store by name or ID, in an archive or a layout by path, or else in a
    /// registry.
    ///
    /// # Errors
    /// Fails if the image or its platform doesn't exist, or if a part of it can't be fetched.
    pub(super) async fn find(&self, text: &str) -> Result<Side> {
        let located = self.locate(text).await.with_context(|| format!("find {text}"))?;
        self.load(text, located).await.with_context(|| format!("read {text}"))
    }

    async fn locate(&self, text: &str) -> Result<Located> {
        for (scheme, is_archive) in [
            ("oci-archive:", true),
            ("docker-archive:", true),
            ("oci-layout://", false),
            ("oci:", false),
        ] {
            if let Some(rest) = text.strip_prefix(scheme) {
                return if is_archive { self.archive(rest).await } else { self.layout(rest).await };
            }
        }
        if let Some(name) = text.strip_prefix("docker://") {
            return self.registry(name).await;
        }
        if let Some(row) = find_rows(&self.store, text)?.into_iter().next() {
            return Ok(Located { row, origin: None });
        }
        let path = text.split('@').next().unwrap_or(text);
        match std::fs::metadata(path) {
            Ok(file) if file.is_dir() => self.layout(text).await,
            Ok(_) => self.archive(text).await,
            // A layout's path may end in a tag.
            Err(_) if path.rsplit_once(':').is_some_and(|(dir, _)| Path::new(dir).is_dir()) => {
                self.layout(text).await
            }
            Err(_) => self.registry(text).await,
        }
    }

    async fn archive(&self, path: &str) -> Result<Located> {
        let file = File::open(path).with_context(|| format!("open {path}"))?;
        let options = self.options.clone();
        let images = tokio::task::spawn_blocking(move || bring(file, &options)).await;
        let images: Vec<ArchivedImage> = images.context("read the archive")??;
        let [image] = images.as_slice() else {
            bail!(
                "there are {} images in the archive: load it, and name one of them",
                images.len()
            );
        };
        let row = row(image.digest, image.media_type.clone(), image.size);
        Ok(Located { row, origin: None })
    }

    async fn layout(&self, text: &str) -> Result<Located> {
        let host = Platform::host();
        let platform = self.platform.as_ref().unwrap_or(&host);
        let resolved = self.resolver.resolve_layout(text, platform).await?;
        let name = text.split('@').next().unwrap_or(text);
        let directory = match name.rsplit_once(':') {
            Some((directory, _)) if !Path::new(name).is_dir() => directory,
            _ => name,
        };
        let directory = std::fs::canonicalize(directory)?;
        let origin = Some(directory.to_string_lossy().into_owned());
        Ok(Located { row: self.stored(resolved.digest)?, origin })
    }

    async fn registry(&self, text: &str) -> Result<Located> {
        let reference: Reference =
            text.parse().with_context(|| format!("invalid image {text:?}"))?;
        let host = Platform::host();
        let platform = self.platform.as_ref().unwrap_or(&host);
        let resolved = self.resolver.resolve(&reference, platform).await?;
        Ok(Located { row: self.stored(resolved.digest)?, origin: Some(reference.name()) })
    }

    /// Returns a row for a document in the store.
    fn stored(&self, digest: Digest) -> Result<ImageRow> {
        let bytes = self.store.content().read(&digest, DOCUMENT)?;
        let media_type = check_document(&bytes, None).map_err(anyhow::Error::msg)?;
        Ok(row(digest, media_type, bytes.len() as u64))
    }

    async fn load(&self, text: &str, located: Located) -> Result<Side> {
        let wanted = self.platform.as_ref().map_or(Wanted::Any, Wanted::Platform);
        let image = StoredImage::load(&self.store, located.row, wanted)?;
        let content = self.store.content();
        let bytes = content.read(&image.digest, DOCUMENT)?;
        let manifest = crate::image::manifest(&self.store, &image.digest)?;
        let config = manifest.config.digest()?;
        let mut layers = Vec::new();
        for layer in &manifest.layers {
            let mut blob = LayerBlob {
                media_type: layer.media_type.clone(),
                digest: layer.digest()?,
                size: layer.size,
                origin: located.origin.clone(),
            };
            if blob.origin.is_none() {
                blob.origin = self.store.layers().origins(&blob.digest)?.into_iter().next();
            }
            layers.push(blob);
        }
        if layers.len() != image.config.rootfs.diff_ids().len() {
            bail!("the manifest and the config tell of different numbers of layers");
        }
        for blob in &layers {
            self.resolver.blobs().fetch(blob, &Reporter::silent()).await?;
            content.hold(&blob.digest)?;
        }
        let index = image.entries.iter().map(|(entry, _)| {
            let platform = entry.platform.as_ref().map_or_else(String::new, Platform::to_string);
            Ok((platform, entry.digest()?))
        });
        Ok(Side {
            name: text.to_owned(),
            manifest_digest: image.digest,
            manifest: Json::parse(&bytes)?,
            raw_config: Json::parse(&content.read(&config, DOCUMENT)?)?,
            index: index.collect::<Result<_>>()?,
            config: image.config,
            layers,
        })
    }
}

fn row(digest: Digest, media_type: String, size: u64) -> ImageRow {
    ImageRow { name: None, media_type, digest, size, created_at: 0 }
}

//! The parsing and checking of remote caches.
//!
//! All documents are digested on arrival and limited in size. Their contents are untrusted. A layer
//! is dropped if the manifest doesn't list its blob, the blob isn't a layer or is larger than
//! allowed, or the layer's parent doesn't come before it. Results that need a dropped layer are
//! dropped as well.

use std::collections::{BTreeMap, HashMap};

use kiln_images::{CONFIG_LIMIT, Document, ImageResolver, check_media_type, digest_of};
use kiln_oci::cache::{
    CACHE_VERSION, CacheBlob, CacheConfig, CacheLayer, CacheRecord, INLINE_CACHE, InlineCache,
};
use kiln_oci::{Descriptor, Digest, ImageConfig, ImageIndex, ImageManifest, Platform, media_type};
use kiln_registry::platform::{images, select_platform};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::source::{CachePlace, CacheSource, Reader};
use crate::error::{Error, Result};

/// The maximum size of a cache's config in bytes.
const CACHE_LIMIT: u64 = 64 << 20;
/// The maximum number of a step's outputs, and of the layers of all its outputs together.
pub(super) const MOST: usize = 1000;
/// The maximum number of images of an index whose caches are read.
const MOST_IMAGES: usize = 64;
/// The media type of the config of BuildKit's caches.
const BUILDKIT_CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";

/// A parsed cache without its invalid parts.
#[derive(Clone, Debug)]
pub struct ImportedCache {
    /// The name of the cache for display.
    pub(super) name: String,
    /// The origin of the cache's blobs, in the store's format.
    pub(super) origin: String,
    /// `true` if the build imports cache mounts.
    pub(super) wants_mounts: bool,
    pub(super) config: CacheConfig,
    /// The number of results and cache mounts that were dropped as invalid.
    pub(super) dropped: usize,
    /// The number of the record for each key.
    pub(super) records: HashMap<Digest, usize>,
    /// The canonical key for each definition key.
    pub(super) links: HashMap<Digest, Digest>,
}

impl ImportedCache {
    /// Reads a cache. From an index of images, it reads the images for `platforms`, or all images if
    /// that is `None`. It fetches documents only, and drops blobs of more than `largest` bytes.
    ///
    /// # Errors
    /// Fails if the source can't be read, isn't a cache of kiln's, or has another version.
    pub async fn read(
        images: &ImageResolver,
        source: &CacheSource,
        platforms: Option<&[Platform]>,
        largest: Option<u64>,
    ) -> Result<Self> {
        let (reader, bytes) = Reader::open(&source.place, &images.blobs()).await?;
        let import = Import { place: &source.place, reader, platforms, largest };
        let config = match Document::parse(&source.place.to_string(), &bytes)? {
            Document::Manifest(manifest) => import.manifest(&manifest).await?,
            Document::Index(index) => import.index(&index).await?,
        };
        let mut imported = import.checked(config);
        imported.wants_mounts = source.mounts;
        Ok(imported)
    }

    /// Returns the number of results.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Returns the number of results and cache mounts that were dropped because a part of them
    /// isn't listed, is too large or is invalid.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// Returns `true` if the cache has no results.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

struct Import<'a> {
    place: &'a CachePlace,
    reader: Reader,
    platforms: Option<&'a [Platform]>,
    largest: Option<u64>,
}

impl Import<'_> {
    async fn manifest(&self, manifest: &ImageManifest) -> Result<CacheConfig> {
        let config = &manifest.config;
        match config.media_type.as_str() {
            media_type::CACHE_CONFIG => self.cache(config, &manifest.layers).await,
            media_type::OCI_CONFIG | media_type::DOCKER_CONFIG => {
                let digest = digest_of(config)?;
                let bytes = self.reader.blob(&digest, CONFIG_LIMIT).await?;
                self.inline(manifest, &bytes)
            }
            BUILDKIT_CONFIG => Err(self.problem("is a cache of BuildKit's, whose keys are others")),
            other => Err(self.problem(&format!("is no cache: its config is of type {other}"))),
        }
    }

    /// Reads an index of a cache's blobs or of images.
    async fn index(&self, index: &ImageIndex) -> Result<CacheConfig> {
        let entries = &index.manifests;
        let config = |kind: &str| entries.iter().find(|it| it.media_type == kind);
        if let Some(config) = config(media_type::CACHE_CONFIG) {
            return self.cache(config, entries).await;
        }
        if config(BUILDKIT_CONFIG).is_some() {
            return Err(self.problem("is a cache of BuildKit's, whose keys are others"));
        }
        let wanted: Vec<&Descriptor> = match self.platforms {
            Some(platforms) => {
                platforms.iter().filter_map(|platform| select_platform(index, platform)).collect()
            }
            None => images(index).take(MOST_IMAGES).collect(),
        };
        let mut digests = Vec::new();
        for image in wanted {
            let digest = digest_of(image)?;
            if !digests.contains(&digest) {
                digests.push(digest);
            }
        }
        let mut all = CacheConfig { version: CACHE_VERSION, ..CacheConfig::default() };
        let mut problem = self.problem("has no image for the platforms of this build");
        for digest in digests {
            let bytes = self.reader.manifest(&digest).await?;
            let Document::Manifest(manifest) = Document::parse(&self.place.to_string(), &bytes)?
            else {
                continue;
            };
            match Box::pin(self.manifest(&manifest)).await {
                Ok(config) => append(&mut all, config),
                Err(error) => problem = error,
            }
        }
        if all.records.is_empty() { Err(problem) } else { Ok(all) }
    }

    /// Reads the config of a cache whose manifest lists the blobs in `listed`.
    async fn cache(&self, config: &Descriptor, listed: &[Descriptor]) -> Result<CacheConfig> {
        let bytes = self.reader.blob(&digest_of(config)?, CACHE_LIMIT).await?;
        let invalid = |error| self.problem(&format!("has an invalid config: {error}"));
        self.check_version(&bytes)?;
        let mut config: CacheConfig = serde_json::from_slice(&bytes).map_err(invalid)?;
        let mut sizes = BTreeMap::new();
        for descriptor in listed {
            sizes.insert(digest_of(descriptor)?, descriptor.size);
        }
        let is_listed = |blob: &CacheBlob| sizes.get(&blob.digest) == Some(&blob.size);
        let missing = self.reader.missing(sizes.iter().map(|(it, size)| (*it, *size)).collect());
        let missing = missing.await?;
        let is_usable = |blob: &CacheBlob| is_listed(blob) && !missing.contains(&blob.digest);
        let layers = config.layers.iter_mut().map(|layer| &mut layer.blob);
        let mounts = config.mounts.iter_mut().map(|mount| &mut mount.blob);
        for blob in layers.chain(mounts).filter(|blob| !is_usable(blob)) {
            // An empty media type marks the blob as unusable.
            blob.media_type.clear();
        }
        Ok(config)
    }

    fn check_version(&self, bytes: &[u8]) -> Result<()> {
        #[derive(serde::Deserialize)]
        struct Versioned {
            version: u32,
        }
        let version = serde_json::from_slice(bytes).map(|versioned: Versioned| versioned.version);
        match version {
            Ok(CACHE_VERSION) => Ok(()),
            Ok(other) => Err(self
                .problem(&format!("has version {other}, this kiln reads version {CACHE_VERSION}"))),
            Err(error) => Err(self.problem(&format!("has an invalid config: {error}"))),
        }
    }

    /// Reads an image's inline cache.
    fn inline(&self, manifest: &ImageManifest, config: &[u8]) -> Result<CacheConfig> {
        let invalid = |error: &dyn std::fmt::Display| {
            self.problem(&format!("has an invalid image config: {error}"))
        };
        let config = ImageConfig::parse(config).map_err(|error| invalid(&error))?;
        let Some(inline) = config.other.get(INLINE_CACHE) else {
            return Err(self.problem("is an image without an inline cache"));
        };
        self.check_version(inline.to_string().as_bytes())?;
        let inline: InlineCache =
            serde_json::from_value(inline.clone()).map_err(|error| invalid(&error))?;
        let diff_ids = config.rootfs.diff_ids();
        let times = layer_times(&config);
        if diff_ids.len() != manifest.layers.len() || times.len() < diff_ids.len() {
            return Err(invalid(&"layers, diff IDs and history don't match"));
        }
        let layers = manifest.layers.iter().zip(diff_ids.iter().zip(times)).enumerate();
        let layer = |(number, (descriptor, (diff_id, created_at)))| -> Result<CacheLayer> {
            let (number, descriptor, diff_id): (usize, &Descriptor, &Digest) =
                (number, descriptor, diff_id);
            let blob = CacheBlob {
                media_type: descriptor.media_type.clone(),
                digest: digest_of(descriptor)?,
                size: descriptor.size,
            };
            let parent = number.checked_sub(1).map(|below| below as u32);
            let base = number < inline.base as usize;
            Ok(CacheLayer { parent, diff_id: *diff_id, created_at, base, blob })
        };
        Ok(CacheConfig {
            version: CACHE_VERSION,
            layers: layers.map(layer).collect::<Result<_>>()?,
            records: inline.records,
            links: inline.links,
            mounts: Vec::new(),
        })
    }

    /// Drops invalid parts and indexes the rest.
    fn checked(&self, config: CacheConfig) -> ImportedCache {
        let largest = self.largest.unwrap_or(i64::MAX as u64);
        let mut depths: Vec<Option<usize>> = Vec::with_capacity(config.layers.len());
        for layer in &config.layers {
            let is_layer = check_media_type(&layer.blob.media_type).is_ok();
            let below = match layer.parent {
                None => Some(0),
                Some(parent) => depths.get(parent as usize).copied().flatten(),
            };
            let depth = below.map(|below| below + 1).filter(|depth| *depth <= MOST);
            depths.push(depth.filter(|_| is_layer && layer.blob.size <= largest));
        }
        let is_there = |output: &Option<u32>| {
            output.is_none_or(|layer| depths.get(layer as usize).copied().flatten().is_some())
        };
        let (mut records, mut dropped) = (HashMap::new(), 0);
        for (number, record) in config.records.iter().enumerate() {
            if record.outputs.len() <= MOST && record.outputs.iter().all(is_there) {
                records.entry(record.key).or_insert(number);
            } else {
                dropped += 1;
            }
        }
        let mut links = HashMap::new();
        for link in &config.links {
            links.entry(link.definition).or_insert(link.canonical);
        }
        let (name, origin) = (self.place.to_string(), self.reader.origin().to_string());
        let mut config = config;
        let mounts = config.mounts.len();
        let is_usable = |blob: &CacheBlob| !blob.media_type.is_empty() && blob.size <= largest;
        config.mounts.retain(|mount| is_usable(&mount.blob));
        dropped += mounts - config.mounts.len();
        ImportedCache { name, origin, wants_mounts: false, config, dropped, records, links }
    }

    fn problem(&self, problem: &str) -> Error {
        Error::image(self.place, problem)
    }
}

/// Returns the creation time of each layer from an image's history, in nanoseconds since 1970.
fn layer_times(config: &ImageConfig) -> Vec<i64> {
    let time = |text: &str| {
        let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(time.unix_timestamp_nanos()).ok()
    };
    let makers = config.history.iter().filter(|entry| !entry.empty_layer);
    makers.map(|entry| entry.created.as_deref().and_then(time).unwrap_or_default()).collect()
}

/// Appends the cache of another image.
fn append(all: &mut CacheConfig, more: CacheConfig) {
    let shift = all.layers.len() as u32;
    let shifted = |number: Option<u32>| number.map(|number| number.saturating_add(shift));
    all.layers.extend(
        more.layers.into_iter().map(|layer| CacheLayer { parent: shifted(layer.parent), ..layer }),
    );
    all.records.extend(more.records.into_iter().map(|record| CacheRecord {
        outputs: record.outputs.into_iter().map(shifted).collect(),
        ..record
    }));
    all.links.extend(more.links);
}

#[cfg(test)]
mod tests {
    use kiln_oci::cache::{CacheLink, CacheMountContent};

    use super::*;

    fn blob(name: &str, size: u64) -> CacheBlob {
        let media_type = media_type::OCI_LAYER_ZSTD.to_owned();
        CacheBlob { media_type, digest: Digest::of(name.as_bytes()), size }
    }

    fn layer(name: &str, parent: Option<u32>) -> CacheLayer {
        let diff_id = Digest::of(name.as_bytes());
        CacheLayer { parent, diff_id, created_at: 0, base: false, blob: blob(name, 1) }
    }

    fn record(name: &str, outputs: &[Option<u32>]) -> CacheRecord {
        let key = Digest::of(name.as_bytes());
        CacheRecord { key, outputs: outputs.to_vec(), duration_ms: 0 }
    }

    fn import(place: &CachePlace, largest: Option<u64>) -> Import<'_> {
        let reader = Reader::Layout("/nowhere".into());
        Import { place, reader, platforms: Some(&[]), largest }
    }

    fn place() -> CachePlace {
        CachePlace::Layout { directory: "/nowhere".into(), tag: "latest".to_owned(), digest: None }
    }

    #[test]
    fn what_makes_no_sense_is_dropped() {
        let foreign = CacheLayer {
            blob: CacheBlob { media_type: "text/html".to_owned(), ..blob("foreign", 1) },
            ..layer("foreign", None)
        };
        let large = CacheLayer { blob: blob("large", 1000), ..layer("large", None) };
        let layers = vec![
            layer("base", None),
            layer("top", Some(0)),
            layer("loop", Some(2)),
            layer("later", Some(9)),
            foreign,
            layer("on foreign", Some(4)),
            large,
        ];
        let records: Vec<_> = (0..9_u32)
            .map(|number| record(&number.to_string(), &[None, Some(number)]))
            .chain([record("empty", &[None]), record("1", &[])])
            .collect();
        let mount = |size| CacheMountContent {
            id: "x".to_owned(),
            mode: 0o755,
            uid: 0,
            gid: 0,
            blob: blob("m", size),
        };
        let mounts = vec![mount(1), mount(1000)];
        let config = CacheConfig { layers, records, mounts, ..CacheConfig::default() };
        let place = place();
        let imported = import(&place, Some(999)).checked(config);
        let mut kept: Vec<usize> = imported.records.values().copied().collect();
        kept.sort_unstable();
        assert_eq!(kept, [0, 1, 9]);
        assert_eq!((imported.len(), imported.config.mounts.len()), (3, 1));
        assert_eq!(imported.dropped(), 8);
        assert_eq!(imported.origin, "cache=/nowhere");
    }

    #[test]
    fn versions_and_shapes_are_checked() {
        let place = place();
        let import = import(&place, None);
        assert!(import.check_version(br#"{"version":1,"more":[]}"#).is_ok());
        for text in [r#"{"version":2}"#, "{}", "[]", "", r#"{"version":"1"}"#] {
            assert!(import.check_version(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn images_of_several_platforms_make_one_cache() {
        let link =
            |name: &[u8]| CacheLink { definition: Digest::of(name), canonical: Digest::of(name) };
        let one = |name: &str| CacheConfig {
            layers: vec![layer(name, None), layer("x", Some(0))],
            records: vec![record(name, &[Some(1), None])],
            links: vec![link(name.as_bytes())],
            ..CacheConfig::default()
        };
        let mut all = CacheConfig::default();
        append(&mut all, one("a"));
        append(&mut all, one("b"));
        assert_eq!(all.layers[3].parent, Some(2));
        assert_eq!(all.records[1].outputs, [Some(3), None]);
        assert_eq!(all.links.len(), 2);
    }

    #[test]
    fn an_image_tells_when_its_layers_were_made() {
        let entry = |created: Option<&str>, empty_layer| kiln_oci::History {
            created: created.map(str::to_owned),
            empty_layer,
            ..kiln_oci::History::default()
        };
        let history = vec![
            entry(Some("1970-01-01T00:00:01.000000002Z"), false),
            entry(Some("2020-01-01T00:00:00Z"), true),
            entry(Some("nonsense"), false),
        ];
        let config = ImageConfig { history, ..ImageConfig::default() };
        assert_eq!(layer_times(&config), [1_000_000_002, 0]);
    }
}

//! The resolution of image references.
//!
//! A reference is looked up in the store first, by its full name or its digest, and otherwise in
//! the registry, unless a [`PullPolicy`] says otherwise. It resolves to the digest of the manifest
//! or index that the name refers to, before a platform is selected. The store keeps manifests,
//! indexes and configs. A reference with a digest therefore needs the network only once, while
//! every process requests a tag again that isn't in the store. Within a process, a reference is
//! resolved once.

#![expect(clippy::disallowed_methods, reason = "the user names the directory")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_oci::{Descriptor, Digest, ImageConfig, Platform, Reference};
use kiln_registry::platform::list_platforms;
use kiln_registry::platform::select_platform;
use kiln_registry::{Client, Repository};
use kiln_store::Store;
use kiln_tree::ArchiveLimits;
use tokio::sync::OnceCell;

use crate::blobs::{Blobs, blocking, wrong_size};
use crate::document::{CONFIG_LIMIT, DOCUMENT_LIMIT, Document, digest_of};
use crate::error::{Error, Result};
use crate::lost::LostBlobs;
use crate::oci_layout::{LayoutReference, read_blob};
use crate::origin::Origin;
use crate::stores::BlobStores;

/// The maximum depth of nested indexes.
const MAX_DEPTH: usize = 4;

/// The options of an [`ImageResolver`].
#[derive(Debug)]
pub struct ImageResolverOptions {
    /// The store that holds images and receives documents.
    pub store: Store,
    /// The directories of OCI layouts by the names in a graph (`oci.store`).
    pub layouts: BTreeMap<String, PathBuf>,
    /// The client for registries.
    pub registry: Client,
    /// The default policy for references without a digest.
    pub policy: PullPolicy,
    /// The limits for decompressing layers and the archives of `ADD`.
    pub archive_limits: ArchiveLimits,
}

impl ImageResolverOptions {
    /// Returns options for a store and a client, without layouts, with the default policy and limits.
    pub fn new(store: Store, registry: Client) -> Self {
        Self {
            store,
            layouts: BTreeMap::new(),
            registry,
            policy: PullPolicy::default(),
            archive_limits: ArchiveLimits::default(),
        }
    }
}

/// The places to look up a name in. A reference with a digest needs no lookup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// The store, then the registry if the store has no image of that name.
    #[default]
    Missing,
    /// The registry only, even if the store has an image of that name.
    Always,
    /// The store only. A missing image is an error.
    Never,
}

/// A resolved image reference.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The digest of the manifest, or of the index that contains it.
    pub digest: Digest,
    /// The config of the image for the requested platform.
    pub config: ImageConfig,
}

/// An image for one platform.
#[derive(Clone, Debug)]
pub struct Image {
    /// The config of the image.
    pub config: ImageConfig,
    /// The descriptors of the layers, base first.
    pub layers: Vec<Descriptor>,
}

/// A resolver of image references in the store, in OCI layouts and in registries.
#[derive(Debug)]
pub struct ImageResolver {
    store: Store,
    layouts: BTreeMap<String, PathBuf>,
    registry: Client,
    policy: PullPolicy,
    archive_limits: ArchiveLimits,
    remembered: Mutex<Remembered>,
    lost: Arc<LostBlobs>,
    stores: Arc<BlobStores>,
}

#[derive(Debug, Default)]
struct Remembered {
    digests: BTreeMap<String, Arc<OnceCell<Digest>>>,
    layouts: BTreeMap<Digest, PathBuf>,
}

/// The kind of a document. Registries serve manifests and other blobs at different paths.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Manifest,
    Config,
}

impl Kind {
    fn limit(self) -> u64 {
        match self {
            Self::Manifest => DOCUMENT_LIMIT,
            Self::Config => CONFIG_LIMIT,
        }
    }
}

impl ImageResolver {
    /// Creates a resolver with these options.
    pub fn new(options: ImageResolverOptions) -> Self {
        let ImageResolverOptions { store, layouts, registry, policy, archive_limits } = options;
        let (remembered, lost, stores) = (Mutex::default(), Arc::default(), Arc::default());
        Self { store, layouts, registry, policy, archive_limits, remembered, lost, stores }
    }

    /// Returns the limits for decompressing archives.
    pub fn archive_limits(&self) -> ArchiveLimits {
        self.archive_limits
    }

    /// Returns the client for registries.
    pub fn client(&self) -> &Client {
        &self.registry
    }

    /// Returns the stores of blobs that the caller has registered.
    pub fn stores(&self) -> &BlobStores {
        &self.stores
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Returns access to the blobs of images.
    pub fn blobs(&self) -> Blobs {
        let (store, registry) = (self.store.clone(), self.registry.clone());
        let mut blobs = Blobs::new(store, registry, self.archive_limits);
        blobs.lost = Arc::clone(&self.lost);
        blobs.stores = Arc::clone(&self.stores);
        blobs
    }

    /// Resolves a reference in the form of `FROM`.
    ///
    /// # Errors
    /// Fails if the image doesn't exist or has no variant for the platform.
    pub async fn resolve(&self, reference: &Reference, platform: &Platform) -> Result<Resolved> {
        let digest = self.digest_of(reference).await?;
        let origin = Origin::Registry(reference.name());
        let image = self.image(&origin, &digest, platform).await?;
        Ok(Resolved { digest, config: image.config })
    }

    /// Resolves an image of an OCI layout, in the form `DIR[:TAG][@DIGEST]`.
    ///
    /// # Errors
    /// Fails if the layout has no such image or no variant for the platform.
    pub async fn resolve_layout(&self, layout: &str, platform: &Platform) -> Result<Resolved> {
        let mut reference = LayoutReference::parse(layout)?;
        reference.directory = std::fs::canonicalize(&reference.directory)
            .map_err(Error::path("open oci layout", &reference.directory))?;
        let digest = reference.find(platform)?;
        self.remember(|memory| memory.layouts.insert(digest, reference.directory.clone()));
        let image = self.image(&Origin::Layout(reference.directory), &digest, platform).await?;
        Ok(Resolved { digest, config: image.config })
    }

    /// Returns the directory of a layout that a graph names, or that `digest` was resolved from.
    pub fn layout(&self, name: &str, digest: &Digest) -> Option<PathBuf> {
        let known = self.layouts.get(name).cloned();
        known.or_else(|| self.remember(|memory| memory.layouts.get(digest).cloned()))
    }

    /// Adds the directory of an OCI layout that has the image of a digest.
    pub fn add_layout(&self, digest: Digest, directory: PathBuf) {
        self.remember(|memory| memory.layouts.insert(digest, directory));
    }

    /// Returns the digest that a reference resolves to.
    pub(crate) async fn digest_of(&self, reference: &Reference) -> Result<Digest> {
        self.digest_by(reference, None).await
    }

    /// Returns the digest that a reference resolves to, by a policy that takes precedence over the
    /// resolver's.
    ///
    /// # Errors
    /// Fails if the image doesn't exist.
    pub async fn digest_by(
        &self,
        reference: &Reference,
        policy: Option<PullPolicy>,
    ) -> Result<Digest> {
        let policy = policy.unwrap_or(self.policy);
        if let Some(digest) = reference.digest() {
            return Ok(digest);
        }
        let name = reference.to_string();
        // Concurrent callers share one lookup, because a tag may move between two.
        let known =
            self.remember(|memory| Arc::clone(memory.digests.entry(name.clone()).or_default()));
        let find = || async {
            if policy != PullPolicy::Always
                && let Some(image) = self.store.images().get(&name)?
            {
                return Ok(image.digest);
            }
            if policy == PullPolicy::Never {
                return Err(Error::image(&name, "it is not in the store, and is not to be pulled"));
            }
            Ok(self.registry.resolve_digest(reference).await?)
        };
        known.get_or_try_init(find).await.copied()
    }

    /// Returns the digest that a reference resolves to if this resolver has looked it up before.
    pub fn known_digest(&self, reference: &Reference) -> Option<Digest> {
        let name = reference.to_string();
        let known = self.remember(|memory| memory.digests.get(&name)?.get().copied());
        reference.digest().or(known)
    }

    /// Returns the image for `platform` in a manifest or index.
    ///
    /// # Errors
    /// Fails if a document isn't available or is invalid, or if the index has no match.
    pub async fn image(
        &self,
        origin: &Origin,
        digest: &Digest,
        platform: &Platform,
    ) -> Result<Image> {
        let mut current = *digest;
        for _ in 0..MAX_DEPTH {
            let name = format!("{origin}@{current}");
            let bytes = self.document(origin, &current, Kind::Manifest).await?;
            match Document::parse(&name, &bytes)? {
                Document::Index(index) => {
                    let entry = select_platform(&index, platform).ok_or_else(|| {
                        let missing = "no match for platform in manifest: not found";
                        let there = list_platforms(&index);
                        Error::image(&name, format!("{missing} ({platform}; there is {there})"))
                    })?;
                    current = digest_of(entry)?;
                }
                Document::Manifest(manifest) => {
                    let config = digest_of(&manifest.config)?;
                    let bytes = self.document(origin, &config, Kind::Config).await?;
                    let (expected, actual) = (manifest.config.size, bytes.len() as u64);
                    if expected != actual {
                        return Err(Error::image(&name, wrong_size(&config, expected, actual)));
                    }
                    let config = ImageConfig::parse(&bytes).map_err(|error| {
                        Error::image(&name, format!("invalid image config: {error}"))
                    })?;
                    return Ok(Image { config, layers: manifest.layers });
                }
            }
        }
        Err(Error::image(origin, "indexes are nested too deeply"))
    }

    /// Returns a manifest or index from the store, or else from its origin.
    ///
    /// # Errors
    /// Fails if the document isn't available.
    pub async fn manifest(&self, origin: &Origin, digest: &Digest) -> Result<Vec<u8>> {
        self.document(origin, digest, Kind::Manifest).await
    }

    /// Returns a manifest, index or config from the store. Otherwise fetches it from its origin and
    /// stores it.
    async fn document(&self, origin: &Origin, digest: &Digest, kind: Kind) -> Result<Vec<u8>> {
        let limit = kind.limit();
        let content = self.store.content();
        // A document without another origin needs no hold: it is read at once or reported as
        // missing.
        if *origin == Origin::Store || content.hold(digest)? {
            match content.read(digest, limit) {
                // The corrupt document is fetched again.
                Err(kiln_store::Error::DigestMismatch { .. }) => content.remove_corrupt(digest)?,
                Err(kiln_store::Error::Missing { .. }) => {}
                result => return Ok(result?),
            }
        }
        let bytes = match origin {
            Origin::Store | Origin::Cache(_) => {
                let name = digest.to_string();
                return Err(kiln_store::Error::Missing { what: "blob", name }.into());
            }
            Origin::Layout(directory) => read_blob(directory, digest, limit)?
                .ok_or_else(|| Error::image(origin, format!("no blob {digest} in oci layout")))?,
            Origin::Client(name) => {
                let (stores, name, digest) = (Arc::clone(&self.stores), name.clone(), *digest);
                blocking(move || stores.read(&name, &digest, limit)).await?
            }
            Origin::Registry(name) => {
                let repository: Repository =
                    name.parse().map_err(|error| Error::image(name, error))?;
                match kind {
                    Kind::Manifest => self.registry.manifest(&repository, digest).await?.bytes,
                    Kind::Config => self.registry.small_blob(&repository, digest, limit).await?,
                }
            }
        };
        content.put(&bytes)?;
        Ok(bytes)
    }

    fn remember<T>(&self, action: impl FnOnce(&mut Remembered) -> T) -> T {
        // Every change is atomic, so the state is consistent even if another thread has panicked.
        action(&mut self.remembered.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

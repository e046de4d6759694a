//! OCI layouts that a client sends: images that a graph names by a store of the client's.
//!
//! The documents of an image are fetched when the image is resolved, and its layers before a graph
//! that needs them is solved. They are files of a layout in the store's temporary area from then on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::StreamExt as _;
use kiln_images::{Document, blob_path, digest_of};
use kiln_llb::Graph;
use kiln_llb::op::{OpKind, SourceOp};
use kiln_oci::{Descriptor, Digest, DigestHasher, Platform};
use kiln_registry::platform::select_platform;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Mutex;
use tonic::Status;

use crate::errors::of_error;
use crate::jobs::Job;
use crate::session::ContentStore;
use crate::sources::SessionSources;

/// The most bytes of a manifest, an index or a config.
const DOCUMENT_LIMIT: u64 = 8 << 20;
/// The most bytes of a blob that a graph uses as a file.
const BLOB_LIMIT: u64 = 64 << 30;
/// The beginning of the identifiers of images in a client's store.
const IMAGE: &str = "oci-layout://";
/// The beginning of the identifiers of blobs in a client's store.
const BLOB: &str = "oci-layout+blob://";
/// The maximum depth of nested indexes.
const MAX_DEPTH: usize = 4;

/// The layouts that clients have sent.
#[derive(Debug, Default)]
pub(crate) struct Layouts {
    /// The sessions of the clients. `None` for a build of this process.
    sources: Option<Arc<SessionSources>>,
    /// The directories, by the session and the name of the store.
    directories: Mutex<HashMap<(String, String), PathBuf>>,
}

impl Layouts {
    /// Returns the layouts of the clients of a build: none until they are fetched.
    pub(crate) fn new(sources: Arc<SessionSources>) -> Self {
        Self { sources: Some(sources), directories: Mutex::default() }
    }
}

/// An image in a store of a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayoutImage<'a> {
    /// The ID of the session; empty for the build's.
    pub(crate) session: &'a str,
    /// The name of the store.
    pub(crate) store: &'a str,
    /// The digest of the manifest or index.
    pub(crate) digest: Digest,
}

/// The part of an image to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Manifests and config.
    Documents,
    /// Everything.
    All,
    /// The digest is that of a blob. Nothing else is fetched.
    Blob,
}

impl Job {
    /// Fetches an image into a layout, and returns the layout's directory.
    ///
    /// # Errors
    /// Fails if the client doesn't have the image, or if the image has no variant for the platform.
    pub(crate) async fn fetch_layout(
        &self,
        image: LayoutImage<'_>,
        platform: &Platform,
        part: Part,
    ) -> Result<PathBuf, Status> {
        let LayoutImage { session, store, digest } = image;
        let Some(sources) = &self.layouts.sources else {
            let missing = || Status::not_found(format!("no OCI layout has {digest}"));
            return self.build().images().layout(store, &digest).ok_or_else(missing);
        };
        let mut known = self.layouts.directories.lock().await;
        let key = (session.to_owned(), store.to_owned());
        let directory = if let Some(directory) = known.get(&key) {
            directory.clone()
        } else {
            let directory = sources.store().temp_dir().map_err(|error| of_error(&error))?;
            known.insert(key, directory.clone());
            directory
        };
        let session = sources.session(session).await.map_err(|error| of_error(&error))?;
        let content = session.content(&format!("oci:{store}")).map_err(|error| of_error(&error))?;
        let fetching = Fetching { content, directory: &directory };
        match part {
            Part::Blob => drop(fetching.blob(&digest, BLOB_LIMIT).await?),
            Part::Documents | Part::All => fetching.image(digest, platform, part).await?,
        }
        self.build().images().add_layout(digest, directory.clone());
        Ok(directory)
    }

    /// Fetches the images of a graph that come from stores of clients.
    ///
    /// # Errors
    /// Fails if one isn't available.
    pub(crate) async fn fetch_layouts(&self, graph: &Graph) -> Result<(), Status> {
        for vertex in graph.vertices() {
            let Some(OpKind::Source(source)) = &vertex.op.kind else { continue };
            let Some(image) = of_source(source)? else { continue };
            let platform = vertex.op.platform.clone().unwrap_or_else(Platform::host);
            let is_blob = source.identifier.starts_with(BLOB);
            let part = if is_blob { Part::Blob } else { Part::All };
            self.fetch_layout(image, &platform, part).await?;
        }
        Ok(())
    }
}

/// Returns the image or the blob that a source op names, if it is one in a client's store.
///
/// # Errors
/// Fails if the op names no digest or no store.
pub(crate) fn of_source(source: &SourceOp) -> Result<Option<LayoutImage<'_>>, Status> {
    let identifier = &source.identifier;
    let name = identifier.strip_prefix(IMAGE).or_else(|| identifier.strip_prefix(BLOB));
    let Some(name) = name else { return Ok(None) };
    let digest = name.rsplit_once('@').and_then(|(_, digest)| digest.parse().ok());
    let digest = digest
        .ok_or_else(|| Status::unknown(format!("oci-layout reference {name:?} has no digest")))?;
    let attribute = |name: &str| source.attrs.get(name).map_or("", String::as_str);
    let (session, store) = (attribute("oci.session"), attribute("oci.store"));
    if store.is_empty() {
        return Err(Status::unknown(format!("oci-layout reference {name:?} has no store")));
    }
    Ok(Some(LayoutImage { session, store, digest }))
}

/// The transfer of an image.
struct Fetching<'a> {
    content: ContentStore,
    directory: &'a Path,
}

impl Fetching<'_> {
    async fn image(&self, digest: Digest, platform: &Platform, part: Part) -> Result<(), Status> {
        let mut current = digest;
        for _ in 0..MAX_DEPTH {
            let bytes = self.document(&current).await?;
            let document = Document::parse(&current.to_string(), &bytes);
            match document.map_err(|error| of_error(&error))? {
                Document::Index(index) => {
                    let missing = || {
                        let text = "no match for platform in manifest: not found";
                        Status::not_found(format!("{current}: {text} ({platform})"))
                    };
                    let entry = select_platform(&index, platform).ok_or_else(missing)?;
                    current = digest_of(entry).map_err(|error| of_error(&error))?;
                }
                Document::Manifest(manifest) => {
                    let config = digest_of(&manifest.config).map_err(|error| of_error(&error))?;
                    self.document(&config).await?;
                    let layers: &[Descriptor] =
                        if part == Part::All { &manifest.layers } else { &[] };
                    for layer in layers {
                        let digest = digest_of(layer).map_err(|error| of_error(&error))?;
                        self.blob(&digest, layer.size).await?;
                    }
                    return Ok(());
                }
            }
        }
        Err(Status::unknown(format!("{digest}: indexes are nested too deeply")))
    }

    async fn document(&self, digest: &Digest) -> Result<Vec<u8>, Status> {
        let path = self.blob(digest, DOCUMENT_LIMIT).await?;
        tokio::fs::read(path).await.map_err(|error| of_error(&error))
    }

    /// Fetches a blob of at most `limit` bytes, verified. Returns its path.
    async fn blob(&self, digest: &Digest, limit: u64) -> Result<PathBuf, Status> {
        let path = blob_path(self.directory, digest);
        let failed = |error: std::io::Error| Status::unknown(format!("blob {digest}: {error}"));
        if tokio::fs::try_exists(&path).await.map_err(failed)? {
            return Ok(path);
        }
        let parent = path.parent().unwrap_or(self.directory);
        tokio::fs::create_dir_all(parent).await.map_err(failed)?;
        let growing = path.with_extension("part");
        let mut file = tokio::fs::File::create(&growing).await.map_err(failed)?;
        let read = self.content.read(digest, 0, None).await;
        let mut read = read.map_err(|error| of_error(&error))?;
        let (mut hasher, mut size) = (DigestHasher::new(), 0);
        while let Some(piece) = read.next().await {
            let piece = piece.map_err(failed)?;
            size += piece.len() as u64;
            if size > limit {
                return Err(Status::unknown(format!("blob {digest}: larger than {limit} bytes")));
            }
            hasher.update(&piece);
            file.write_all(&piece).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        let actual = hasher.finish();
        if actual != *digest {
            return Err(Status::unknown(format!("blob {digest}: the client sent {actual}")));
        }
        tokio::fs::rename(&growing, &path).await.map_err(failed)?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_name_a_store_and_a_digest() {
        let digest = Digest::of(b"x");
        let source = |identifier: String, store: &str| SourceOp {
            identifier,
            attrs: [("oci.store".to_owned(), store.to_owned())].into(),
        };
        let good = source(format!("oci-layout://docker.io/library/a@{digest}"), "s");
        let image = of_source(&good).unwrap().unwrap();
        assert_eq!((image.store, image.session, image.digest), ("s", "", digest));
        assert!(of_source(&source("oci-layout://a:latest".to_owned(), "s")).is_err());
        assert!(of_source(&source(format!("oci-layout://a@{digest}"), "")).is_err());
        assert!(of_source(&source("docker-image://a".to_owned(), "")).unwrap().is_none());
        let blob = source(format!("oci-layout+blob://a@{digest}"), "s");
        assert_eq!(of_source(&blob).unwrap().unwrap().digest, digest);
    }
}

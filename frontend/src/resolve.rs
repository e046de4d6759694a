//! The interfaces through which the frontend requests images and files.

use std::error::Error;

use kiln_llb::op::{CopyAction, SourceOp};
use kiln_oci::{Digest, ImageConfig, Platform, Reference};

use crate::error::Cause;

/// A resolver of images. The caller of the frontend implements it.
pub trait Images {
    /// Resolves all `requests`, if possible in parallel, and returns the answers in the same order.
    /// During a build, the same request always has the same answer.
    fn resolve(&self, requests: &[ImageRequest]) -> Vec<Result<ResolvedImage, ResolveError>>;
}

/// The places where the solver looks for the images of a Dockerfile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResolveMode {
    /// The solver's default: it chooses between registry and local store.
    #[default]
    Default,
    /// The registries, even if the local store has the image.
    Pull,
    /// The local store first, then the registries.
    Local,
}

/// A request for an image that a Dockerfile names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageRequest {
    /// The registry or OCI layout that has the image.
    pub location: ImageLocation,
    /// The platform to choose from an image index.
    pub platform: Platform,
    /// The image's name in progress and error messages, as `docker.io/library/alpine:latest`.
    pub display: String,
}

/// The location of an image.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ImageLocation {
    /// A registry or the local store.
    Registry(Reference),
    /// An OCI layout given as a named context: the directory, and the image in it (`:tag`,
    /// `@digest`).
    OciLayout {
        /// The named context's value after `oci-layout://`, as typed.
        layout: String,
    },
}

/// The result of resolving an image reference.
#[derive(Clone, Debug)]
pub struct ResolvedImage {
    /// The digest of the manifest, or of the index that holds it.
    pub digest: Digest,
    /// The config of the image for the requested platform.
    pub config: ImageConfig,
    /// The reference of the image that a source policy uses in place of the requested one.
    pub reference: Option<Reference>,
}

impl ResolvedImage {
    /// Returns an image that is the requested one.
    pub fn new(digest: Digest, config: ImageConfig) -> Self {
        Self { digest, config, reference: None }
    }
}

/// The error that an image can't be resolved. Its message is shown unchanged.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ResolveError {
    /// The message of the error.
    pub message: String,
    /// The error that caused this one, if any. The message contains its text.
    #[source]
    pub source: Option<Cause>,
    /// The identifier of the source that a source policy uses in place of the image, if that source
    /// is no image. Named contexts follow it.
    pub moved: Option<String>,
}

impl ResolveError {
    /// Returns an error with a message and without a source.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None, moved: None }
    }

    /// Sets the identifier of the source that replaces the image.
    #[must_use]
    pub fn moved_to(mut self, identifier: String) -> Self {
        self.moved = Some(identifier);
        self
    }

    /// Sets the source.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(Cause::new(source));
        self
    }
}

/// The files of the build context. The caller of the frontend implements it.
pub trait ContextFiles {
    /// Returns the content of the file at `path`, relative to the context's root, or `None` if it
    /// doesn't exist. For `.dockerignore`, returns the Dockerfile's own ignore file (its name
    /// followed by `.dockerignore`) if it exists.
    ///
    /// # Errors
    /// Fails if the file can't be read.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, ResolveError>;

    /// Returns `true` if the ignore patterns `patterns` exclude `path`, relative to the context's
    /// root.
    ///
    /// # Errors
    /// Fails on a malformed pattern.
    fn is_ignored(&self, patterns: &[String], path: &str) -> Result<bool, ResolveError>;

    /// Returns `true` if the result of a copy changes when the files that the ignore patterns
    /// `patterns` exclude are removed from the context.
    ///
    /// # Errors
    /// Fails if the context can't be read, or on a malformed pattern.
    fn reads_ignored(&self, patterns: &[String], copy: &CopyAction) -> Result<bool, ResolveError> {
        let _ = copy;
        Ok(!patterns.is_empty())
    }

    /// Returns `true` if the result of a copy changes when its exclude patterns also apply to its
    /// source itself ([`CopyAction::exclude_matches`]). Files that the ignore patterns `patterns`
    /// exclude are ignored.
    ///
    /// # Errors
    /// Fails if the context can't be read, or on a malformed pattern.
    fn excludes_named(&self, patterns: &[String], copy: &CopyAction) -> Result<bool, ResolveError> {
        let _ = patterns;
        Ok(!copy.exclude_patterns.is_empty())
    }

    /// Returns the files of a remote source, if the caller supports this.
    ///
    /// # Errors
    /// Fails if the source can't be fetched.
    fn elsewhere(&self, source: &SourceOp) -> Result<Option<Box<dyn ContextFiles>>, ResolveError> {
        let _ = source;
        Ok(None)
    }

    /// Returns the time of a remote source in seconds since 1970, or `None` if it has none. A
    /// repository has the time of its commit. A file has the time that its server reports; without
    /// one, an archive has the time of its newest file.
    ///
    /// # Errors
    /// Fails if the time can't be determined.
    fn source_time(&self, source: &SourceOp) -> Result<Option<i64>, ResolveError> {
        Err(ResolveError::new(format!("the time of {} is not known here", source.identifier)))
    }

    /// Returns the files of a named context that is a directory (`local:NAME`), without the files
    /// that its ignore file excludes, if the caller can read it.
    fn named(&self, name: &str) -> Option<&dyn ContextFiles> {
        let _ = name;
        None
    }
}

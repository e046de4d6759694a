//! What the frontend asks for: images and files.

use kiln_llb::op::{CopyAction, SourceOp};
use kiln_oci::{Digest, ImageConfig, Platform, Reference};

/// Answers what images are. Implemented by whoever calls the frontend.
pub trait Images {
    /// Resolves all `requests`, in parallel where that helps, and returns an answer for each, in
    /// their order. The same request gets the same answer during a build.
    fn resolve(&self, requests: &[ImageRequest]) -> Vec<Result<ResolvedImage, ResolveError>>;
}

/// Who is asked for the images that a Dockerfile names, as the graph says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResolveMode {
    /// Whoever the solver asks first.
    #[default]
    Default,
    /// The registries.
    Pull,
}

/// An image that a Dockerfile names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageRequest {
    /// Where the image is.
    pub location: ImageLocation,
    /// The platform that is wanted.
    pub platform: Platform,
    /// What the request is for, for progress and errors, as `docker.io/library/alpine:latest`.
    pub display: String,
}

/// Where an image is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ImageLocation {
    /// A registry, or the local store.
    Registry(Reference),
    /// An OCI layout given as a named context: its name there, and what follows the directory
    /// (`:tag`, `@digest`).
    OciLayout {
        /// The named context's value after `oci-layout://`, as typed.
        layout: String,
    },
}

/// What an image reference resolves to.
#[derive(Clone, Debug)]
pub struct ResolvedImage {
    /// The digest of the manifest, or of the index that holds it.
    pub digest: Digest,
    /// The image's config.
    pub config: ImageConfig,
}

/// Why an image can't be resolved; the text is shown as it is.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ResolveError {
    /// The text.
    pub message: String,
    /// A way out, where there is one.
    pub hint: Option<String>,
}

impl ResolveError {
    /// Returns an error with this text.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// Sets the way out.
    #[must_use]
    pub fn with_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}

/// Answers what is in the build context. Implemented by whoever calls the frontend.
pub trait ContextFiles {
    /// Returns the content of the file at `path`, relative to the context's root, or `None` where
    /// there is none. For `.dockerignore` that is the Dockerfile's own ignore file (`NAME` and
    /// `.dockerignore`), where there is one beside it.
    ///
    /// # Errors
    /// Says why the file can't be read.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, ResolveError>;

    /// Tells whether the ignore patterns `patterns` exclude `path`, relative to the context's root.
    ///
    /// # Errors
    /// Says which pattern is malformed.
    fn is_ignored(&self, patterns: &[String], path: &str) -> Result<bool, ResolveError>;

    /// Tells whether a copy comes to something else where the context lacks what the ignore patterns
    /// `patterns` exclude.
    ///
    /// # Errors
    /// Says why the context can't be read, or which pattern is malformed.
    fn reads_ignored(&self, patterns: &[String], copy: &CopyAction) -> Result<bool, ResolveError> {
        let _ = copy;
        Ok(!patterns.is_empty())
    }

    /// Tells whether a copy comes to something else where its exclude patterns are also about what its
    /// source names ([`CopyAction::exclude_matches`]). The ignore patterns `patterns` count, too.
    ///
    /// # Errors
    /// Says why the context can't be read, or which pattern is malformed.
    fn excludes_named(&self, patterns: &[String], copy: &CopyAction) -> Result<bool, ResolveError> {
        let _ = patterns;
        Ok(!copy.exclude_patterns.is_empty())
    }

    /// Returns the files of a source from elsewhere, if it can be brought in.
    ///
    /// # Errors
    /// Says why it can't be.
    fn elsewhere(&self, source: &SourceOp) -> Result<Option<Box<dyn ContextFiles>>, ResolveError> {
        let _ = source;
        Ok(None)
    }

    /// Returns the time of a source from elsewhere, in seconds since 1970: a repository's is that of
    /// the commit, a file's is what its server tells, or else that of the newest file inside if it
    /// is an archive. `None` where it has none.
    ///
    /// # Errors
    /// Says why the time can't be found out.
    fn source_time(&self, source: &SourceOp) -> Result<Option<i64>, ResolveError> {
        Err(ResolveError::new(format!("the time of {} is not known here", source.identifier)))
    }

    /// Returns the files of a named context that is a directory (`local:NAME`), if they can be
    /// read here; its ignore file counts.
    fn named(&self, name: &str) -> Option<&dyn ContextFiles> {
        let _ = name;
        None
    }
}

//! Errors of exporting.

use std::io;
use std::path::PathBuf;

/// Why something can't be exported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text of an output is wrong.
    #[error("invalid output {text:?}: {problem}")]
    Spec {
        /// What was typed.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The text of a cache is wrong.
    #[error("invalid cache {text:?}: {problem}")]
    CacheSpec {
        /// What was typed.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The text of an annotation is wrong.
    #[error("invalid annotation {text:?}: {problem}")]
    Annotation {
        /// What was typed.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An image can't be loaded.
    #[error("load the image into {engine}")]
    Load {
        /// Who was to take it.
        engine: String,
        /// Why it doesn't.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A document is larger than its readers allow.
    #[error(transparent)]
    TooLarge(#[from] kiln_oci::TooLarge),
    /// The file system said no.
    #[error("{action} {path:?}")]
    Io {
        /// What was being done, as `create`.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The store can't do its part.
    #[error(transparent)]
    Store(#[from] kiln_store::Error),
    /// A registry refuses something, or can't be reached.
    #[error(transparent)]
    Registry(#[from] kiln_registry::Error),
    /// A tree can't be read, packed or copied.
    #[error(transparent)]
    Tree(#[from] kiln_tree::Error),
    /// A layer can't be packed.
    #[error("pack layer {layer}")]
    Pack {
        /// Which.
        layer: String,
        /// Why.
        source: io::Error,
    },
    /// A layer of a base image can't be had.
    #[error("fetch layer {layer}")]
    Fetch {
        /// The blob's digest or the layer.
        layer: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The image config can't be exported.
    #[error("invalid image config for export: {0}")]
    Config(String),
    /// What is asked for can't be done, or can't be done yet.
    #[error("{0}")]
    Unsupported(String),
    /// The export was cancelled.
    #[error("canceled")]
    Cancelled,
}

impl Error {
    /// Returns a function that makes an error of the kernel's answer, for `map_err`.
    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source: source.into() }
    }
}

/// A result with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

//! The error type of images and layers.

use std::io;
use std::path::Path;

/// A failure to resolve, fetch, unpack or pack an image or a layer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store can't be read or written.
    #[error("{0}")]
    Store(#[from] kiln_store::Error),
    /// A file operation in a tree failed.
    #[error("{0}")]
    Tree(#[from] kiln_tree::Error),
    /// A registry can't be reached or refuses a request.
    #[error("{0}")]
    Registry(#[from] kiln_registry::Error),
    /// A system call failed.
    #[error("{action} {name}")]
    Kernel {
        /// The operation as a verb, as `mount`.
        action: &'static str,
        /// The object of the operation.
        name: String,
        /// The error that the operating system reported.
        source: io::Error,
    },
    /// A document of an image is invalid.
    #[error("{name}: {problem}")]
    Image {
        /// The name of the image, or the digest of the document.
        name: String,
        /// A description of the error.
        problem: String,
    },
    /// An archive contains no images. The value gives the reason.
    #[error("the archive holds no images: {0}")]
    NoImages(&'static str),
    /// An image requires a feature that kiln doesn't have.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// A request is invalid, or refers to a missing object.
    #[error("{0}")]
    Invalid(String),
    /// A blob that a cache lists can't be used.
    #[error("blob {digest} of a cache")]
    Cached {
        /// The digest of the blob.
        digest: kiln_oci::Digest,
        /// The error that makes the blob unusable.
        source: Box<Error>,
    },
    /// A layer can't be packed.
    #[error("pack layer {layer}")]
    Pack {
        /// The layer, by the name of its progress report.
        layer: String,
        /// The error of the read or write.
        source: io::Error,
    },
    /// A layer of a base image can't be downloaded or unpacked.
    #[error("fetch layer {layer}")]
    Fetch {
        /// The digest of the blob, or the ID of the layer.
        layer: String,
        /// The reason, which is usually another error of this type.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The work was cancelled.
    #[error("canceled")]
    Cancelled,
}

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Returns a function for `map_err` that adds an action and a name to an I/O error.
    pub(crate) fn kernel<E: Into<io::Error>>(
        action: &'static str,
        name: impl ToString,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Kernel { action, name: name.to_string(), source: source.into() }
    }

    /// Returns a function for `map_err` that adds an action and a path to an I/O error.
    pub(crate) fn path<E: Into<io::Error>>(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self {
        Self::kernel(action, path.display())
    }

    /// Creates an error about an image or one of its documents.
    #[expect(clippy::needless_pass_by_value, reason = "texts and errors are passed as they come")]
    pub(crate) fn image(name: impl ToString, problem: impl ToString) -> Self {
        Self::Image { name: name.to_string(), problem: problem.to_string() }
    }
}

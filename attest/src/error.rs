//! The error type of attestations.

use std::io;
use std::path::PathBuf;

/// An error of an attestation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{action} {path:?}")]
    Io {
        /// The operation as a verb, as `read`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error that the operating system reported.
        source: io::Error,
    },
    /// A file tree can't be read.
    #[error("{0}")]
    Tree(#[from] kiln_tree::Error),
    /// The store can't create a temporary directory.
    #[error("{0}")]
    Store(#[from] kiln_store::Error),
    /// A document is larger than its readers allow.
    #[error("{0}")]
    TooLarge(#[from] kiln_oci::limits::TooLarge),
    /// A statement has no form in JSON.
    #[error("encode an attestation")]
    Encode(#[from] serde_json::Error),
    /// The caller has passed fewer predicates than images.
    #[error("an image has no provenance")]
    NoPredicate,
    /// An image has more packages than a bill of materials may list.
    #[error("the image has more than {0} packages")]
    TooManyPackages(usize),
    /// A statement of a frontend or a scanner can't be read.
    #[error("cannot read in-toto attestation")]
    ReadStatement(#[source] kiln_tree::Error),
    /// A statement of a frontend or a scanner is missing, or is something else than a file.
    #[error("{} is not a regular file", .0.display())]
    NoStatement(PathBuf),
    /// A statement of a frontend or a scanner is too large.
    #[error("{} exceeds {most} bytes", path.display())]
    LargeStatement {
        /// The path of the file in its tree.
        path: PathBuf,
        /// The most bytes of a statement.
        most: u64,
    },
    /// A statement of a frontend or a scanner is malformed.
    #[error("cannot decode in-toto statement {}", path.display())]
    DecodeStatement {
        /// The path of the file in its tree.
        path: PathBuf,
        /// The error of the JSON parser.
        source: serde_json::Error,
    },
    /// A statement in a bundle is of another type than the bundle's.
    #[error("bundle entry {predicate_type} does not match required predicate type {wanted}")]
    OtherPredicate {
        /// The predicate type of the statement.
        predicate_type: String,
        /// The predicate type of the bundle.
        wanted: String,
    },
    /// A frontend or a scanner has made provenance, which only kiln makes.
    #[error("frontend may not set provenance attestations")]
    GivenProvenance,
}

impl Error {
    /// Returns a function for `map_err` that adds an action and a path to an I/O error.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

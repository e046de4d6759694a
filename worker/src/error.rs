//! Why a step can't be done.

use std::io;
use std::path::{Path, PathBuf};

use kiln_solver::StepError;

/// Why a step can't be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] kiln_store::Error),
    /// A file operation failed.
    #[error(transparent)]
    Tree(#[from] kiln_tree::Error),
    /// A registry can't be asked.
    #[error(transparent)]
    Registry(#[from] kiln_registry::Error),
    /// The users of an image can't be told.
    #[error(transparent)]
    Users(#[from] kiln_sandbox::users::UserError),
    /// The sandbox can't run anything.
    #[error(transparent)]
    Sandbox(#[from] kiln_sandbox::SandboxError),
    /// There is no network for a step.
    #[error(transparent)]
    Network(#[from] kiln_sandbox::network::NetworkError),
    /// The kernel said no.
    #[error("{action} {name}")]
    Kernel {
        /// What was being done, as `mount`.
        action: &'static str,
        /// To what.
        name: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A document of an image that isn't what it should be.
    #[error("{name}: {problem}")]
    Image {
        /// The image, or the document's digest.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An archive without images.
    #[error("the archive holds no images: {0}")]
    NoImages(&'static str),
    /// Something that kiln doesn't do.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// Something that steps may do only where it was allowed.
    #[error("{0} is not allowed")]
    NotAllowed(&'static str),
    /// An SSH agent that steps ask for and nobody has lent.
    #[error("ssh agent {0}: not found")]
    NoAgent(String),
    /// Programs of another platform, which this machine doesn't run.
    #[error("can't run programs for {platform}: {problem}")]
    NoEmulator {
        /// The platform.
        platform: String,
        /// What is missing.
        problem: String,
    },
    /// A source of a copy that isn't there.
    #[error("failed to compute cache key: {source}")]
    Missing {
        /// What is missing.
        source: kiln_tree::Error,
        /// Where it would be.
        path: PathBuf,
        /// What else is in that directory.
        siblings: Vec<String>,
        /// Whether it is there, and excluded.
        is_excluded: bool,
    },
    /// A graph that asks for something impossible, or something that isn't there.
    #[error("{0}")]
    Invalid(String),
    /// A blob that a cache has promised can't be used.
    #[error("blob {digest} of a cache")]
    Cached {
        /// Which.
        digest: kiln_oci::Digest,
        /// Why.
        source: Box<Error>,
    },
    /// A layer can't be packed.
    #[error(transparent)]
    Pack(Box<dyn std::error::Error + Send + Sync>),
    /// The step was cancelled.
    #[error("canceled")]
    Cancelled,
}

/// A result with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Returns a function that names an error of the kernel.
    pub(crate) fn kernel<E: Into<io::Error>>(
        action: &'static str,
        name: impl ToString,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Kernel { action, name: name.to_string(), source: source.into() }
    }

    /// Returns a function that names an error about a path.
    pub(crate) fn path<E: Into<io::Error>>(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self {
        Self::kernel(action, path.display())
    }

    /// Returns an error about an image.
    #[expect(clippy::needless_pass_by_value, reason = "texts and errors are passed as they come")]
    pub(crate) fn image(name: impl ToString, problem: impl ToString) -> Self {
        Self::Image { name: name.to_string(), problem: problem.to_string() }
    }
}

impl From<Error> for StepError {
    fn from(error: Error) -> Self {
        match error {
            Error::Cancelled => Self::Cancelled,
            error => Self::other(error),
        }
    }
}

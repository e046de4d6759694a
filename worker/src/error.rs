//! The error type of the worker.

use std::io;
use std::path::{Path, PathBuf};

use kiln_solver::StepError;

/// A failure to resolve, load or run a step.
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
    /// The user database of an image can't be read.
    #[error("{0}")]
    Users(#[from] kiln_sandbox::users::UserError),
    /// The sandbox can't run a program.
    #[error("{0}")]
    Sandbox(#[from] kiln_sandbox::SandboxError),
    /// The network of a step can't be created.
    #[error("{0}")]
    Network(#[from] kiln_sandbox::network::NetworkError),
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
    /// An image or a layer can't be resolved, fetched, unpacked or packed.
    #[error("{0}")]
    Images(#[source] kiln_images::Error),
    /// The graph requires a feature that kiln doesn't have.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// A step requires an entitlement that the user hasn't granted. The value is its name.
    #[error("{0} is not allowed")]
    NotAllowed(&'static str),
    /// A step requires an SSH agent that the user hasn't passed to the build. The value is its ID.
    #[error("ssh agent {0}: not found")]
    NoAgent(String),
    /// A step runs programs of a platform that this machine can't run.
    #[error("can't run programs for {platform}: {problem}")]
    NoEmulator {
        /// The platform of the step.
        platform: String,
        /// The reason why there is no usable emulator.
        problem: String,
    },
    /// The source of a copy doesn't exist.
    #[error("{}", missing(source, path, *.in_key))]
    Missing {
        /// The error with the missing path.
        source: kiln_tree::Error,
        /// The path of the missing source.
        path: PathBuf,
        /// The names of other files in the same directory.
        siblings: Vec<String>,
        /// `true` if the path exists but is excluded from the build context.
        is_excluded: bool,
        /// `true` if the step's key depends on the source's content. BuildKit notices then that the
        /// source is missing before the step runs, and its message says so.
        in_key: bool,
    },
    /// The graph is invalid, or refers to a missing object.
    #[error("{0}")]
    Invalid(String),
    /// The cache of a build failed.
    #[error("{0}")]
    Cache(#[from] kiln_solver::CacheError),
    /// The build was cancelled.
    #[error("canceled")]
    Cancelled,
}

/// Advice against a failure, as plain data. Advice against a failed request is the hint of the
/// registry's error, which is among the sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// The user may grant the entitlement of this name.
    Allow(&'static str),
    /// The user may pass the SSH agent with this ID.
    PassAgent(String),
    /// The user may install an emulator of this architecture.
    InstallEmulator(String),
    /// An ignore file excludes the file at this path.
    Excluded(PathBuf),
    /// The path may be misspelled.
    CheckPath {
        /// The missing path.
        path: PathBuf,
        /// The names of the other files in the same directory.
        siblings: Vec<String>,
    },
}

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

fn missing(source: &kiln_tree::Error, path: &Path, in_key: bool) -> String {
    if in_key {
        format!("failed to compute cache key: {source}")
    } else {
        format!("lstat {}: no such file or directory", path.display())
    }
}

impl Error {
    /// Returns the hint against this failure, if any. Its sources may have hints of their own.
    pub fn hint(&self) -> Option<Hint> {
        Some(match self {
            Self::NotAllowed(right) => Hint::Allow(right),
            Self::NoAgent(id) => Hint::PassAgent(id.clone()),
            Self::NoEmulator { platform, .. } => {
                let architecture = platform.strip_prefix("linux/")?.split('/').next()?;
                Hint::InstallEmulator(architecture.to_owned())
            }
            Self::Missing { path, is_excluded: true, .. } => Hint::Excluded(path.clone()),
            Self::Missing { path, siblings, .. } => {
                Hint::CheckPath { path: path.clone(), siblings: siblings.clone() }
            }
            _ => return None,
        })
    }

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

impl From<kiln_images::Error> for Error {
    /// Keeps the errors that both crates know apart from the rest.
    fn from(error: kiln_images::Error) -> Self {
        use kiln_images::Error as Images;
        match error {
            Images::Store(error) => Self::Store(error),
            Images::Tree(error) => Self::Tree(error),
            Images::Registry(error) => Self::Registry(error),
            Images::Cancelled => Self::Cancelled,
            error => Self::Images(error),
        }
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

//! Errors of the store.

use std::io;
use std::path::PathBuf;

use kiln_oci::Digest;

/// Why the store can't do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
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
    /// The index can't be read or written.
    #[error("index: {action}")]
    Index {
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// Content that isn't what its name says.
    #[error("content has digest {actual}, expected {expected}")]
    DigestMismatch {
        /// What was asked for.
        expected: Digest,
        /// What it is.
        actual: Digest,
    },
    /// A tree operation failed.
    #[error(transparent)]
    Tree(#[from] kiln_tree::Error),
    /// Something that is needed isn't there.
    #[error("no {what} {name} in the store")]
    Missing {
        /// Its kind, as `layer`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A name that can't be used.
    #[error("invalid {what} {name:?}: {problem}")]
    Invalid {
        /// Its kind, as `volume name`.
        what: &'static str,
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Something of the store's that isn't what was stored.
    #[error(
        "the {what} is damaged: `kiln system check --repair` finds out what else is, and drops it, \
         so that it is made again"
    )]
    Damaged {
        /// What.
        what: String,
    },
    /// A document that is larger than it may be.
    #[error("blob {digest} has {size} bytes, more than {limit}")]
    TooLarge {
        /// Which.
        digest: Digest,
        /// Its size.
        size: u64,
        /// The most it may have.
        limit: u64,
    },
    /// There is no room for what is to be stored.
    #[error(
        "the store is full: it may take {}, and there is no room for {}, since what it holds is in \
         use; raise --max-storage, or free room with `kiln rmi`, `kiln prune --all` or \
         `kiln prune --volumes`",
        shown(*cap),
        more(*needed)
    )]
    Full {
        /// What the store may take, in bytes.
        cap: u64,
        /// What was needed, in bytes; 0 for what a program was writing.
        needed: u64,
    },
    /// The store was written by a newer kiln.
    #[error("the store at {root:?} has version {found}, this kiln knows up to {known}")]
    Version {
        /// The store's root.
        root: PathBuf,
        /// Its version.
        found: u32,
        /// The newest that is known here.
        known: u32,
    },
    /// The store's file system can't hold what overlayfs writes.
    #[error("no overlay can be mounted in the store at {root:?}: {reason}")]
    NoOverlay {
        /// The store's root.
        root: PathBuf,
        /// What is against it.
        reason: String,
    },
    /// The file system can't hold a store.
    #[error("the file system at {root:?} can't hold a store: {problem}; use another one (--root)")]
    Unsuitable {
        /// The store's root.
        root: PathBuf,
        /// What it lacks.
        problem: String,
    },
    /// Something of the store that somebody else could change.
    #[error(
        "{path:?} belongs to user {owner}, who could change the store: use another directory \
         (--root), or give it to the user who runs kiln"
    )]
    Foreign {
        /// The root, or something in it.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// The store's files were made with other user or group ids.
    #[error(
        "the store at {root:?} was made with other user ids ({known}) than this process has \
         ({ids}), and the owners of its files would be mistaken: use another directory, or remove \
         this one with the ids that it was made with"
    )]
    OtherIds {
        /// The store's root.
        root: PathBuf,
        /// Those that it was made with.
        known: String,
        /// Those of this process.
        ids: String,
    },
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

    /// Returns the error that something isn't what was stored.
    pub(crate) fn damaged(what: impl std::fmt::Display) -> Self {
        Self::Damaged { what: what.to_string() }
    }

    /// Returns the error that SQLite's answer stands for: what can't be read of a row or of a page
    /// was written by no kiln.
    pub(crate) fn index(action: &'static str, source: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match &source {
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            // Rows that may be missing are asked for as such.
            | rusqlite::Error::QueryReturnedNoRows
            | rusqlite::Error::Utf8Error(..) => Self::damaged("index of the store"),
            other => match other.sqlite_error_code() {
                Some(DatabaseCorrupt | NotADatabase) => Self::damaged("index of the store"),
                _ => Self::Index { action, source },
            },
        }
    }

    /// Returns the error that something isn't there.
    pub(crate) fn missing(what: &'static str, name: impl std::fmt::Display) -> Self {
        Self::Missing { what, name: name.to_string() }
    }
}

/// Returns a number of bytes as people read it.
fn shown(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} bytes"),
        10_000..10_000_000 => format!("{} kB", bytes / 1000),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}

fn more(bytes: u64) -> String {
    match bytes {
        0 => "what a program of the build is writing".to_owned(),
        bytes => format!("{} more", shown(bytes)),
    }
}

/// A result with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

//! The errors of the store.

use std::io;
use std::path::PathBuf;

use kiln_oci::Digest;

/// The error of a store operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation on the file system failed.
    #[error("{action} {path:?}")]
    Io {
        /// The operation, as `create`.
        action: &'static str,
        /// The path of the file or directory.
        path: PathBuf,
        /// The error that the kernel reported.
        source: io::Error,
    },
    /// The index can't be read or written.
    #[error("index: {action}")]
    Index {
        /// The operation, as a phrase.
        action: &'static str,
        /// The error that SQLite reported.
        source: rusqlite::Error,
    },
    /// The content doesn't match its digest.
    #[error("content has digest {actual}, expected {expected}")]
    DigestMismatch {
        /// The digest that was requested.
        expected: Digest,
        /// The digest of the actual content.
        actual: Digest,
    },
    /// An operation on a tree failed.
    #[error("{0}")]
    Tree(#[from] kiln_tree::Error),
    /// A required object doesn't exist.
    #[error("no {what} {name} in the store")]
    Missing {
        /// The kind of the object, as `layer`.
        what: &'static str,
        /// The name or ID of the object.
        name: String,
    },
    /// A name is invalid.
    #[error("invalid {what} {name:?}: {problem}")]
    Invalid {
        /// The kind of the object, as `volume name`.
        what: &'static str,
        /// The name, as given.
        name: String,
        /// The problem with the name.
        problem: &'static str,
    },
    /// A part of the store has changed since it was stored.
    #[error(
        "the {what} is damaged: `kiln system check --repair` finds out what else is, and drops it, \
         so that it is made again"
    )]
    Damaged {
        /// The damaged part, as a phrase.
        what: String,
    },
    /// A document exceeds its size limit.
    #[error("blob {digest} has {size} bytes, more than {limit}")]
    TooLarge {
        /// The digest of the document.
        digest: Digest,
        /// The size of the document in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The store has no room for new data.
    #[error(
        "the store is full: it may take {}, and there is no room for {}, since what it holds is in \
         use; raise --max-storage, or free room with `kiln rmi`, `kiln prune --all` or \
         `kiln prune --volumes`",
        shown(*cap),
        more(*needed)
    )]
    Full {
        /// The cap of the store in bytes.
        cap: u64,
        /// The number of bytes required; 0 for the output of a program.
        needed: u64,
    },
    /// A newer version of kiln wrote the store.
    #[error("the store at {root:?} has version {found}, this kiln knows up to {known}")]
    Version {
        /// The store's root directory.
        root: PathBuf,
        /// The version of the store.
        found: u32,
        /// The newest version that this kiln supports.
        known: u32,
    },
    /// No overlay can be mounted on the store's file system.
    #[error("no overlay can be mounted in the store at {root:?}: {reason}")]
    NoOverlay {
        /// The store's root directory.
        root: PathBuf,
        /// The reason, as the kernel reports it.
        reason: String,
    },
    /// The file system lacks a feature that a store requires.
    #[error("the file system at {root:?} can't hold a store: {problem}; use another one (--root)")]
    Unsuitable {
        /// The store's root directory.
        root: PathBuf,
        /// The missing feature, as a phrase.
        problem: String,
    },
    /// Another user could change a part of the store.
    #[error(
        "{path:?} belongs to user {owner}, who could change the store: use another directory \
         (--root), or give it to the user who runs kiln"
    )]
    Foreign {
        /// The path of the root, or of an entry in it.
        path: PathBuf,
        /// The user ID of the entry's owner.
        owner: u32,
    },
    /// The store's files were created with other user or group IDs.
    #[error(
        "the store at {root:?} was made with other user ids ({known}) than this process has \
         ({ids}), and the owners of its files would be mistaken: use another directory, or remove \
         this one with the ids that it was made with"
    )]
    OtherIds {
        /// The store's root directory.
        root: PathBuf,
        /// The IDs with which the store was created.
        known: String,
        /// The IDs of this process.
        ids: String,
    },
}

impl Error {
    /// Returns a function for `map_err` that adds the operation and the path to the kernel's error.
    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source: source.into() }
    }

    /// Returns the error for a damaged part of the store.
    pub(crate) fn damaged(what: impl std::fmt::Display) -> Self {
        Self::Damaged { what: what.to_string() }
    }

    /// Returns the error for SQLite's error. Rows and pages that can't be read were not written by
    /// kiln, so they are damaged.
    pub(crate) fn index(action: &'static str, source: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match &source {
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            // Rows that may be missing are queried as optional.
            | rusqlite::Error::QueryReturnedNoRows
            | rusqlite::Error::Utf8Error(..) => Self::damaged("index of the store"),
            other => match other.sqlite_error_code() {
                Some(DatabaseCorrupt | NotADatabase) => Self::damaged("index of the store"),
                _ => Self::Index { action, source },
            },
        }
    }

    /// Returns the error for a missing object.
    pub(crate) fn missing(what: &'static str, name: impl std::fmt::Display) -> Self {
        Self::Missing { what, name: name.to_string() }
    }
}

/// Returns a number of bytes for display.
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

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

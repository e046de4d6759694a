//! The connection to SQLite.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::error::{Error, Result};
use crate::lock::RootLock;
use crate::{lock, schema, sums};

/// How long a writer waits for the writers of other processes, whose transactions take microseconds.
const PATIENCE: Duration = Duration::from_mins(1);

/// SQLite's page size.
const PAGE: u64 = 4096;
/// How many pages the log has at least and at most before it is written back.
const LOG_PAGES: (u64, u64) = (256, 8192);
/// How many unused pages the index may have.
const FREE_PAGES: i64 = 2048;

/// The index. One connection per process is enough: what is asked of it takes microseconds.
#[derive(Debug)]
pub(crate) struct Index {
    connection: Mutex<Connection>,
}

impl Index {
    /// Opens the index of the store at `root`, and makes or migrates it where that is needed.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let failed = |source| Error::index("open", source);
        let path = root.join("kiln.db");
        // SQLite gives its other files the mode that this one has.
        drop(lock::open(&path)?);
        let mut connection = connect(&path).map_err(failed)?;
        let mut found = schema::version(&connection).map_err(failed)?;
        if found < schema::VERSION {
            let _alone = RootLock::exclusive(root)?;
            schema::migrate(&mut connection).map_err(failed)?;
            found = schema::version(&connection).map_err(failed)?;
        }
        if found > schema::VERSION {
            let known = schema::VERSION;
            return Err(Error::Version { root: root.to_owned(), found, known });
        }
        Ok(Self { connection: Mutex::new(connection) })
    }

    /// Reads. `read` sees one statement's worth of consistency.
    pub(crate) fn read<T>(
        &self,
        action: &'static str,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        read(&self.held()).map_err(|source| Error::index(action, source))
    }

    /// Reads several things as they are at one moment.
    pub(crate) fn read_all<T>(
        &self,
        action: &'static str,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let connection = self.held();
        let run = || read(&*connection.unchecked_transaction()?);
        run().map_err(|source| Error::index(action, source))
    }

    /// Reads and writes in one transaction, alone among all processes.
    pub(crate) fn write<T>(
        &self,
        action: &'static str,
        write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let mut connection = self.held();
        let run = || {
            let transaction = Transaction::new(&mut connection, TransactionBehavior::Immediate)?;
            let value = write(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        run().map_err(|source| Error::index(action, source))
    }

    /// Bounds the size of the write-ahead log, in bytes, as far as readers let it.
    pub(crate) fn bound_log(&self, bytes: u64) -> Result<()> {
        let pages = (bytes / PAGE).clamp(LOG_PAGES.0, LOG_PAGES.1).cast_signed();
        self.held()
            .pragma_update(None, "wal_autocheckpoint", pages)
            .map_err(|error| Error::index("open", error))
    }

    /// Gives room back that the index doesn't need any more, unless others are just using it.
    pub(crate) fn shrink(&self) -> Result<()> {
        let connection = self.held();
        let shrink = || -> rusqlite::Result<()> {
            let pages = |what: &str| {
                connection.query_row(&format!("PRAGMA {what}"), [], |row| row.get::<_, i64>(0))
            };
            let (free, all) = (pages("freelist_count")?, pages("page_count")?);
            connection.busy_timeout(Duration::ZERO)?;
            if free > FREE_PAGES && free * 2 > all {
                connection.execute_batch("VACUUM")?;
            }
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        };
        let shrunk = shrink();
        let restored = connection.busy_timeout(PATIENCE);
        match shrunk {
            Err(error)
                if error.sqlite_error_code() != Some(rusqlite::ErrorCode::DatabaseBusy)
                    && error.sqlite_error_code() != Some(rusqlite::ErrorCode::DatabaseLocked) =>
            {
                Err(Error::index("shrink", error))
            }
            _ => restored.map_err(|error| Error::index("shrink", error)),
        }
    }

    fn held(&self) -> MutexGuard<'_, Connection> {
        // A panic amid a transaction has rolled it back.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    sums::register(&connection)?;
    connection.set_prepared_statement_cache_capacity(128);
    // Closing must not wait for the disk: `Store::sync` does the checkpoints, and this is a bound.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 8192;")?;
    // A log that was written back becomes as short as what is in it.
    connection.pragma_update(None, "journal_size_limit", 0)?;
    Ok(connection)
}

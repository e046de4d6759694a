//! The SQLite index: its tables, and the connection to it.

pub(crate) mod schema;
pub(crate) mod sums;

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_oci::Digest;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::error::{Error, Result};

/// The time that a writer waits for writers in other processes, whose transactions take
/// microseconds.
const PATIENCE: Duration = Duration::from_mins(1);

/// The page size of SQLite in bytes.
const PAGE: u64 = 4096;
/// The bounds for the number of pages in the log before it is written back.
const LOG_PAGES: (u64, u64) = (256, 8192);
/// The maximal number of unused pages in the index.
const FREE_PAGES: i64 = 2048;

/// The index. One connection per process is enough, since queries take microseconds.
#[derive(Debug)]
pub(crate) struct Index {
    connection: Mutex<Connection>,
}

impl Index {
    /// Opens the index of the store at `root`, and creates or migrates it if necessary. `lock` takes
    /// a lock that excludes other processes; a migration holds it.
    pub(crate) fn open<L>(root: &Path, lock: impl FnOnce() -> Result<L>) -> Result<Self> {
        let failed = |source| Error::index("open", source);
        let path = root.join("kiln.db");
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        // SQLite gives its other files the mode of this one.
        drop(options.open(&path).map_err(Error::io("open", &path))?);
        let mut connection = connect(&path).map_err(failed)?;
        let mut found = schema::version(&connection).map_err(failed)?;
        if found < schema::VERSION {
            let _alone = lock()?;
            schema::migrate(&mut connection).map_err(failed)?;
            found = schema::version(&connection).map_err(failed)?;
        }
        if found > schema::VERSION {
            let known = schema::VERSION;
            return Err(Error::Version { root: root.to_owned(), found, known });
        }
        Ok(Self { connection: Mutex::new(connection) })
    }

    /// Runs a read. Each statement sees a consistent state, but several statements may see
    /// different ones.
    pub(crate) fn read<T>(
        &self,
        action: &'static str,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        read(&self.held()).map_err(|source| Error::index(action, source))
    }

    /// Runs several reads that all see the same state.
    pub(crate) fn read_all<T>(
        &self,
        action: &'static str,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let connection = self.held();
        let run = || read(&*connection.unchecked_transaction()?);
        run().map_err(|source| Error::index(action, source))
    }

    /// Runs a write transaction. No other process writes at the same time.
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

    /// Bounds the size of the write-ahead log in bytes, as far as readers permit.
    pub(crate) fn bound_log(&self, bytes: u64) -> Result<()> {
        let pages = (bytes / PAGE).clamp(LOG_PAGES.0, LOG_PAGES.1).cast_signed();
        self.held()
            .pragma_update(None, "wal_autocheckpoint", pages)
            .map_err(|error| Error::index("open", error))
    }

    /// Frees unused disk space of the index, unless other processes are using it.
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
        // A panic within a transaction has rolled it back.
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
    // Closing must not wait for the disk. `Store::sync` runs the checkpoints, and this is only a
    // bound.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 8192;")?;
    // The log is truncated after it was written back.
    connection.pragma_update(None, "journal_size_limit", 0)?;
    Ok(connection)
}

/// Returns the texts that a query with one column selects.
pub(crate) fn text_column(connection: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    connection.prepare_cached(sql)?.query_map([], |row| row.get(0))?.collect()
}

/// Returns the digests that a query with one column selects.
pub(crate) fn digest_column(connection: &Connection, sql: &str) -> rusqlite::Result<Vec<Digest>> {
    connection
        .prepare_cached(sql)?
        .query_map([], |row| Ok(Digest::from_bytes(row.get(0)?)))?
        .collect()
}

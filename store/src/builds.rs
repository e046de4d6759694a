//! The records of builds.
//!
//! A build has a row and, if its steps have printed anything, a file `builds/ID.log.zst` with the
//! output. The row is created first; a log without a row is garbage. The row contains the name of
//! the process that runs the build. If that process dies, the process that cleans up after it marks
//! the build as interrupted.
//!
//! The records are bounded. When a build ends, old builds are removed: those beyond [`MAX_BUILDS`],
//! those older than [`MAX_AGE`], and those whose logs, together with all later logs, exceed
//! [`MAX_LOG_BYTES`]. The last build is always kept, whatever the size of its log, and so are
//! running builds.

pub(crate) mod log;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row};

use self::log::{BuildLog, BuildLogWriter};
use crate::cache::{listings, recipes};
use crate::db::text_column;
use crate::error::{Error, Result};
use crate::name;
use crate::room::Room;

/// The maximal number of recorded builds.
const MAX_BUILDS: u32 = 100;
/// The maximal age of a recorded build.
const MAX_AGE: Duration = Duration::from_hours(30 * 24);
/// The maximal disk space of all logs in bytes, compressed.
const MAX_LOG_BYTES: u64 = 1 << 30;

/// The state of a build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BuildStatus {
    /// The build is still running.
    #[default]
    Running,
    /// The build was successful.
    Completed,
    /// The build ended with an error.
    Failed,
    /// The user stopped the build.
    Canceled,
    /// The process of the build died.
    Interrupted,
}

impl BuildStatus {
    const ALL: [Self; 5] =
        [Self::Running, Self::Completed, Self::Failed, Self::Canceled, Self::Interrupted];

    /// Returns the name of the status, as `running`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Interrupted => "interrupted",
        }
    }

    /// Returns the status with this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

/// The record of a build. The caller defines the contents of its texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildRow {
    /// The unique name. [`Builds::fresh_id`] returns a new one.
    pub id: String,
    /// The start time, in nanoseconds since 1970.
    pub started_at: i64,
    /// The end time, in nanoseconds since 1970, once the build has ended.
    pub ended_at: Option<i64>,
    /// The state of the build.
    pub status: BuildStatus,
    /// The name of the image, or another description of the build's result.
    pub reference: Option<String>,
    /// The disk space of the log in bytes.
    pub log_bytes: u64,
    /// The identity that builds of the same Dockerfile and context share, if there is one.
    pub family: Option<[u8; 32]>,
    /// The remaining data, as JSON.
    pub record: String,
}

/// The records of the builds in a store.
#[derive(Clone, Debug)]
pub struct Builds {
    room: Arc<Room>,
}

const COLUMNS: &str = "id, started_at, ended_at, status, reference, log_bytes, record, family";

impl Builds {
    /// Returns a handle to the records of builds of an open store.
    pub(crate) fn new(room: &Arc<Room>) -> Self {
        Self { room: room.clone() }
    }

    /// Returns an ID that no build has.
    pub fn fresh_id(&self) -> String {
        name::fresh()
    }

    /// Records a build of this process, or updates its row. If the build has ended, removes the
    /// oldest builds.
    pub fn record(&self, build: &BuildRow) -> Result<()> {
        let sql = format!(
            "INSERT OR REPLACE INTO builds ({COLUMNS}, process)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
        );
        let forgotten = self.room.index().write("record a build", |transaction| {
            transaction.prepare_cached(&sql)?.execute((
                &build.id,
                build.started_at,
                build.ended_at,
                build.status.as_str(),
                &build.reference,
                build.log_bytes as i64,
                &build.record,
                build.family,
                self.room.process().name(),
            ))?;
            if build.ended_at.is_some() { forget_old(transaction, name::now()) } else { Ok(vec![]) }
        })?;
        forgotten.iter().try_for_each(|id| self.remove_log(id))
    }

    /// Returns the build with an ID, if it exists.
    pub fn get(&self, id: &str) -> Result<Option<BuildRow>> {
        let sql = format!("SELECT {COLUMNS} FROM builds WHERE id = ?1");
        self.room.index().read("look up a build", |connection| {
            connection.prepare_cached(&sql)?.query_row([id], build).optional()
        })
    }

    /// Returns all builds, newest first.
    pub fn list(&self) -> Result<Vec<BuildRow>> {
        let sql = format!("SELECT {COLUMNS} FROM builds ORDER BY started_at DESC, id");
        self.room.index().read("list builds", |connection| {
            connection.prepare_cached(&sql)?.query_map([], build)?.collect()
        })
    }

    /// Returns the number of builds.
    pub fn count(&self) -> Result<u64> {
        self.room.index().read("count builds", |connection| {
            let count: i64 =
                connection.query_row("SELECT count(*) FROM builds", [], |row| row.get(0))?;
            Ok(count.cast_unsigned())
        })
    }

    /// Returns at most `limit` builds before `row`, newest first: either those of its family, or
    /// all others.
    pub fn before(&self, row: &BuildRow, of_family: bool, limit: u32) -> Result<Vec<BuildRow>> {
        let condition = if of_family { "family = ?3" } else { "(?3 IS NULL OR family IS NOT ?3)" };
        let sql = format!(
            "SELECT {COLUMNS} FROM builds
             WHERE (started_at, id) < (?1, ?2) AND {condition}
             ORDER BY started_at DESC, id DESC LIMIT ?4"
        );
        self.room.index().read("list builds", |connection| {
            let parameters = (row.started_at, &row.id, row.family, limit);
            connection.prepare_cached(&sql)?.query_map(parameters, build)?.collect()
        })
    }

    /// Removes a build with its log. Returns `true` if it existed.
    pub fn remove(&self, id: &str) -> Result<bool> {
        let there = self.room.index().write("remove a build", |transaction| {
            Ok(transaction.prepare_cached("DELETE FROM builds WHERE id = ?1")?.execute([id])? > 0)
        })?;
        if there {
            self.remove_log(id)?;
        }
        Ok(there)
    }

    /// Removes the builds beyond the limits, and outdated data about their steps.
    pub fn prune(&self) -> Result<()> {
        let forgotten = self.room.index().write("forget builds", |transaction| {
            let now = name::now();
            recipes::sweep(transaction, now)?;
            listings::sweep(transaction, now)?;
            forget_old(transaction, now)
        })?;
        forgotten.iter().try_for_each(|id| self.remove_log(id))
    }

    /// Creates the log of a recorded build.
    pub fn write_log(&self, id: &str) -> Result<BuildLogWriter> {
        let path = self.log_path(id);
        BuildLogWriter::create(&path).map_err(Error::io("create", &path))
    }

    /// Opens the log of a build. Returns `None` if the steps have printed nothing.
    pub fn read_log(&self, id: &str) -> Result<Option<BuildLog>> {
        let path = self.log_path(id);
        match BuildLog::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            result => result.map(Some).map_err(Error::io("open", &path)),
        }
    }

    fn remove_log(&self, id: &str) -> Result<()> {
        let path = self.log_path(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(Error::io("remove", &path)),
        }
    }

    fn log_path(&self, id: &str) -> PathBuf {
        self.room.root().join("builds").join(format!("{id}{LOG_SUFFIX}"))
    }
}

/// The suffix of the names of logs.
const LOG_SUFFIX: &str = ".log.zst";

/// Removes logs without rows, and marks builds of dead processes as interrupted. The caller holds
/// the root lock exclusively.
pub(crate) fn sweep(room: &Arc<Room>, living: &[String]) -> Result<()> {
    let rows = room.index().write("sweep builds", |transaction| {
        let sql = "SELECT DISTINCT process FROM builds WHERE status = 'running'";
        let running: Vec<String> = transaction
            .prepare_cached(sql)?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let sql =
            "UPDATE builds SET status = 'interrupted' WHERE status = 'running' AND process = ?1";
        for process in running.iter().filter(|process| !living.contains(process)) {
            transaction.prepare_cached(sql)?.execute([process])?;
        }
        text_column(transaction, "SELECT id FROM builds")
    })?;
    let dir = room.root().join("builds");
    for entry in fs::read_dir(&dir).map_err(Error::io("read", &dir))? {
        let entry = entry.map_err(Error::io("read", &dir))?;
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(LOG_SUFFIX));
        if !id.is_some_and(|id| rows.iter().any(|row| row == id)) {
            room.discard(&entry.path())?;
        }
    }
    Ok(())
}

/// Deletes the rows beyond the limits. Returns their IDs.
fn forget_old(connection: &Connection, now: i64) -> rusqlite::Result<Vec<String>> {
    let sql = "DELETE FROM builds WHERE id IN (
            SELECT id FROM (
                SELECT id, status, started_at,
                    row_number() OVER newest AS place,
                    sum(log_bytes) OVER newest AS bytes
                FROM builds WINDOW newest AS (ORDER BY started_at DESC, id))
            WHERE status <> 'running' AND place > 1
                AND (place > ?1 OR bytes > ?2 OR started_at < ?3))
        RETURNING id";
    let oldest = now - MAX_AGE.as_nanos() as i64;
    connection
        .prepare_cached(sql)?
        .query_map((MAX_BUILDS, MAX_LOG_BYTES as i64, oldest), |row| row.get(0))?
        .collect()
}

fn build(row: &Row<'_>) -> rusqlite::Result<BuildRow> {
    let status: String = row.get(3)?;
    Ok(BuildRow {
        id: row.get(0)?,
        started_at: row.get(1)?,
        ended_at: row.get(2)?,
        status: BuildStatus::of(&status).unwrap_or(BuildStatus::Interrupted),
        reference: row.get(4)?,
        log_bytes: row.get::<_, i64>(5)? as u64,
        record: row.get(6)?,
        family: row.get(7)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    fn row(id: &str, started_at: i64) -> BuildRow {
        BuildRow { id: id.to_owned(), started_at, record: "{}".to_owned(), ..BuildRow::default() }
    }

    fn ended(id: &str, started_at: i64, log_bytes: u64) -> BuildRow {
        let (ended_at, status) = (Some(started_at + 1), BuildStatus::Failed);
        BuildRow { ended_at, status, log_bytes, ..row(id, started_at) }
    }

    #[test]
    fn builds_are_listed_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        let builds = Store::open(dir.path()).unwrap().builds();
        let now = name::now();
        builds.record(&row("a", now)).unwrap();
        builds.record(&row("b", now + 1)).unwrap();
        let failed = ended("a", now, 0);
        builds.record(&failed).unwrap();
        assert_eq!(builds.list().unwrap(), [row("b", now + 1), failed.clone()]);
        assert_eq!(builds.get("a").unwrap(), Some(failed));
        assert!(builds.remove("a").unwrap() && !builds.remove("a").unwrap());
    }

    #[test]
    fn the_oldest_are_forgotten_with_their_logs() {
        let dir = tempfile::tempdir().unwrap();
        let builds = Store::open(dir.path()).unwrap().builds();
        let ids = || -> Vec<String> {
            builds.list().unwrap().into_iter().map(|build| build.id).collect()
        };
        let now = name::now();
        builds.record(&row("running", 1)).unwrap();
        builds.record(&ended("large", now - 5, MAX_LOG_BYTES)).unwrap();
        builds.write_log("large").unwrap().finish().unwrap();
        assert_eq!(ids(), ["large", "running"], "the last one stays");
        builds.record(&ended("next", now - 4, 1)).unwrap();
        assert_eq!(ids(), ["next", "running"]);
        assert!(builds.read_log("large").unwrap().is_none());
        for number in 0..MAX_BUILDS {
            builds.record(&ended(&format!("{number}"), now + i64::from(number), 0)).unwrap();
        }
        assert_eq!(ids().len(), MAX_BUILDS as usize + 1);
        assert!(!ids().contains(&"next".to_owned()) && ids().contains(&"running".to_owned()));
        builds.record(&ended("old", now - MAX_AGE.as_nanos() as i64 * 2, 0)).unwrap();
        assert!(!ids().contains(&"old".to_owned()));
    }

    #[test]
    fn builds_have_families() {
        let dir = tempfile::tempdir().unwrap();
        let builds = Store::open(dir.path()).unwrap().builds();
        let now = name::now();
        let of = |id: &str, age, family| BuildRow { family, ..row(id, now - age) };
        let (one, two) = (Some([1; 32]), Some([2; 32]));
        for build in [of("a", 5, one), of("b", 4, two), of("c", 3, one), of("d", 2, None)] {
            builds.record(&build).unwrap();
        }
        let before = |build: &BuildRow, of_family| -> Vec<String> {
            let rows = builds.before(build, of_family, 2).unwrap();
            rows.into_iter().map(|build| build.id).collect()
        };
        assert_eq!(before(&of("e", 1, one), true), ["c", "a"]);
        assert_eq!(before(&of("e", 1, one), false), ["d", "b"]);
        assert_eq!(before(&of("c", 3, one), true), ["a"]);
        assert_eq!(before(&of("e", 1, None), true), [""; 0]);
        assert_eq!(before(&of("e", 1, None), false), ["d", "c"]);
        assert_eq!(builds.get("b").unwrap().unwrap().family, two);
    }

    #[test]
    fn builds_of_the_dead_are_told_from_those_that_run() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let builds = store.builds();
        builds.record(&row("alive", 1)).unwrap();
        builds.record(&row("dead", 2)).unwrap();
        fs::write(dir.path().join("builds/none.log.zst"), "").unwrap();
        store
            .room()
            .index()
            .write("test", |transaction| {
                transaction.execute("UPDATE builds SET process = 'x' WHERE id = 'dead'", [])
            })
            .unwrap();
        store.collect().unwrap();
        let status = |id| builds.get(id).unwrap().unwrap().status;
        assert_eq!(status("alive"), BuildStatus::Running);
        assert_eq!(status("dead"), BuildStatus::Interrupted);
        assert!(!dir.path().join("builds/none.log.zst").exists());
    }
}

//! The history of builds.

use std::sync::Arc;

use rusqlite::{OptionalExtension, Row};

use crate::error::Result;
use crate::name;
use crate::store::Inner;

/// One build. What its texts hold is up to who writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildRow {
    /// Its name: [`Builds::fresh_id`] gives one.
    pub id: String,
    /// When it began, nanoseconds since 1970.
    pub started_at: i64,
    /// When it ended.
    pub ended_at: Option<i64>,
    /// How it stands, as `running`, `completed`, `failed` or `canceled`.
    pub status: String,
    /// The image's name or what else it was to make.
    pub reference: Option<String>,
    /// Its steps, as JSON.
    pub steps: String,
}

/// The history of builds.
#[derive(Clone, Debug)]
pub struct Builds {
    pub(crate) inner: Arc<Inner>,
}

const COLUMNS: &str = "id, started_at, ended_at, status, reference, steps";

impl Builds {
    /// Returns an ID that no build has.
    pub fn fresh_id(&self) -> String {
        name::fresh() + &name::fresh()
    }

    /// Records a build, or what has become of one that is recorded.
    pub fn record(&self, build: &BuildRow) -> Result<()> {
        let sql =
            format!("INSERT OR REPLACE INTO builds ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6)");
        self.inner.index.write("record a build", |transaction| {
            transaction.prepare_cached(&sql)?.execute((
                &build.id,
                build.started_at,
                build.ended_at,
                &build.status,
                &build.reference,
                &build.steps,
            ))?;
            Ok(())
        })
    }

    /// Returns a build.
    pub fn get(&self, id: &str) -> Result<Option<BuildRow>> {
        let sql = format!("SELECT {COLUMNS} FROM builds WHERE id = ?1");
        self.inner.index.read("look up a build", |connection| {
            connection.prepare_cached(&sql)?.query_row([id], build).optional()
        })
    }

    /// Returns the last builds, newest first.
    pub fn list(&self, limit: u32) -> Result<Vec<BuildRow>> {
        let sql = format!("SELECT {COLUMNS} FROM builds ORDER BY started_at DESC, id LIMIT ?1");
        self.inner.index.read("list builds", |connection| {
            connection.prepare_cached(&sql)?.query_map([limit], build)?.collect()
        })
    }

    /// Removes a build and tells whether it was there.
    pub fn remove(&self, id: &str) -> Result<bool> {
        self.inner.index.write("remove a build", |transaction| {
            Ok(transaction.prepare_cached("DELETE FROM builds WHERE id = ?1")?.execute([id])? > 0)
        })
    }
}

fn build(row: &Row<'_>) -> rusqlite::Result<BuildRow> {
    Ok(BuildRow {
        id: row.get(0)?,
        started_at: row.get(1)?,
        ended_at: row.get(2)?,
        status: row.get(3)?,
        reference: row.get(4)?,
        steps: row.get(5)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    #[test]
    fn builds_are_listed_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        let builds = Store::open(dir.path()).unwrap().builds();
        let row = |id: &str, started_at| BuildRow {
            id: id.to_owned(),
            started_at,
            status: "running".to_owned(),
            steps: "[]".to_owned(),
            ..BuildRow::default()
        };
        builds.record(&row("a", 1)).unwrap();
        builds.record(&row("b", 2)).unwrap();
        let ended = BuildRow { ended_at: Some(3), status: "failed".to_owned(), ..row("a", 1) };
        builds.record(&ended).unwrap();
        assert_eq!(builds.list(9).unwrap(), [row("b", 2), ended.clone()]);
        assert_eq!(builds.list(1).unwrap().len(), 1);
        assert_eq!(builds.get("a").unwrap(), Some(ended));
        assert!(builds.remove("a").unwrap() && !builds.remove("a").unwrap());
    }
}

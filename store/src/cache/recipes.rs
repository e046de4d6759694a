//! The inputs of cache keys and the removals of results, which explain why a step was not cached.
//!
//! A *recipe* is a text of the caller for each canonical key that builds have used, whether they
//! have created its result or not. A *removal* has the time and the reason of a cache record's
//! removal. A trigger of SQLite records it, so that every statement that removes records does. Both
//! are only used for explanations, so they are bounded. Recipes and removals that were unused for
//! [`MAX_AGE`] are removed, and the least recently used recipes beyond [`MAX_RECIPES`].

use std::sync::Arc;
use std::time::Duration;

use kiln_oci::Digest;
use rusqlite::{Connection, OptionalExtension};

use crate::error::Result;
use crate::name;
use crate::room::Room;

/// The time for which an unused recipe, and the removal of a result, are kept.
const MAX_AGE: Duration = Duration::from_hours(30 * 24);
/// The maximal number of recipes.
const MAX_RECIPES: u32 = 20_000;

/// The interval at which the use of a recipe is recorded.
const NOTED: Duration = Duration::from_hours(24);

/// The recipes and removals of a store.
#[derive(Clone, Debug)]
pub struct Recipes {
    room: Arc<Room>,
}

/// The removal of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The time, in nanoseconds since 1970.
    pub at: i64,
    /// The reason for the removal.
    pub reason: RemovalReason,
}

/// The reason for the removal of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalReason {
    /// The result was pruned, to make room or at the user's request.
    Pruned,
    /// A part of the result was missing or damaged.
    Lost,
}

impl Recipes {
    /// Returns a handle to the recipes of an open store.
    pub(crate) fn new(room: &Arc<Room>) -> Self {
        Self { room: room.clone() }
    }

    /// Returns those `keys` that have no recipe, in order. Records the use of the others.
    pub fn unknown(&self, keys: &[Digest]) -> Result<Vec<Digest>> {
        let now = name::now();
        let noted = now - NOTED.as_nanos() as i64;
        let (mut unknown, mut unnoted) = (Vec::new(), Vec::new());
        let seen: Vec<Option<i64>> = self.room.index().read("look up recipes", |connection| {
            // In a single transaction, SQLite checks the index for changes only once.
            let snapshot = connection.unchecked_transaction()?;
            let sql = "SELECT seen_at FROM recipes WHERE key = ?1";
            let mut statement = snapshot.prepare_cached(sql)?;
            keys.iter()
                .map(|key| statement.query_row([key.as_bytes()], |row| row.get(0)).optional())
                .collect()
        })?;
        for (key, seen) in keys.iter().zip(seen) {
            match seen {
                None => unknown.push(*key),
                Some(seen) if seen < noted => unnoted.push(*key),
                Some(_) => {}
            }
        }
        if !unnoted.is_empty() {
            let sql = "UPDATE recipes SET seen_at = ?2 WHERE key = ?1";
            self.room.index().write("note recipes", |transaction| {
                let mut statement = transaction.prepare_cached(sql)?;
                for key in &unnoted {
                    statement.execute((key.as_bytes(), now))?;
                }
                Ok(())
            })?;
        }
        Ok(unknown)
    }

    /// Stores recipes in one transaction.
    pub fn put(&self, recipes: &[(Digest, String)]) -> Result<()> {
        let now = name::now();
        let sql = "INSERT OR REPLACE INTO recipes (key, seen_at, recipe) VALUES (?1, ?2, ?3)";
        self.room.index().write("keep recipes", |transaction| {
            let mut statement = transaction.prepare_cached(sql)?;
            for (key, recipe) in recipes {
                statement.execute((key.as_bytes(), now, recipe))?;
            }
            sweep(transaction, now)
        })
    }

    /// Returns the recipe of a key, if it is stored.
    pub fn get(&self, key: &Digest) -> Result<Option<String>> {
        let sql = "SELECT recipe FROM recipes WHERE key = ?1";
        self.room.index().read("look up a recipe", |connection| {
            connection.prepare_cached(sql)?.query_row([key.as_bytes()], |row| row.get(0)).optional()
        })
    }

    /// Returns the last removal of a key's result, if it is stored.
    pub fn removal(&self, key: &Digest) -> Result<Option<Removal>> {
        let sql = "SELECT removed_at, reason FROM removals WHERE key = ?1";
        self.room.index().read("look up a removal", |connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let removal = |row: &rusqlite::Row<'_>| {
                let reason: String = row.get(1)?;
                let is_lost = reason == LOST;
                let reason = if is_lost { RemovalReason::Lost } else { RemovalReason::Pruned };
                Ok(Removal { at: row.get(0)?, reason })
            };
            statement.query_row([key.as_bytes()], removal).optional()
        })
    }

    /// Returns random bytes that are unique to this store. With them, fingerprints of secret values
    /// are useless elsewhere.
    pub fn pepper(&self) -> Result<Vec<u8>> {
        self.room.index().read("read the pepper", |connection| {
            let sql = "SELECT value FROM meta WHERE key = 'pepper'";
            connection.prepare_cached(sql)?.query_row([], |row| row.get(0))
        })
    }
}

/// The reason of a lost result in the index. The trigger writes `pruned`.
const LOST: &str = "lost";

/// Changes the reason of a result's removal from pruned to lost.
pub(super) fn note_lost(connection: &Connection, key: &Digest) -> rusqlite::Result<()> {
    let sql = "UPDATE removals SET reason = ?2 WHERE key = ?1";
    connection.prepare_cached(sql)?.execute((key.as_bytes(), LOST))?;
    Ok(())
}

/// Removes the recipes and removals beyond the limits.
pub(crate) fn sweep(connection: &Connection, now: i64) -> rusqlite::Result<()> {
    let oldest = now - MAX_AGE.as_nanos() as i64;
    let sql = "DELETE FROM recipes WHERE seen_at < ?1 OR row IN (
            SELECT row FROM recipes ORDER BY seen_at DESC, row DESC LIMIT -1 OFFSET ?2)";
    connection.prepare_cached(sql)?.execute((oldest, MAX_RECIPES))?;
    connection.prepare_cached("DELETE FROM removals WHERE removed_at < ?1")?.execute([oldest])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    #[test]
    fn recipes_are_kept_once_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let recipes = store.recipes();
        let key = |number: u32| Digest::of(&number.to_le_bytes());
        assert_eq!(recipes.unknown(&[key(1), key(2)]).unwrap(), [key(1), key(2)]);
        recipes.put(&[(key(1), "one".to_owned())]).unwrap();
        assert_eq!(recipes.unknown(&[key(1), key(2)]).unwrap(), [key(2)]);
        assert_eq!(recipes.get(&key(1)).unwrap().as_deref(), Some("one"));
        let age = |sql: &str| {
            store.room().index().write("test", |transaction| transaction.execute(sql, [])).unwrap();
        };
        age("UPDATE recipes SET seen_at = 0");
        // Using a recipe again renews it.
        recipes.unknown(&[key(1)]).unwrap();
        recipes.put(&[(key(2), "two".to_owned())]).unwrap();
        assert!(recipes.get(&key(1)).unwrap().is_some());
        age("UPDATE recipes SET seen_at = 0");
        store.builds().prune().unwrap();
        assert!(recipes.get(&key(1)).unwrap().is_none() && recipes.get(&key(2)).unwrap().is_none());

        let many: Vec<(Digest, String)> =
            (0..MAX_RECIPES + 10).map(|number| (key(number), String::new())).collect();
        let (old, new) = many.split_at(100);
        recipes.put(old).unwrap();
        age("UPDATE recipes SET seen_at = seen_at - 1000");
        recipes.put(new).unwrap();
        assert!(recipes.get(&key(0)).unwrap().is_none(), "the longest unmet go");
        assert!(recipes.get(&key(MAX_RECIPES)).unwrap().is_some());
        assert_eq!(recipes.pepper().unwrap().len(), 16);
    }

    #[test]
    fn every_removal_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (cache, recipes) = (store.cache(), store.recipes());
        let key = |name: &str| Digest::of(name.as_bytes());
        let before = name::now();
        cache.put(&key("kept"), &[], "").unwrap();
        cache.put(&key("kept"), &[], "again").unwrap();
        assert_eq!(recipes.removal(&key("kept")).unwrap(), None, "it was replaced");
        cache.put(&key("lost"), &["gone".parse().ok()], "").unwrap();
        assert_eq!(cache.get(&key("lost")).unwrap(), None);
        let lost = recipes.removal(&key("lost")).unwrap().unwrap();
        assert_eq!(lost.reason, RemovalReason::Lost);
        cache.clear().unwrap();
        let pruned = recipes.removal(&key("kept")).unwrap().unwrap();
        assert_eq!(pruned.reason, RemovalReason::Pruned);
        let second = 1_000_000_000;
        assert!((before - second..name::now() + second).contains(&pruned.at), "{pruned:?}");
        assert_eq!(recipes.removal(&key("lost")).unwrap(), Some(lost));
    }
}

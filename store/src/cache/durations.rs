//! The durations of steps, by kind, which determine the order of a build's steps.
//!
//! A row belongs to a kind of step and not to a result. So it is kept when the result is removed,
//! and applies to steps with other inputs. Kinds that haven't been run for some months are removed.

use std::time::Duration;

use kiln_oci::Digest;
use rusqlite::OptionalExtension;

use super::CacheIndex;
use crate::error::Result;
use crate::name;

/// The time in nanoseconds for which an unused kind is kept.
const KEPT: i64 = 90 * 24 * 60 * 60 * 1_000_000_000;

impl CacheIndex {
    /// Returns the durations of steps of these kinds, in order.
    pub fn step_durations(&self, kinds: &[Digest]) -> Result<Vec<Option<Duration>>> {
        let sql = "SELECT microseconds FROM step_durations WHERE kind = ?1";
        self.room.index().read("look up durations", |connection| {
            let snapshot = connection.unchecked_transaction()?;
            let mut statement = snapshot.prepare_cached(sql)?;
            let mut duration = |kind: &Digest| {
                let found = statement.query_row([kind.as_bytes()], |row| row.get::<_, i64>(0));
                let found = found.optional()?;
                Ok(found.map(|microseconds| Duration::from_micros(microseconds.cast_unsigned())))
            };
            kinds.iter().map(&mut duration).collect()
        })
    }

    /// Records the durations of steps of these kinds. The stored value favours recent ones: each
    /// duration has the same weight as all before it.
    pub fn note_step_durations(&self, took: &[(Digest, Duration)]) -> Result<()> {
        let sql = "INSERT INTO step_durations VALUES (?1, ?2, ?3)
                   ON CONFLICT (kind) DO UPDATE SET
                       microseconds = (microseconds + excluded.microseconds) / 2,
                       noted_at = excluded.noted_at";
        self.room.index().write("remember durations", |transaction| {
            let now = name::now();
            let mut statement = transaction.prepare_cached(sql)?;
            for (kind, duration) in took {
                let microseconds = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 2);
                statement.execute((kind.as_bytes(), microseconds, now))?;
            }
            transaction
                .prepare_cached("DELETE FROM step_durations WHERE noted_at < ?1")?
                .execute([now - KEPT])?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    #[test]
    fn durations_follow_what_came_last() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let cache = store.cache();
        let (known, unknown) = (Digest::of(b"known"), Digest::of(b"unknown"));
        let look = || cache.step_durations(&[unknown, known]).unwrap();
        assert_eq!(look(), [None, None]);
        cache.note_step_durations(&[(known, Duration::from_secs(4))]).unwrap();
        assert_eq!(look(), [None, Some(Duration::from_secs(4))]);
        cache.note_step_durations(&[(known, Duration::from_secs(2))]).unwrap();
        assert_eq!(look(), [None, Some(Duration::from_secs(3))]);
        cache.note_step_durations(&[(known, Duration::MAX)]).unwrap();
        assert!(look()[1].is_some_and(|long| long > Duration::from_secs(1 << 40)));
        let old = "UPDATE step_durations SET noted_at = 0";
        cache.room.index().write("age", |transaction| transaction.execute(old, [])).unwrap();
        cache.note_step_durations(&[]).unwrap();
        assert_eq!(look(), [None, None]);
    }
}

//! Directories that change without the index: cache mounts and volumes.
//!
//! Each has a row with its disk space at the last measurement. A user that releases a directory
//! records that it may have changed ([`note_use`]). It is measured again when its size is
//! requested, or by the process that flushes the store after a build, but not earlier, since
//! measuring is a walk.
//!
//! The disk space of a cache mount is that of its numbered directories. `upkeep::usage` counts the
//! directory around them and the file with its ID.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::Room;
use super::cap::Claim;
use super::measure::measure;
use crate::error::{Error, Result};
use crate::name;

/// The row of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The path, relative to the store's root.
    pub(crate) path: String,
    /// The disk space in bytes.
    pub(crate) bytes: u64,
    pub(crate) created_at: i64,
    pub(crate) used_at: i64,
}

/// Records that a directory was used and may have changed.
pub(crate) fn note_use(room: &Room, path: &Path) -> Result<()> {
    let Some(path) = relative(room, path) else { return Ok(()) };
    let sql = "INSERT INTO places VALUES (?1, 0, 0, ?2, ?2)
               ON CONFLICT DO UPDATE SET is_measured = 0, used_at = excluded.used_at";
    room.index().write("note a use", |transaction| {
        transaction.prepare_cached(sql)?.execute((path, name::now())).map(|_| ())
    })
}

/// Records the current disk space of a directory.
pub(crate) fn note_size(room: &Room, path: &Path, bytes: u64) -> Result<()> {
    let Some(path) = relative(room, path) else { return Ok(()) };
    let sql = "INSERT INTO places VALUES (?1, ?2, 1, ?3, ?3)
               ON CONFLICT DO UPDATE SET bytes = excluded.bytes, is_measured = 1";
    room.index().write("note a size", |transaction| {
        transaction.prepare_cached(sql)?.execute((path, bytes.cast_signed(), name::now()))?;
        Ok(())
    })
}

/// Releases a directory that may have grown. If the store has a cap, the directory is measured
/// before the claim ends.
pub(crate) fn release(room: &Room, path: &Path, claim: &Claim) -> Result<()> {
    note_use(room, path)?;
    if room.cap().bytes().is_some() {
        note_size(room, path, measure(path)?)?;
        claim.set(0);
    }
    Ok(())
}

/// Returns the disk space of a directory that is going to grow, if the store has a cap, or else
/// zero.
pub(crate) fn base(room: &Room, path: &Path) -> Result<u64> {
    if room.cap().bytes().is_none() { Ok(0) } else { known_size(room, path) }
}

/// Returns the disk space of a directory at its last measurement.
fn known_size(room: &Room, path: &Path) -> Result<u64> {
    let Some(path) = relative(room, path) else { return Ok(0) };
    room.index().read("look up a size", |connection| {
        let bytes: Option<i64> = connection
            .prepare_cached("SELECT sum(bytes) FROM places WHERE path = ?1")?
            .query_row([path], |row| row.get(0))?;
        Ok(bytes.unwrap_or_default().cast_unsigned())
    })
}

/// Removes the row of a directory that was removed.
pub(crate) fn forget(room: &Room, path: &str) -> Result<()> {
    room.index().write("forget a directory", |transaction| {
        transaction.prepare_cached("DELETE FROM places WHERE path = ?1")?.execute([path])?;
        Ok(())
    })
}

/// Returns all existing directories. Measures those that may have changed.
pub(crate) fn measured(room: &Room) -> Result<Vec<Place>> {
    let there = paths(room)?;
    let known: Vec<(Place, bool)> = room.index().read("list directories", |connection| {
        let sql = "SELECT path, bytes, created_at, used_at, is_measured FROM places";
        connection.prepare_cached(sql)?.query_map([], place)?.collect()
    })?;
    for (place, _) in known.iter().filter(|(place, _)| !there.contains(&place.path)) {
        forget(room, &place.path)?;
    }
    let mut places = Vec::with_capacity(there.len());
    for path in there {
        let found = known.iter().find(|(place, _)| place.path == path);
        if let Some((place, true)) = found {
            places.push(place.clone());
            continue;
        }
        let absolute = room.root().join(&path);
        let bytes = measure(&absolute)?;
        note_size(room, &absolute, bytes)?;
        let now = name::now();
        let times = found.map_or((now, now), |(place, _)| (place.created_at, place.used_at));
        places.push(Place { path, bytes, created_at: times.0, used_at: times.1 });
    }
    Ok(places)
}

fn place(row: &rusqlite::Row<'_>) -> rusqlite::Result<(Place, bool)> {
    let bytes = row.get::<_, i64>(1)?.cast_unsigned();
    let place = Place { path: row.get(0)?, bytes, created_at: row.get(2)?, used_at: row.get(3)? };
    Ok((place, row.get(4)?))
}

/// Returns the total disk space of all directories at their last measurements.
pub(crate) fn total(connection: &Connection) -> rusqlite::Result<u64> {
    let sum: Option<i64> = connection
        .prepare_cached("SELECT sum(bytes) FROM places")?
        .query_row([], |row| row.get(0))?;
    Ok(sum.unwrap_or_default().cast_unsigned())
}

fn relative(room: &Room, path: &Path) -> Option<String> {
    Some(path.strip_prefix(room.root()).ok()?.to_str()?.to_owned())
}

/// Returns the paths of all existing directories.
fn paths(room: &Room) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for mount in directories(&room.root().join("mounts"))? {
        for directory in directories(&mount)? {
            found.extend(relative(room, &directory));
        }
    }
    for volume in directories(&room.root().join("volumes"))? {
        found.extend(relative(room, &volume));
    }
    found.sort_unstable();
    Ok(found)
}

/// Returns the subdirectories of a directory.
pub(crate) fn directories(path: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io("read", path))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("read", path))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

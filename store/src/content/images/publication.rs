//! The writes of the layout's index.
//!
//! `index.json` lists all named images, so a write takes time in proportion to their number. A
//! caller that names or removes many images does so between [`Images::together`] and
//! [`Batch::end`]. Then the index is written after 100 changes, after 200, after 400 and so on,
//! and at the end. The total takes as long as a few writes of the last version.
//!
//! If a process is killed before the end, the index lacks its last changes. The next process that
//! finds it dead writes the index again.

use std::fs;
use std::sync::{Mutex, PoisonError};

use kiln_oci::Digest;

use super::Images;
use crate::error::{Error, Result};
use crate::room::lock::KeyGuard;
use crate::room::{Room, layout, private};

/// The number of changes after which the index is written for the first time.
const FIRST: usize = 100;

/// The state of deferred writes.
#[derive(Debug, Default)]
pub(crate) struct Publication(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The number of callers that defer writes.
    deferring: usize,
    /// The number of changes since the first of them began.
    changes: usize,
    /// The number of changes at which the index is written next.
    next: usize,
}

impl Publication {
    /// Counts a change. Returns `true` if the index must be written now.
    fn is_due(&self) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.deferring == 0 {
            return true;
        }
        state.changes += 1;
        let is_due = state.changes == state.next;
        if is_due {
            state.next *= 2;
        }
        is_due
    }

    fn defer(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.deferring == 0 {
            (state.changes, state.next) = (0, FIRST);
        }
        state.deferring += 1;
    }

    fn resume(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).deferring -= 1;
    }
}

/// Writes `index.json`, so that it lists the named images.
pub(crate) fn publish(room: &Room) -> Result<()> {
    let _alone = KeyGuard::acquire(&room.keys(), "index.json")?;
    let named = room.index().read("list images", |connection| {
        let sql = "SELECT name, media_type, digest, size FROM images
                   WHERE name IS NOT NULL ORDER BY name";
        connection
            .prepare_cached(sql)?
            .query_map([], |row| {
                Ok((row.get(0)?, row.get(1)?, Digest::from_bytes(row.get(2)?), row.get(3)?))
            })?
            .collect::<rusqlite::Result<Vec<_>>>()
    })?;
    let bytes = layout::index_json(&named)?;
    let path = room.root().join(layout::INDEX_JSON);
    if fs::read(&path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let temporary = room.process().fresh();
    private::write(&temporary, &bytes).map_err(Error::io("write", &temporary))?;
    fs::rename(&temporary, &path).map_err(Error::io("rename", &path))
}

/// A series of changes to names. While it exists, only few of them cause a write of the index.
#[derive(Debug)]
pub struct Batch {
    images: Images,
    is_over: bool,
}

impl Images {
    /// Begins a series of changes to names.
    pub fn together(&self) -> Batch {
        self.publication.defer();
        Batch { images: self.clone(), is_over: false }
    }

    /// Writes `index.json` after a change of names, unless the change is one of many.
    pub(super) fn publish_change(&self) -> Result<()> {
        if self.publication.is_due() { publish(&self.room) } else { Ok(()) }
    }
}

impl Batch {
    /// Ends the series and writes the index.
    ///
    /// # Errors
    /// Fails if the index of the layout can't be written.
    pub fn end(mut self) -> Result<()> {
        self.finish()
    }

    fn finish(&mut self) -> Result<()> {
        self.is_over = true;
        self.images.publication.resume();
        publish(&self.images.room)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if !self.is_over {
            // The caller reports an earlier error, which matters more to the user.
            let _ = self.finish();
        }
    }
}

//! The writes of the layout's index.
//!
//! `index.json` lists all named images, so a write takes time in proportion to their number. A
//! caller that names or removes many images does so between [`Images::together`] and
//! [`Batch::end`]. Then the index is written after 100 changes, after 200, after 400 and so on,
//! and at the end. The total takes as long as a few writes of the last version.
//!
//! If a process is killed before the end, the index lacks its last changes. The next process that
//! finds it dead writes the index again.

use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::images::Images;
use crate::layout;

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
    pub(crate) fn is_due(&self) -> bool {
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

/// A series of changes to names. While it exists, only few of them cause a write of the index.
#[derive(Debug)]
pub struct Batch {
    images: Images,
    is_over: bool,
}

impl Images {
    /// Begins a series of changes to names.
    pub fn together(&self) -> Batch {
        self.inner.publication.defer();
        Batch { images: self.clone(), is_over: false }
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
        self.images.inner.publication.resume();
        layout::publish(&self.images.inner)
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

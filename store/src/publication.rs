//! When the index of the layout is written.
//!
//! `index.json` lists all images that have names, so that writing it takes as long as there are names.
//! Whoever names or removes many images one after the other does it between [`Images::together`] and
//! [`Together::end`]: then the index is written after 100 changes, after 200, after 400 and so on, and
//! at the end. All of that takes as long as writing the last one a few times.
//!
//! A process that is killed before the end leaves an index that lacks its last changes. The next one
//! that finds it dead writes the index anew.

use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::images::Images;
use crate::layout;

/// The number of changes after which the index is written the first time.
const FIRST: usize = 100;

/// How the writing of the index is put off.
#[derive(Debug, Default)]
pub(crate) struct Publication(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The number of those who put it off.
    deferring: usize,
    /// The number of changes since the first of them came.
    changes: usize,
    /// The number of changes at which the index is written.
    next: usize,
}

impl Publication {
    /// Tells whether a change is to be published now.
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

/// Many changes of names. As long as it lives, few of them are published.
#[derive(Debug)]
pub struct Together {
    images: Images,
    is_over: bool,
}

impl Images {
    /// Begins many changes of names.
    pub fn together(&self) -> Together {
        self.inner.publication.defer();
        Together { images: self.clone(), is_over: false }
    }
}

impl Together {
    /// Publishes what has changed.
    ///
    /// # Errors
    /// Fails where the index of the layout can't be written.
    pub fn end(mut self) -> Result<()> {
        self.finish()
    }

    fn finish(&mut self) -> Result<()> {
        self.is_over = true;
        self.images.inner.publication.resume();
        layout::publish(&self.images.inner)
    }
}

impl Drop for Together {
    fn drop(&mut self) {
        if !self.is_over {
            // Something else has failed already, and is what the user has to know.
            let _ = self.finish();
        }
    }
}

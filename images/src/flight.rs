//! Locks on keys of the store without blocking a thread. A wait ends with its step.

use std::future::Future;
use std::time::Duration;

use kiln_event::Reporter;
use kiln_store::{KeyGuard, Store, WatchedDirectory};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};

/// The first wait between two attempts. It is short because most holders finish within
/// milliseconds.
const FIRST_WAIT: Duration = Duration::from_millis(2);
const LONGEST_WAIT: Duration = Duration::from_millis(50);

/// Locks `key`. Waits while another task, in this process or another one, holds the lock. Dropping
/// the future gives up.
///
/// # Errors
/// Fails if the store can't lock a key.
pub async fn lock(store: &Store, key: &str) -> Result<KeyGuard> {
    let mut wait = FIRST_WAIT;
    loop {
        if let Some(guard) = store.try_lock(key)? {
            return Ok(guard);
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Runs work that writes to directories of the store without reserving space. Stops it if the store
/// gets too full.
///
/// # Errors
/// Fails with the error of the work, or if the store gets too full.
pub async fn with_room<T, E: From<Error>>(
    store: &Store,
    growing: Vec<WatchedDirectory>,
    work: impl Future<Output = std::result::Result<T, E>>,
) -> std::result::Result<T, E> {
    let full = CancellationToken::new();
    let stop = full.clone();
    let watch = store.watch(growing, move || stop.cancel());
    let result = tokio::select! {
        result = work => result,
        () = full.cancelled() => Err(Error::from(store.full()).into()),
    };
    drop(watch);
    result
}

/// Runs work of a step until the step is cancelled.
///
/// # Errors
/// Fails with the error of the work, or with [`Error::Cancelled`].
pub async fn cancellable<T, E: From<Error>>(
    reporter: &Reporter,
    work: impl Future<Output = std::result::Result<T, E>>,
) -> std::result::Result<T, E> {
    tokio::select! {
        result = work => result,
        () = reporter.cancel.cancelled() => Err(Error::Cancelled.into()),
    }
}

//! Waiting for keys of the store without blocking a thread, and not longer than the step lives.

use std::future::Future;
use std::time::Duration;

use kiln_solver::StepContext;
use kiln_store::{Growing, KeyGuard, Store};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};

/// Waits between two attempts: short at first, since most holders are done within milliseconds.
const FIRST_WAIT: Duration = Duration::from_millis(2);
const LONGEST_WAIT: Duration = Duration::from_millis(50);

/// Waits until nobody else, in this process or another, holds `key`. Dropping the future gives up.
pub(crate) async fn lock(store: &Store, key: &str) -> Result<KeyGuard> {
    let mut wait = FIRST_WAIT;
    loop {
        if let Some(guard) = store.try_lock(key)? {
            return Ok(guard);
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Does work that writes to directories of the store without asking for room, unless the store gets
/// too full.
pub(crate) async fn with_room<T>(
    store: &Store,
    growing: Vec<Growing>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let full = CancellationToken::new();
    let stop = full.clone();
    let watch = store.watch(growing, move || stop.cancel());
    let result = tokio::select! {
        result = work => result,
        () = full.cancelled() => Err(store.full().into()),
    };
    drop(watch);
    result
}

/// Does work of a step, unless the step is cancelled.
pub(crate) async fn cancellable<T>(
    context: &StepContext,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        result = work => result,
        () = context.cancel.cancelled() => Err(Error::Cancelled),
    }
}

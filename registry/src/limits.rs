//! How many transfers are under way at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bounds for one direction, in all and for each registry.
#[derive(Debug)]
pub(crate) struct Gate {
    all: Arc<Semaphore>,
    per_host: usize,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// The right to transfer one blob, given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    _host: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

impl Gate {
    /// Makes a gate that lets `all` through, `per_host` of them for the same registry.
    pub(crate) fn new(all: usize, per_host: usize) -> Self {
        let all = Arc::new(Semaphore::new(all.max(1)));
        Self { all, per_host: per_host.max(1), hosts: Mutex::default() }
    }

    /// Waits for a place. The registry's own comes first: who waits for a busy registry must not
    /// stand in the way of those who want another.
    pub(crate) async fn enter(&self, host: &str) -> Permit {
        let own = {
            let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = || Arc::new(Semaphore::new(self.per_host));
            Arc::clone(hosts.entry(host.to_owned()).or_insert_with(fresh))
        };
        // The semaphores are never closed.
        let host = own.acquire_owned().await.ok();
        Permit { _host: host, _all: Arc::clone(&self.all).acquire_owned().await.ok() }
    }
}

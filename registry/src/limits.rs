//! Limits on the answers of servers.
//!
//! [`Gate`] limits the number of concurrent transfers, [`MinimumSpeed`] the duration of an answer,
//! [`in_time`] the time for a whole document, [`UploadActivity`] the time that a server may stall an
//! upload, and [`Listing`] the length of paged lists. `read_limited` in `transport` limits the size of
//! one document and reads it at a [`MinimumSpeed`].

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::{Response, Url};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Problem;

/// The window over which the speed of a download is averaged.
const WINDOW: Duration = Duration::from_secs(30);
/// The default minimum speed of a download in bytes per second.
const SLOWEST: u64 = 1 << 10;
/// The time limit for a whole document. At the minimum speed, the largest ones would take hours.
const DOCUMENT: Duration = Duration::from_mins(10);
/// The maximum pause within an answer's body if there is no [`MinimumSpeed`].
const SILENCE: Duration = Duration::from_mins(1);
/// The factor on the time limit for answers to uploads. Sent bytes wait in buffers, and registries
/// move blobs before they answer.
const UPLOAD_PATIENCE: u32 = 5;
/// The maximum number of pages of a list.
const PAGES: usize = 1000;
/// The maximum number of bytes of all pages of a list.
const LIST_BYTES: u64 = 32 << 20;
/// The maximum number of entries of a list.
const LIST_ENTRIES: usize = 500_000;

/// The minimum speed of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinimumSpeed {
    /// The number of bytes that must arrive in each window.
    pub bytes: u64,
    /// The length of a window. The time that the client spends on writing doesn't count.
    pub window: Duration,
    /// The time that a client waits for a document, which is a manifest, a config, a statement or a
    /// list with all its pages. Layers and files have no such limit.
    pub document: Duration,
}

impl MinimumSpeed {
    /// Returns a pace in bytes per second. Returns `None`, which means no limit, for zero.
    pub fn of_speed(bytes_per_second: u64) -> Option<Self> {
        let bytes = bytes_per_second.saturating_mul(WINDOW.as_secs());
        (bytes > 0).then_some(Self { bytes, window: WINDOW, document: DOCUMENT })
    }
}

impl Default for MinimumSpeed {
    fn default() -> Self {
        Self { bytes: SLOWEST * WINDOW.as_secs(), window: WINDOW, document: DOCUMENT }
    }
}

/// Waits for a document.
///
/// # Errors
/// Fails where it isn't there in the time that the pace gives it, and where `document` fails.
pub(crate) fn in_time<T>(
    pace: Option<MinimumSpeed>,
    document: impl Future<Output = Result<T, Problem>>,
) -> impl Future<Output = Result<T, Problem>> {
    // Callers hold it in their own futures, which are large enough.
    let document = Box::pin(document);
    async move {
        let Some(pace) = pace else { return document.await };
        let answer = tokio::time::timeout(pace.document, document).await;
        answer.unwrap_or(Err(Problem::Late(pace.document)))
    }
}

/// A reader of one answer's body that enforces a pace.
#[derive(Debug)]
pub(crate) struct PacedBody {
    pace: Option<MinimumSpeed>,
    /// The time spent waiting in this window.
    waited: Duration,
    /// The number of bytes received in this window.
    received: u64,
}

impl PacedBody {
    pub(crate) fn new(pace: Option<MinimumSpeed>) -> Self {
        Self { pace, waited: Duration::ZERO, received: 0 }
    }

    /// Returns the next bytes of the body.
    ///
    /// # Errors
    /// Fails if the connection breaks or if fewer bytes than the pace requires arrived in a window.
    pub(crate) async fn chunk(
        &mut self,
        response: &mut Response,
    ) -> Result<Option<Bytes>, Problem> {
        let Some(pace) = self.pace else {
            let answer = tokio::time::timeout(SILENCE, response.chunk()).await;
            return Ok(answer.map_err(|_| Problem::Stalled(SILENCE))??);
        };
        loop {
            let begun = Instant::now();
            let left = pace.window.saturating_sub(self.waited);
            let answer = tokio::time::timeout(left, response.chunk()).await;
            self.waited += begun.elapsed();
            if let Ok(Ok(Some(chunk))) = &answer {
                self.received += chunk.len() as u64;
            }
            let goes_on = matches!(answer, Err(_) | Ok(Ok(Some(_))));
            if goes_on && self.waited >= pace.window {
                if self.received < pace.bytes {
                    return Err(Problem::TooSlow(pace));
                }
                (self.waited, self.received) = (Duration::ZERO, 0);
            }
            if let Ok(answer) = answer {
                return Ok(answer?);
            }
        }
    }
}

/// A progress signal of an upload. It beats when the server has accepted the bytes sent before.
///
/// A whole request may take hours, so its duration can't be limited.
#[derive(Clone, Debug, Default)]
pub(crate) struct UploadActivity(Arc<AtomicU64>);

impl UploadActivity {
    /// Signals that more bytes are about to be sent.
    pub(crate) fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for the answer to an upload.
    ///
    /// # Errors
    /// Fails after [`UPLOAD_PATIENCE`] times `limit` without a beat.
    pub(crate) async fn watch<T>(
        &self,
        limit: Duration,
        answer: impl Future<Output = T>,
    ) -> Result<T, Problem> {
        let limit = limit.saturating_mul(UPLOAD_PATIENCE);
        let mut answer = pin!(answer);
        loop {
            let before = self.0.load(Ordering::Relaxed);
            match tokio::time::timeout(limit, &mut answer).await {
                Ok(answer) => return Ok(answer),
                Err(_) if self.0.load(Ordering::Relaxed) == before => {
                    return Err(Problem::Stalled(limit));
                }
                Err(_) => {}
            }
        }
    }
}

/// A list in pages, with limits that guarantee its end.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pages: HashSet<Url>,
    bytes: u64,
    known: HashSet<String>,
    entries: Vec<String>,
}

impl Listing {
    /// Adds a page: its URL, its size in bytes and its entries. `has_next` is `true` if another
    /// page follows.
    ///
    /// # Errors
    /// Fails if the list is too long or the page repeats an earlier one.
    pub(crate) fn add(
        &mut self,
        page: Url,
        bytes: usize,
        entries: Vec<String>,
        has_next: bool,
    ) -> Result<(), Problem> {
        let refuse = |problem: String| Err(Problem::Document(problem));
        self.bytes += bytes as u64;
        if self.bytes > LIST_BYTES {
            return refuse(format!("the registry's list has more than {LIST_BYTES} bytes"));
        }
        let (is_empty, before) = (entries.is_empty(), self.entries.len());
        for entry in entries {
            if self.known.insert(entry.clone()) {
                self.entries.push(entry);
            }
        }
        if self.entries.len() > LIST_ENTRIES {
            return refuse(format!("the registry lists more than {LIST_ENTRIES} names"));
        }
        let repeats = !is_empty && self.entries.len() == before;
        if !self.pages.insert(page) || (has_next && repeats) {
            return refuse("the registry's list repeats a page".to_owned());
        }
        if has_next && self.pages.len() >= PAGES {
            return refuse(format!("the registry's list has more than {PAGES} pages"));
        }
        Ok(())
    }

    /// Returns the entries without duplicates, in the order of their arrival.
    pub(crate) fn into_entries(self) -> Vec<String> {
        self.entries
    }
}

/// The limits on concurrent transfers in one direction, in total and per registry.
#[derive(Debug)]
pub(crate) struct Gate {
    all: Arc<Semaphore>,
    per_host: usize,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// The right to transfer one blob. Dropping it frees its place.
#[derive(Debug)]
pub(crate) struct Permit {
    _host: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

impl Gate {
    /// Creates a gate for `all` transfers, with at most `per_host` of them per registry.
    pub(crate) fn new(all: usize, per_host: usize) -> Self {
        let all = Arc::new(Semaphore::new(all.max(1)));
        Self { all, per_host: per_host.max(1), hosts: Mutex::default() }
    }

    /// Waits for a place. The registry's own limit comes first, so that a wait for a busy registry
    /// doesn't block transfers of other registries.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn page(number: usize) -> Url {
        Url::parse(&format!("http://h/v2/a/tags/list?n={number}")).unwrap()
    }

    #[test]
    fn lists_have_an_end() {
        let mut list = Listing::default();
        let names = |number: usize| vec![format!("tag{number}")];
        for number in 0..PAGES - 1 {
            list.add(page(number), 100, names(number), true).unwrap();
        }
        assert!(list.add(page(PAGES), 100, names(PAGES), true).is_err());
        assert_eq!(list.into_entries().len(), PAGES);

        let mut list = Listing::default();
        list.add(page(0), 1, names(0), true).unwrap();
        assert!(list.add(page(0), 1, names(1), true).is_err(), "the same address");
        assert!(list.add(page(1), 1, names(0), true).is_err(), "the same names");

        let mut list = Listing::default();
        let size = LIST_BYTES as usize / 4;
        (0..4).for_each(|number| list.add(page(number), size, names(number), true).unwrap());
        assert!(list.add(page(5), 1, names(5), false).is_err());
        let many = (0..=LIST_ENTRIES).map(|number| number.to_string()).collect();
        assert!(Listing::default().add(page(0), 1, many, false).is_err());
    }

    #[test]
    fn speeds_are_paces() {
        assert_eq!(MinimumSpeed::of_speed(0), None);
        assert_eq!(MinimumSpeed::of_speed(SLOWEST), Some(MinimumSpeed::default()));
    }
}

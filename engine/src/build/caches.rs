//! External caches: `--cache-from` and `--cache-to`.

use kiln_event::{Cause, Event};
use kiln_oci::Platform;
use kiln_oci::error::chain;
use kiln_worker::{ImportedCache, RemoteCache};
use tokio::task::JoinSet;

use super::session::Session;
use super::step::Step;

/// Caches that are being read, each with its position in the order in which the user named them.
pub(super) type Importing = JoinSet<(usize, Option<ImportedCache>)>;

impl Session<'_> {
    /// Starts to read the records of the caches to import.
    pub(super) fn begin_imports(&self) -> Importing {
        let mut importing = JoinSet::new();
        let platforms = match self.request.platforms.as_slice() {
            [] => vec![Platform::host()],
            platforms => platforms.to_vec(),
        };
        for (number, source) in self.request.caches.from.iter().cloned().enumerate() {
            let (resolver, events) = (self.tools.resolver.clone(), self.events.clone());
            let (platforms, limit) = (platforms.clone(), self.request.input_limit);
            importing.spawn(async move {
                let name = format!("importing cache manifest from {}", source.place);
                let step = Step::begin(&events, name);
                let imported = ImportedCache::read(&resolver, &source, Some(&platforms), limit).await;
                let id = Some(step.id());
                let imported = match imported {
                    // A cache that can't be read is skipped: the build runs without it.
                    Err(error) => {
                        let message = format!("the cache is not used: {}", chain(&error));
                        let cause = Some(Cause::new(error));
                        events.send(Event::Warning { id, message, cause });
                        None
                    }
                    Ok(cache) => {
                        if cache.dropped() > 0 {
                            let message = format!(
                                "{} entries of the cache are left out: what they name is not listed, too large or no layer",
                                cache.dropped()
                            );
                            events.send(Event::Warning { id, message, cause: None });
                        }
                        Some(cache)
                    }
                };
                step.complete();
                (number, imported)
            });
        }
        importing
    }

    /// Returns the store's cache, extended by the imported records.
    pub(super) async fn imported(&self, mut importing: Importing) -> RemoteCache {
        let mut imports = Vec::new();
        loop {
            tokio::select! {
                ended = importing.join_next() => match ended {
                    Some(Ok((number, imported))) => imports.extend(imported.map(|it| (number, it))),
                    Some(Err(error)) => self.warn(&format!("a cache is not used: {error}")),
                    None => break,
                },
                () = self.cancel.cancelled() => break,
            }
        }
        imports.sort_by_key(|(number, _)| *number);
        let imports = imports.into_iter().map(|(_, imported)| imported).collect();
        let blobs = self.tools.resolver.blobs();
        RemoteCache::new(self.tools.cache(), imports, &blobs, Some(self.events.clone()))
    }

    /// Returns `true` if a retry may succeed: a cache has lost blobs that it listed, and the retry
    /// doesn't use them. Prints a warning for each.
    pub(super) fn may_try_again(&self) -> bool {
        let lost = self.tools.resolver.blobs().take_lost();
        for blob in &lost {
            let (place, digest, problem) = (&blob.place, blob.digest, &blob.problem);
            self.warn(&format!(
                "cache {place}: blob {digest} can't be used, what it was for is made again: {problem}"
            ));
        }
        !lost.is_empty() && !self.cancel.is_cancelled()
    }

    pub(super) fn warn(&self, message: &str) {
        self.events.send(Event::Warning { id: None, message: message.to_owned(), cause: None });
    }
}

//! Removing in the background.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::remove::remove_tree;
use crate::room::Claim;

/// What the thread is to do.
enum Item {
    /// Remove a tree, and then end the claim on the room that it takes.
    Tree(PathBuf, Option<Arc<Claim>>),
    /// Say that everything before was done.
    Mark(Sender<()>),
}

/// Removes trees on a thread of its own, so that nobody waits for it. What isn't done when the
/// process ends lies in the process's directory and is removed by the next.
#[derive(Debug, Default)]
pub(crate) struct Trash {
    thread: Mutex<Option<Thread>>,
    removed: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Thread {
    items: Sender<Item>,
    done: Receiver<()>,
}

impl Trash {
    /// Has `path` removed. It lies in the process's directory and nobody else knows it. Its claim ends
    /// when it is gone.
    pub(crate) fn add(&self, path: PathBuf, claim: Option<Arc<Claim>>) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            *thread = start(&self.removed);
        }
        let unsent = match &*thread {
            Some(thread) => thread.items.send(Item::Tree(path, claim)).err().map(|unsent| unsent.0),
            None => Some(Item::Tree(path, claim)),
        };
        if let Some(Item::Tree(path, _)) = unsent {
            remove(&path);
        }
    }

    /// Waits until everything is removed that was added so far, and returns how many trees have been
    /// removed until now.
    pub(crate) fn settle(&self) -> u64 {
        let (mark, reached) = channel();
        let items = {
            let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
            thread.as_ref().map(|thread| thread.items.clone())
        };
        if items.is_some_and(|items| items.send(Item::Mark(mark)).is_ok()) {
            let _ = reached.recv();
        }
        self.removed.load(Ordering::Relaxed)
    }

    /// Waits until everything is removed, but no longer than `limit`, and tells whether it is.
    pub(crate) fn finish(&self, limit: Duration) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Thread { items, done }) = thread else { return true };
        drop(items);
        !matches!(done.recv_timeout(limit), Err(RecvTimeoutError::Timeout))
    }
}

fn start(removed: &Arc<AtomicU64>) -> Option<Thread> {
    let (items, work) = channel::<Item>();
    let (running, done) = channel::<()>();
    let removed = Arc::clone(removed);
    let body = move || {
        for item in work {
            match item {
                Item::Tree(path, claim) => {
                    remove(&path);
                    drop(claim);
                    removed.fetch_add(1, Ordering::Relaxed);
                }
                Item::Mark(mark) => drop(mark.send(())),
            }
        }
        drop(running);
    };
    // Without a thread, removal is done by who asks for it.
    std::thread::Builder::new().name("kiln-trash".to_owned()).spawn(body).ok()?;
    Some(Thread { items, done })
}

fn remove(path: &PathBuf) {
    if let Err(error) = remove_tree(path) {
        tracing::debug!(?path, %error, "can't remove");
    }
}

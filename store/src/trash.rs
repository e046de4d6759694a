//! Removing in the background.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::remove::remove_tree;

/// Removes trees on a thread of its own, so that nobody waits for it. What isn't done when the
/// process ends lies in the process's directory and is removed by the next.
#[derive(Debug, Default)]
pub(crate) struct Trash {
    thread: Mutex<Option<Thread>>,
}

#[derive(Debug)]
struct Thread {
    paths: Sender<PathBuf>,
    done: Receiver<()>,
}

impl Trash {
    /// Has `path` removed. It lies in the process's directory and nobody else knows it.
    pub(crate) fn add(&self, path: PathBuf) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            *thread = start();
        }
        let unsent = match &*thread {
            Some(thread) => thread.paths.send(path).err().map(|unsent| unsent.0),
            None => Some(path),
        };
        if let Some(path) = unsent {
            remove(&path);
        }
    }

    /// Waits until everything is removed, but no longer than `limit`, and tells whether it is.
    pub(crate) fn finish(&self, limit: Duration) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Thread { paths, done }) = thread else { return true };
        drop(paths);
        !matches!(done.recv_timeout(limit), Err(RecvTimeoutError::Timeout))
    }
}

fn start() -> Option<Thread> {
    let (paths, work) = channel::<PathBuf>();
    let (running, done) = channel::<()>();
    let body = move || {
        for path in work {
            remove(&path);
        }
        drop(running);
    };
    // Without a thread, removal is done by who asks for it.
    std::thread::Builder::new().name("kiln-trash".to_owned()).spawn(body).ok()?;
    Some(Thread { paths, done })
}

fn remove(path: &PathBuf) {
    if let Err(error) = remove_tree(path) {
        tracing::debug!(?path, %error, "can't remove");
    }
}

//! Removal of trees in the background.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::cap::Claim;
use super::remove::remove_tree;

/// The work after all others.
type Last = Box<dyn FnOnce() + Send>;

/// A task of the background thread.
enum Item {
    /// The removal of a tree, followed by the end of the claim on its room.
    Tree(PathBuf, Option<Arc<Claim>>),
    /// A request for a reply once all earlier tasks are completed.
    Mark(Sender<()>),
    /// The work at the end.
    Last(Last),
}

/// A background thread that removes trees. Trees that remain at the end of the process are in its
/// directory, and the next process removes them.
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
    /// Removes `path` in the background. The path is in the process's directory, and no other code
    /// uses it. Its claim ends when it is removed.
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

    /// Waits until all trees added so far are removed. Returns the number of trees removed since
    /// the start.
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

    /// Calls `last` once all trees are removed. Waits at most `limit` for it.
    pub(crate) fn finish(&self, limit: Duration, last: impl FnOnce() + Send + 'static) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Thread { items, done }) = thread else { return last() };
        if items.send(Item::Last(Box::new(last))).is_ok() {
            drop(items);
            // In a process that goes on, the thread goes on too.
            let _ = done.recv_timeout(limit);
        }
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
                Item::Last(last) => last(),
            }
        }
        drop(running);
    };
    // Without a thread, the caller removes the trees itself.
    std::thread::Builder::new().name("kiln-trash".to_owned()).spawn(body).ok()?;
    Some(Thread { items, done })
}

fn remove(path: &PathBuf) {
    if let Err(error) = remove_tree(path) {
        tracing::debug!(?path, %error, "can't remove");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_last_work_follows_all_removals_even_after_the_time_limit() {
        let root = tempfile::tempdir().unwrap();
        let (trash, tree) = (Trash::default(), root.path().join("tree"));
        fs::create_dir(&tree).unwrap();
        for number in 0..1000 {
            fs::write(tree.join(number.to_string()), "").unwrap();
        }
        trash.add(tree.clone(), None);
        let (sender, receiver) = channel();
        trash.finish(Duration::ZERO, move || sender.send(tree.exists()).unwrap());
        assert!(!receiver.recv_timeout(Duration::from_secs(10)).unwrap());
    }
}

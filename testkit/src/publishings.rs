//! How often the index of a store's layout is written.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};

/// A watch on `index.json`, each version of which is moved into its place. The kernel counts, so that
/// tests of how much work is done depend on no clock.
#[derive(Debug)]
pub struct Publishings(OwnedFd);

impl Publishings {
    /// Watches the store at `root`, which is there already.
    ///
    /// # Panics
    /// Panics where the kernel doesn't watch it.
    pub fn of(root: &Path) -> Self {
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).expect("make a watch");
        // The kernel makes one event of two that are alike and follow each other. The store reads a
        // version before it writes the next one.
        let flags = WatchFlags::OPEN | WatchFlags::MOVED_TO;
        add_watch(&inotify, root.join("content"), flags).expect("watch the store");
        Self(inotify)
    }

    /// Returns how often it was written since the last time.
    ///
    /// # Panics
    /// Panics where there was too much to be counted.
    pub fn count(&self) -> usize {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.0, &mut buffer);
        let mut count = 0;
        // It ends with an error: there is nothing more to be read.
        while let Ok(event) = events.next() {
            let (flags, name) = (event.events(), event.file_name());
            assert!(!flags.contains(ReadFlags::QUEUE_OVERFLOW), "too many to be counted");
            let is_version = flags.contains(ReadFlags::MOVED_TO) && name == Some(c"index.json");
            count += usize::from(is_version);
        }
        count
    }
}

//! Counting of writes to the index of a store's layout.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};

/// A watch on `index.json`, which the store replaces by a rename for each version. The kernel
/// counts the renames, so that tests of the amount of work don't depend on a clock.
#[derive(Debug)]
pub struct Publishings(OwnedFd);

impl Publishings {
    /// Watches the existing store at `root`.
    ///
    /// # Panics
    /// Panics if the kernel can't watch it.
    pub fn of(root: &Path) -> Self {
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).expect("make a watch");
        // The kernel merges two successive events that are equal. Watching `OPEN` too prevents
        // this, since the store reads a version before it writes the next.
        let flags = WatchFlags::OPEN | WatchFlags::MOVED_TO;
        add_watch(&inotify, root.join("content"), flags).expect("watch the store");
        Self(inotify)
    }

    /// Returns the number of versions written since the last call.
    ///
    /// # Panics
    /// Panics if the kernel's event queue has overflowed.
    pub fn count(&self) -> usize {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.0, &mut buffer);
        let mut count = 0;
        // The loop ends with an error when no events are left.
        while let Ok(event) = events.next() {
            let (flags, name) = (event.events(), event.file_name());
            assert!(!flags.contains(ReadFlags::QUEUE_OVERFLOW), "too many to be counted");
            let is_version = flags.contains(ReadFlags::MOVED_TO) && name == Some(c"index.json");
            count += usize::from(is_version);
        }
        count
    }
}

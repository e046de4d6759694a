//! The context index: digests of files that were read before.
//!
//! As a version control's index has it, a file whose device, inode, size and times (of modification
//! and of last change) are the same has the same content, and isn't read again. That is only true of a
//! file that had been left alone for a while when it was read: a change within the same tick of the
//! clock that stamps files leaves the times as they are. Git calls such files *racily clean*. They
//! aren't remembered here (`tree` tells nobody about them), and are read again by the next build.
//!
//! The rest is in the store, by the file and not by the context: what several contexts share is read
//! once, and a context that is moved is known where it went. See `store`'s `file_digests`.

use std::sync::{Mutex, PoisonError};

use kiln_store::{FileStamp, Store};
use kiln_tree::Metadata;
use kiln_tree::digest::FileDigests;

use crate::error::Result;

/// So many digests are kept in memory before they are stored: some megabytes.
const LEARNED: usize = 1 << 15;

/// What is known of files, and what was learned.
pub(crate) struct ContextIndex {
    store: Store,
    learned: Mutex<Vec<(FileStamp, [u8; 32])>>,
}

impl ContextIndex {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, learned: Mutex::default() }
    }

    /// Stores what was learned and isn't stored yet.
    pub(crate) fn save(self) -> Result<()> {
        let learned = self.learned.into_inner().unwrap_or_else(PoisonError::into_inner);
        if learned.is_empty() {
            return Ok(());
        }
        Ok(self.store.cache().put_file_digests(&learned)?)
    }
}

impl FileDigests for ContextIndex {
    fn get(&self, files: &[&Metadata]) -> Vec<Option<[u8; 32]>> {
        let stamps: Vec<FileStamp> = files.iter().map(|file| FileStamp::from(*file)).collect();
        // An index that can't be read has nothing to say: the files are read instead.
        self.store.cache().file_digests(&stamps).unwrap_or_else(|_| vec![None; files.len()])
    }

    fn put(&self, metadata: &Metadata, digest: [u8; 32]) {
        let full = {
            let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
            learned.push((metadata.into(), digest));
            if learned.len() < LEARNED { Vec::new() } else { std::mem::take(&mut *learned) }
        };
        if !full.is_empty()
            && let Err(error) = self.store.cache().put_file_digests(&full)
        {
            // It costs reading them again.
            tracing::warn!(%error, "can't remember digests of files");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};
    use std::io::Write as _;
    use std::time::{Duration, SystemTime};

    use kiln_oci::Digest;
    use kiln_tree::{Dir, Selection, View};

    use super::*;

    struct Context {
        temp: tempfile::TempDir,
        dir: Dir,
        store: Store,
    }

    impl Context {
        fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            std::fs::create_dir(temp.path().join("context")).unwrap();
            let dir = Dir::open(&temp.path().join("context")).unwrap();
            let store = Store::open(&temp.path().join("store")).unwrap();
            Self { temp, dir, store }
        }

        fn digest(&self, index: Option<&ContextIndex>) -> Digest {
            let selection = Selection { path: "/".to_owned(), ..Selection::default() };
            let index = index.map(|index| index as &dyn FileDigests);
            kiln_tree::content_digest(View::of(&self.dir), &[selection], index).unwrap()
        }

        /// Digests as a build does.
        fn remembered(&self) -> Digest {
            let index = ContextIndex::new(self.store.clone());
            let digest = self.digest(Some(&index));
            index.save().unwrap();
            digest
        }

        /// Writes a file whose size and time of modification are always the same.
        fn write(&self, name: &str, text: &str) {
            let mut file = File::create(self.temp.path().join("context").join(name)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
            file.set_times(FileTimes::new().set_modified(modified)).unwrap();
        }
    }

    #[test]
    fn a_change_within_the_clocks_tick_is_seen() {
        let context = Context::new();
        // Nothing but a clock that ticks tells them apart; some of these fall into one tick.
        for round in 0..500 {
            context.write("file", &format!("{round:08}"));
            assert_eq!(context.remembered(), context.digest(None), "round {round}");
        }
    }

    #[test]
    fn what_was_left_alone_is_not_read_again() {
        let context = Context::new();
        for name in 0..300 {
            context.write(&name.to_string(), "text");
        }
        std::thread::sleep(Duration::from_millis(200));
        let digest = context.remembered();
        let metadata: Vec<Metadata> = (0..300)
            .map(|name| context.dir.metadata(name.to_string().as_ref(), false).unwrap().unwrap())
            .collect();
        let files: Vec<&Metadata> = metadata.iter().collect();
        let index = ContextIndex::new(context.store.clone());
        assert!(index.get(&files).iter().all(Option::is_some));
        assert_eq!(context.remembered(), digest);
        context.write("7", "TEXT");
        assert_ne!(context.remembered(), digest);
        assert_eq!(context.remembered(), context.digest(None));
    }
}

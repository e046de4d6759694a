//! The context index: the digests of files that earlier builds have read.
//!
//! The index works like that of a version control system. A file with the same device, inode, size,
//! modification time and change time has the same content, so it isn't read again. This holds only
//! if the file was read some time after its last change: a second change within the same tick of
//! the file system's clock leaves the times unchanged. Git calls such files *racily clean*. They
//! are not remembered (`tree` doesn't pass them on), so the next build reads them again.
//!
//! The store keeps the digests by file, not by context. Files that several contexts share are read
//! once, and the files of a moved context are still known. See `file_digests` of the store.

use std::sync::{Mutex, PoisonError};

use kiln_store::{FileStamp, Store};
use kiln_tree::FileDigests;
use kiln_tree::Metadata;

use crate::error::Result;

/// The number of new digests in memory that triggers a write to the store. They take a few
/// megabytes.
const LEARNED: usize = 1 << 15;

/// The digests of files in the store, and new ones in memory.
#[derive(Debug)]
pub struct ContextIndex {
    store: Store,
    learned: Mutex<Vec<(FileStamp, [u8; 32])>>,
}

impl ContextIndex {
    /// Returns the index of a store.
    pub fn new(store: Store) -> Self {
        Self { store, learned: Mutex::default() }
    }

    /// Stores the digests that are still in memory.
    ///
    /// # Errors
    /// Fails if the store can't be written.
    pub fn save(&self) -> Result<()> {
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        let learned = std::mem::take(&mut *learned);
        if learned.is_empty() {
            return Ok(());
        }
        Ok(self.store.cache().put_file_digests(&learned)?)
    }
}

impl FileDigests for ContextIndex {
    fn get(&self, files: &[&Metadata]) -> Vec<Option<[u8; 32]>> {
        let stamps: Vec<FileStamp> = files.iter().map(|file| FileStamp::from(*file)).collect();
        // If the index can't be read, the files are read instead.
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
            // The only cost is that later builds read the files again.
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

        /// Digests the context with the index, as a build does.
        fn remembered(&self) -> Digest {
            let index = ContextIndex::new(self.store.clone());
            let digest = self.digest(Some(&index));
            index.save().unwrap();
            digest
        }

        /// Writes a file with a constant size and modification time.
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
        // Only the change time tells the versions apart. Several of them fall into one tick of the
        // clock.
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

//! Hashing of the contents of files.

use std::fs::File;
use std::io::{self, Read};
use std::time::{SystemTime, UNIX_EPOCH};

use rayon::prelude::*;

use super::FileDigests;
use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::metadata::{Metadata, Timestamp};
use crate::walk::{Entry, Opener};

/// The size of a read buffer in bytes. Most files need a single read, and BLAKE3 can use all lanes
/// of the processor.
const BUFFER: usize = 128 * 1024;

/// The number of files in one lookup.
const LOOKED_UP: usize = 1024;

/// The age in nanoseconds from which a file's times are reliable. A file that changed more recently
/// may change again within the same tick of the file system's clock.
const TICK_NANOSECONDS: i128 = 50_000_000;
/// The same age for file systems with a resolution of one or two seconds.
const COARSE_TICK_NANOSECONDS: i128 = 2_000_000_000;

/// The size and hash of a file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Contents {
    pub(super) size: u64,
    pub(super) hash: [u8; 32],
}

/// The hash of a file's content, computed piece by piece, as [`FileDigests`] keeps it.
#[derive(Clone, Debug, Default)]
pub struct ContentHasher(blake3::Hasher);

impl ContentHasher {
    /// Adds the next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the hash of all bytes so far.
    pub fn finish(&self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// A file whose content the caller has written itself.
#[derive(Clone, Debug)]
pub struct WrittenFile {
    /// The metadata of the complete file.
    pub metadata: Metadata,
    /// The hash of its content.
    pub hash: [u8; 32],
}

/// Stores the hashes of files that nothing else has changed since the caller wrote them. Files that
/// could still change without another time are left out, so they are read when they are digested.
pub fn remember_written(files: &[WrittenFile], digests: &dyn FileDigests) {
    let now = now();
    for WrittenFile { metadata, hash } in files {
        if is_settled(metadata, now) {
            digests.put(metadata, *hash);
        }
    }
}

/// Returns the time in nanoseconds since 1970.
fn now() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as i128)
}

/// Returns the contents of the files, in order. Doesn't read remembered files.
pub(super) fn read(
    root: &Dir,
    files: &[&Entry],
    remembered: Option<&dyn FileDigests>,
) -> Result<Vec<Contents>> {
    let before = now();
    let known = known(files, remembered);
    let start = || (Opener::new(root), Vec::new());
    let hash = |(opener, buffer): &mut (Opener<'_>, Vec<u8>), (number, entry): (usize, &&Entry)| {
        let metadata = &entry.metadata;
        if let Some(hash) = known.get(number).copied().flatten() {
            return Ok(Contents { size: metadata.size, hash });
        }
        // The buffer is allocated late, since most threads read nothing if a context hasn't
        // changed.
        buffer.resize(BUFFER, 0);
        let contents = if metadata.size == 0 {
            Contents { size: 0, hash: blake3::hash(b"").into() }
        } else {
            let file = opener.open_entry(&entry.path)?;
            hash_file(&file, metadata.size, buffer)
                .map_err(|error| Error::io("read", &entry.shown(), error))?
        };
        if let Some(remembered) = remembered
            && contents.size == metadata.size
            && is_settled(metadata, before)
        {
            remembered.put(metadata, contents.hash);
        }
        Ok(contents)
    };
    files.par_iter().enumerate().map_init(start, hash).collect()
}

/// Returns the remembered hashes. The list is empty without a memory.
fn known(files: &[&Entry], remembered: Option<&dyn FileDigests>) -> Vec<Option<[u8; 32]>> {
    let Some(remembered) = remembered else { return Vec::new() };
    let look_up = |files: &[&Entry]| {
        let metadata: Vec<_> = files.iter().map(|entry| &entry.metadata).collect();
        remembered.get(&metadata)
    };
    files.par_chunks(LOOKED_UP).flat_map_iter(look_up).collect()
}

/// Hashes a file. `expected` is its expected size; the result has the actual size.
fn hash_file(mut file: &File, expected: u64, buffer: &mut [u8]) -> io::Result<Contents> {
    let mut hasher = blake3::Hasher::new();
    let mut size = 0;
    loop {
        let count = match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        hasher.update(&buffer[..count]);
        size += count as u64;
        // A short read at the expected end shows that the file ends there.
        if count == 0 || (size == expected && count < buffer.len()) {
            return Ok(Contents { size, hash: hasher.finalize().into() });
        }
    }
}

/// Returns `true` if any change after `before` (nanoseconds since 1970) would change the metadata.
pub(crate) fn is_settled(metadata: &Metadata, before: i128) -> bool {
    let last = metadata.ctime.max(metadata.mtime);
    let is_coarse = metadata.ctime.nanoseconds == 0;
    let tick = if is_coarse { COARSE_TICK_NANOSECONDS } else { TICK_NANOSECONDS };
    nanoseconds(last) + tick < before
}

fn nanoseconds(time: Timestamp) -> i128 {
    i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{FileKind, Owner};

    #[test]
    fn files_settle_after_a_tick_of_their_clock() {
        let at = |seconds, nanoseconds| {
            let time = Timestamp { seconds, nanoseconds };
            Metadata {
                kind: FileKind::File,
                mode: 0o644,
                owner: Owner::default(),
                size: 1,
                mtime: Timestamp::default(),
                ctime: time,
                device: 1,
                inode: 1,
                links: 1,
                blocks: 8,
            }
        };
        let now = 100_000_000_000;
        assert!(is_settled(&at(99, 900_000_000), now));
        assert!(!is_settled(&at(99, 990_000_000), now));
        assert!(!is_settled(&at(100, 1), now));
        assert!(!is_settled(&at(99, 0), now), "a clock of seconds");
        assert!(is_settled(&at(97, 0), now));
        let future = Timestamp { seconds: 200, nanoseconds: 0 };
        assert!(!is_settled(&Metadata { mtime: future, ..at(10, 5) }, now));
    }
}

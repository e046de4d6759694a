//! Hashing of the contents of files.

use std::fs::File;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rayon::prelude::*;

use super::FileDigests;
use super::survey::Survey;
use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::metadata::{Metadata, Timestamp};
use crate::names;
use crate::walk::{Found, Opener, Position};

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

/// A file of a survey.
#[derive(Clone, Copy)]
struct SurveyedFile<'a> {
    found: &'a Found,
    position: Position,
}

impl SurveyedFile<'_> {
    fn metadata(&self) -> Metadata {
        self.found.rows(self.position).get(self.position.row as usize).metadata
    }

    fn inode(&self) -> u64 {
        self.found.rows(self.position).inode(self.position.row as usize)
    }
}

/// Returns the contents of the selected files, in order. Doesn't read remembered files.
pub(super) fn read(
    root: &Dir,
    surveys: &[Vec<Survey>],
    remembered: Option<&dyn FileDigests>,
) -> Result<Vec<Contents>> {
    let before = now();
    let files = files(surveys);
    let mut contents = vec![Contents::default(); files.len()];
    let unknown = match remembered {
        Some(remembered) => look_up(&files, remembered, &mut contents),
        None => (0..files.len() as u32).collect(),
    };
    let start = || (Opener::new(root), Vec::new());
    let hash = |(opener, buffer): &mut (Opener<'_>, Vec<u8>), number: &u32| {
        let file = files[*number as usize];
        let metadata = file.metadata();
        // The buffer is allocated late, since most threads read nothing if a context hasn't
        // changed.
        buffer.resize(BUFFER, 0);
        let contents = if metadata.size == 0 {
            Contents { size: 0, hash: blake3::hash(b"").into() }
        } else {
            let path = file.found.path(file.position);
            let opened = opener.open_entry(&path)?;
            hash_file(&opened, metadata.size, buffer)
                .map_err(|error| Error::io("read", names::path(&path.to_vec()), error))?
        };
        if let Some(remembered) = remembered
            && contents.size == metadata.size
            && is_settled(&metadata, before)
        {
            remembered.put(&metadata, contents.hash);
        }
        Ok(contents)
    };
    if unknown.is_empty() {
        // Waking other threads would take longer.
        return Ok(contents);
    }
    let hashed: Result<Vec<Contents>> = unknown.par_iter().map_init(start, hash).collect();
    for (number, hashed) in unknown.iter().zip(hashed?) {
        contents[*number as usize] = hashed;
    }
    Ok(contents)
}

/// Returns the selected files, in order.
fn files(surveys: &[Vec<Survey>]) -> Vec<SurveyedFile<'_>> {
    let count = surveys.iter().flatten().map(|survey| survey.found.files()).sum();
    let mut files = Vec::with_capacity(count);
    for survey in surveys.iter().flatten() {
        let mut entries = survey.entries();
        while let Some((position, _)) = entries.advance() {
            let file = SurveyedFile { found: &survey.found, position };
            if survey.found.rows(position).is_file(position.row as usize) {
                files.push(file);
            }
        }
    }
    files
}

/// Looks the files up, and sets the contents of remembered ones. Returns the numbers of the others,
/// in order.
///
/// A memory keeps files with neighbouring inode numbers together. So they are looked up in the order
/// of these numbers.
fn look_up(
    files: &[SurveyedFile<'_>],
    remembered: &dyn FileDigests,
    contents: &mut [Contents],
) -> Vec<u32> {
    let keyed = |(number, file): (usize, &SurveyedFile<'_>)| (file.inode(), number as u32);
    let mut order: Vec<(u64, u32)> = files.iter().enumerate().map(keyed).collect();
    order.sort_unstable();
    let unknown = Mutex::new(Vec::new());
    let contents = Mutex::new(contents);
    let look_up = |keys: &[(u64, u32)]| {
        let file = |(_, number): &(u64, u32)| files[*number as usize].metadata();
        let metadata: Vec<Metadata> = keys.iter().map(file).collect();
        let found = remembered.get(&metadata.iter().collect::<Vec<_>>());
        let mut unknown = unknown.lock().unwrap_or_else(PoisonError::into_inner);
        let mut contents = contents.lock().unwrap_or_else(PoisonError::into_inner);
        for ((found, metadata), (_, number)) in found.into_iter().zip(&metadata).zip(keys) {
            match found {
                Some(hash) => {
                    contents[*number as usize] = Contents { size: metadata.size, hash };
                }
                None => unknown.push(*number),
            }
        }
    };
    match order.as_slice() {
        few if few.len() <= LOOKED_UP => look_up(few),
        many => many.par_chunks(LOOKED_UP).for_each(look_up),
    }
    let mut unknown = unknown.into_inner().unwrap_or_else(PoisonError::into_inner);
    unknown.sort_unstable();
    unknown
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

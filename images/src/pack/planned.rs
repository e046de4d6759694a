//! Packing of a planned tar, segment by segment.
//!
//! A segment is compressed only if no blob of the store has it, and its files are read only if the
//! tar's digest needs them: not before the first change. The steps:
//!
//! 1. The plan is cut into segments. Their keys follow from headers and known digests of files.
//! 2. The blob begins with a copy of the segments that it has in common with an older blob. The
//!    hashers of the tar and of the blob continue from the states that were stored there.
//! 3. Tasks on rayon's threads read the other segments and compress them, or load their bytes from
//!    older blobs.
//! 4. This thread hashes the tar, and another one hashes and writes the blob, both in order.
//! 5. The places of all segments are stored with the blob.
//!
//! The blob's bytes depend on the tar alone: cuts are a function of the tar, and so are the bytes
//! of each segment. If a file isn't what the plan says any more, the whole tar is packed as a
//! stream instead.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use kiln_oci::Digest;
use kiln_store::{FileStamp, LayerBlob, Store};
use kiln_tree::{ContentDigest, Plan, Segments, content_of};
use rayon::prelude::*;

use super::PackContext;
use super::driver::Driver;
use super::kept::{KeptSegments, Key, key};
use crate::compression::{Compression, Packing};
use crate::error::{Error, Result};
use crate::segment::PackedSegment;

/// The length of a tar in bytes below which nothing is kept, since compressing it takes no longer
/// than looking for it.
const SMALL: u64 = 256 << 10;

/// The number of files in one look-up.
const LOOKED_UP: usize = 1024;

/// The files of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlannedFiles {
    /// Files in the tree of a layer. Nothing changes them, so their digests are stored.
    Layer,
    /// Files that can change at any time.
    Sources,
}

/// Packs a plan. Returns the digest of the tar, and the blob. Returns `None` if the tar is small,
/// or if a file has changed since it was planned: the plan has to be packed as a stream.
pub(super) fn pack(
    context: PackContext<'_>,
    plan: &Plan<'_>,
    files: PlannedFiles,
) -> Result<Option<(Digest, LayerBlob)>> {
    let segments = plan.segments();
    if (0..segments.count()).map(|number| segments.length(number)).sum::<u64>() < SMALL {
        return Ok(None);
    }
    let digests = known_digests(context.store, &segments);
    let keys: Vec<Option<Key>> = (0..segments.count())
        .into_par_iter()
        .map(|number| segments.key(number, |item| digests[item]))
        .map(|content| content.map(|content| key(&content, context.packing)))
        .collect();
    let (kept, start) = KeptSegments::find(context.store.content(), &keys)?;
    let is_stopped = AtomicBool::new(false);
    let job = Job {
        name: context.name,
        packing: context.packing,
        segments,
        digests,
        keys,
        kept,
        buffers: Mutex::default(),
        is_stopped,
    };
    Driver::new(context, &job, files).run(start)
}

/// Returns the known digests of all files, by item.
fn known_digests(store: &Store, segments: &Segments<'_, '_>) -> Vec<Option<ContentDigest>> {
    let items: Vec<usize> = (0..segments.items()).collect();
    let look_up = |items: &[usize]| {
        let files: Vec<_> = items.iter().map(|item| segments.file(*item)).collect();
        let stamps: Vec<FileStamp> = files.iter().flatten().map(FileStamp::from).collect();
        // If the index can't be read, the files are read instead.
        let found = store.cache().file_digests(&stamps).unwrap_or_default();
        let mut found = found.into_iter();
        let of_file = |file: &Option<_>| file.as_ref().and_then(|_| found.next().flatten());
        files.iter().map(of_file).collect::<Vec<_>>()
    };
    items.par_chunks(LOOKED_UP).flat_map_iter(look_up).collect()
}

/// The work on one tar.
pub(super) struct Job<'a, 'd> {
    /// The name in error messages.
    name: &'a str,
    packing: Packing,
    pub(super) segments: Segments<'a, 'd>,
    /// The digests of files that were known before.
    pub(super) digests: Vec<Option<ContentDigest>>,
    /// The keys of segments whose files' digests were known before.
    pub(super) keys: Vec<Option<Key>>,
    kept: KeptSegments,
    /// Buffers for segments, which are used again.
    buffers: Mutex<Vec<Vec<u8>>>,
    /// `true` if the remaining tasks are useless.
    is_stopped: AtomicBool,
}

/// A finished segment.
pub(super) struct Finished {
    pub(super) number: usize,
    pub(super) key: Option<Key>,
    /// The content, at the beginning of the buffer; `None` if the compressed bytes are the content.
    pub(super) content: Option<Vec<u8>>,
    /// The compressed bytes.
    pub(super) bytes: Vec<u8>,
    /// The CRC-32 of the content.
    pub(super) crc: u32,
    /// The digest of the compressed bytes.
    pub(super) digest: [u8; 32],
    /// The digests of files that were read.
    pub(super) learned: Vec<(usize, ContentDigest)>,
}

/// The result of a task; `None` if a file has changed.
pub(super) type Outcome = Result<Option<Finished>>;

impl Job<'_, '_> {
    /// Produces the bytes of a segment.
    pub(super) fn work(&self, number: usize) -> Outcome {
        if self.is_stopped.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let is_plain = self.packing.compression == Compression::Uncompressed;
        let mut finished = Finished {
            number,
            key: self.keys[number],
            content: None,
            bytes: Vec::new(),
            crc: 0,
            digest: [0; 32],
            learned: Vec::new(),
        };
        let is_loaded = self.load(&mut finished)?;
        if is_loaded && is_plain {
            return Ok(Some(finished));
        }
        if !self.read(&mut finished)? {
            return Ok(None);
        }
        if finished.key.is_none() {
            finished.key = self.key_with(number, &finished.learned);
        }
        if !is_loaded && !self.load(&mut finished)? {
            self.compress(&mut finished)?;
        }
        Ok(Some(finished))
    }

    /// Takes the bytes from an older blob, if one has them.
    fn load(&self, finished: &mut Finished) -> Result<bool> {
        let Some(key) = &finished.key else { return Ok(false) };
        let Some(kept) = self.kept.load(key, self.segments.length(finished.number))? else {
            return Ok(false);
        };
        (finished.bytes, finished.crc, finished.digest) = (kept.bytes, kept.crc, kept.digest);
        Ok(true)
    }

    /// Reads the content. Returns `false` if a file has changed.
    fn read(&self, finished: &mut Finished) -> Result<bool> {
        let spare = self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = spare.unwrap_or_default();
        let learned = &mut finished.learned;
        let mut whole = |item: usize, content: &[u8]| {
            if self.digests[item].is_none() {
                learned.push((item, content_of(content)));
            }
        };
        let is_same = self.segments.read(finished.number, &mut buffer, &mut whole)?;
        finished.content = Some(buffer);
        Ok(is_same)
    }

    /// Returns the key of a segment whose files were read. `learned` is sorted by item.
    pub(super) fn key_with(
        &self,
        number: usize,
        learned: &[(usize, ContentDigest)],
    ) -> Option<Key> {
        let new = |item: usize| {
            let place = learned.binary_search_by_key(&item, |(item, _)| *item).ok()?;
            Some(learned[place].1)
        };
        let digest = |item: usize| self.digests[item].or_else(|| new(item));
        self.segments.key(number, digest).map(|content| key(&content, self.packing))
    }

    fn compress(&self, finished: &mut Finished) -> Result<()> {
        let length = self.segments.length(finished.number) as usize;
        let content = finished.content.as_ref().and_then(|content| content.get(..length));
        let packed = PackedSegment::new(content.unwrap_or_default(), self.packing);
        let packed =
            packed.map_err(|source| Error::Pack { layer: self.name.to_owned(), source })?;
        finished.digest = content_of(&packed.bytes);
        (finished.bytes, finished.crc) = (packed.bytes, packed.crc);
        Ok(())
    }

    /// Makes the remaining tasks end at once.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// Takes a buffer back.
    pub(super) fn recycle(&self, buffer: Vec<u8>) {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

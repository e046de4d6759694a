//! The thread that takes finished segments in order, and the one that writes the blob.

use std::io::{self, Write as _};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::ScopedJoinHandle;

use kiln_oci::{Digest, DigestHasher};
use kiln_store::{BlobSegment, BlobWriter, FileStamp, LayerBlob};
use kiln_tree::{ContentDigest, ContentHasher};

use super::PackContext;
use super::kept::{CommonStart, Key};
use super::planned::{Finished, Job, Outcome, PlannedFiles};
use crate::compression::Compression;
use crate::error::{Error, Result};
use crate::queue::TaskQueue;
use crate::segment::Frame;

/// The number of new digests in memory that triggers a write to the store.
const LEARNED: usize = 1 << 15;
/// The number of segments that wait to be written.
const WAITING: usize = 2;

/// A part of the blob to write.
struct Chunk {
    bytes: Vec<u8>,
    /// The segment, without its key, its place and the blob's state; `None` for bytes around the
    /// segments.
    segment: Option<BlobSegment>,
}

/// The state of the thread that takes the segments in order.
pub(super) struct Driver<'a, 'b, 'd> {
    context: PackContext<'a>,
    job: &'b Job<'b, 'd>,
    files: PlannedFiles,
    tar: DigestHasher,
    frame: Frame,
    keys: Vec<Option<Key>>,
    /// The hasher of the large file whose parts arrive.
    part: ContentHasher,
    /// The digests of large files that were read, and of the files that share segments with them,
    /// by item. These segments get their keys in the end.
    late: Vec<(usize, ContentDigest)>,
    /// The digests that aren't stored yet.
    learned: Vec<(FileStamp, ContentDigest)>,
    /// The number of bytes of the tar so far.
    taken: u64,
    /// `true` if a file has changed since it was planned.
    is_changed: bool,
    failure: Option<Error>,
}

impl<'a, 'b, 'd> Driver<'a, 'b, 'd> {
    pub(super) fn new(context: PackContext<'a>, job: &'b Job<'b, 'd>, files: PlannedFiles) -> Self {
        Self {
            context,
            job,
            files,
            tar: DigestHasher::new(),
            frame: Frame::new(context.packing.compression),
            keys: job.keys.clone(),
            part: ContentHasher::default(),
            late: Vec::new(),
            learned: Vec::new(),
            taken: 0,
            is_changed: false,
            failure: None,
        }
    }

    /// Packs the tar behind the common start. Returns `None` if a file has changed.
    pub(super) fn run(mut self, start: Option<CommonStart>) -> Result<Option<(Digest, LayerBlob)>> {
        let PackContext { store, packing, progress, name } = self.context;
        let mut writer = store.content().writer()?;
        let known = self.begin(start, &mut writer).map_err(|error| self.pack_error(error))?;
        let first = known.len();
        let (sender, chunks) = sync_channel(WAITING);
        let written = std::thread::scope(|scope| {
            let thread = scope.spawn(move || write(writer, known, &chunks));
            let ended = self.take_from(first, &sender);
            self.job.stop();
            drop(sender);
            self.join(ended, thread)
        });
        if self.is_changed {
            return Ok(None);
        }
        let (writer, mut segments) = written?;
        let blob = writer.commit(None)?;
        let is_plain = packing.compression == Compression::Uncompressed;
        let diff_id = if is_plain { blob.digest } else { std::mem::take(&mut self.tar).finish() };
        self.save_digests();
        if self.name_segments(&mut segments)
            && let Err(error) = store.content().put_segments(&blob.digest, &segments)
        {
            tracing::warn!(%error, "can't keep the segments of a layer");
        }
        progress.status(name, self.taken, None, true);
        let media_type = packing.compression.media_type(true).to_owned();
        let blob = LayerBlob { media_type, digest: blob.digest, size: blob.size, origin: None };
        Ok(Some((diff_id, blob)))
    }

    /// Begins the blob. Returns the segments that it already has.
    fn begin(
        &mut self,
        start: Option<CommonStart>,
        writer: &mut BlobWriter,
    ) -> io::Result<Vec<BlobSegment>> {
        let Some(CommonStart { file, segments, tar }) = start else {
            writer.write_all(self.frame.head())?;
            return Ok(Vec::new());
        };
        if let Some(last) = segments.last() {
            writer.begin_with(&file, last.offset + last.size, &last.blob_state)?;
        }
        for segment in &segments {
            self.frame.add(segment.crc, segment.length);
            self.taken += segment.length;
        }
        self.tar = tar;
        Ok(segments)
    }

    /// Takes all segments from `first` on, and sends them to the writing thread.
    fn take_from(&mut self, first: usize, sender: &SyncSender<Chunk>) -> io::Result<()> {
        let job = self.job;
        rayon::in_place_scope(|scope| {
            let mut queue = TaskQueue::default();
            for number in first..job.segments.count() {
                let mut done = |outcome| self.take(outcome, sender);
                let result = queue.add(job.segments.length(number) as usize, &mut done)?;
                scope.spawn(move |_| {
                    // The receiver is gone after a failure.
                    let _ = result.send(job.work(number));
                });
            }
            while let Some(outcome) = queue.oldest()? {
                self.take(outcome, sender)?;
            }
            let frame = std::mem::replace(&mut self.frame, Frame::new(Compression::Uncompressed));
            send(sender, Chunk { bytes: frame.tail(), segment: None })
        })
        .inspect_err(|_| job.stop())
    }

    /// Takes the next segment.
    fn take(&mut self, outcome: Outcome, sender: &SyncSender<Chunk>) -> io::Result<()> {
        if self.context.progress.is_cancelled() {
            return Err(self.fail(Error::Cancelled));
        }
        let finished = match outcome {
            Ok(Some(finished)) => finished,
            Ok(None) => {
                self.is_changed = true;
                return Err(io::Error::other("a file has changed"));
            }
            Err(error) => return Err(self.fail(error)),
        };
        let number = finished.number;
        let length = self.job.segments.length(number);
        if let Some(content) = &finished.content {
            let content = &content[..length as usize];
            self.hash_part(number, content);
            if self.context.packing.compression != Compression::Uncompressed {
                self.tar.update(content);
            }
        }
        self.learn(&finished);
        self.keys[number] = finished.key;
        self.frame.add(finished.crc, length);
        let segment = BlobSegment {
            key: Key::default(),
            offset: 0,
            size: finished.bytes.len() as u64,
            length,
            crc: finished.crc,
            digest: finished.digest,
            tar_state: self.tar.state(),
            blob_state: Vec::new(),
        };
        let sent = send(sender, Chunk { bytes: finished.bytes, segment: Some(segment) });
        finished.content.into_iter().for_each(|buffer| self.job.recycle(buffer));
        self.taken += length;
        self.context.progress.status(self.context.name, self.taken, None, false);
        sent
    }

    /// Keeps an error, and returns one that ends the work.
    fn fail(&mut self, error: Error) -> io::Error {
        self.failure = Some(error);
        io::Error::other("packing has failed")
    }

    /// Hashes the part of a large file whose digest is unknown.
    fn hash_part(&mut self, number: usize, content: &[u8]) {
        let Some(part) = self.job.segments.part(number) else { return };
        if self.job.digests[part.item].is_some() {
            return;
        }
        self.part.update(&content[part.bytes]);
        if part.is_end {
            let digest = std::mem::take(&mut self.part).finish();
            self.late.push((part.item, digest));
            self.note(part.item, digest);
        }
    }

    fn learn(&mut self, finished: &Finished) {
        for (item, digest) in &finished.learned {
            self.note(*item, *digest);
        }
        if finished.key.is_none() {
            self.late.extend(&finished.learned);
        }
        if self.learned.len() >= LEARNED {
            self.save_digests();
        }
    }

    /// Notes the digest of a file that nothing changes.
    fn note(&mut self, item: usize, digest: ContentDigest) {
        if self.files == PlannedFiles::Layer
            && let Some(file) = self.job.segments.file(item)
        {
            self.learned.push((FileStamp::from(&file), digest));
        }
    }

    fn save_digests(&mut self) {
        let learned = std::mem::take(&mut self.learned);
        if !learned.is_empty()
            && let Err(error) = self.context.store.cache().put_file_digests(&learned)
        {
            // The only cost is that the files are read again.
            tracing::warn!(%error, "can't remember digests of files");
        }
    }

    /// Sets the keys of segments. Returns `false` if a key is unknown.
    fn name_segments(&self, segments: &mut [BlobSegment]) -> bool {
        segments.iter_mut().enumerate().all(|(number, segment)| {
            let key = self.keys[number].or_else(|| self.job.key_with(number, &self.late));
            segment.key = key.unwrap_or_default();
            key.is_some()
        })
    }

    /// Waits for the writing thread, and returns the first failure.
    fn join(
        &mut self,
        ended: io::Result<()>,
        thread: ScopedJoinHandle<'_, io::Result<(BlobWriter, Vec<BlobSegment>)>>,
    ) -> Result<(BlobWriter, Vec<BlobSegment>)> {
        let panicked = || Err(io::Error::other("the thread that writes the blob has panicked"));
        let written = thread.join().unwrap_or_else(|_| panicked());
        match (self.failure.take(), written, ended) {
            (Some(error), _, _) => Err(error),
            (None, Err(error), _) | (None, Ok(_), Err(error)) => Err(self.pack_error(error)),
            (None, Ok(written), Ok(())) => Ok(written),
        }
    }

    fn pack_error(&self, source: io::Error) -> Error {
        Error::Pack { layer: self.context.name.to_owned(), source }
    }
}

/// Sends a chunk to the writing thread.
fn send(sender: &SyncSender<Chunk>, chunk: Chunk) -> io::Result<()> {
    // The thread's own error is reported instead.
    sender.send(chunk).map_err(|_| io::Error::other("the blob can't be written"))
}

/// Writes the chunks of a blob that has the segments `known`. Returns all segments.
fn write(
    mut writer: BlobWriter,
    known: Vec<BlobSegment>,
    chunks: &Receiver<Chunk>,
) -> io::Result<(BlobWriter, Vec<BlobSegment>)> {
    let mut segments = known;
    for Chunk { bytes, segment } in chunks {
        let offset = writer.written();
        writer.write_all(&bytes)?;
        if let Some(segment) = segment {
            let blob_state = writer.hasher().state();
            segments.push(BlobSegment { offset, blob_state, ..segment });
        }
    }
    Ok((writer, segments))
}

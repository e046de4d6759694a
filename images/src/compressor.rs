//! A writer that compresses a tar.

use std::io::{self, Write};

use kiln_tree::Slicer;

use crate::compression::{Compression, Packing};
use crate::queue::TaskQueue;
use crate::segment::{Frame, PackedSegment};

/// A writer that compresses a tar into another writer, segment by segment. Segments are compressed
/// on rayon's threads.
pub(crate) struct Compressor<W> {
    slicer: Slicer,
    stream: Stream<W>,
}

/// The compressed stream.
struct Stream<W> {
    sink: W,
    packing: Packing,
    queue: TaskQueue<io::Result<PackedSegment>>,
    frame: Frame,
    is_begun: bool,
}

impl<W: Write> Compressor<W> {
    pub(crate) fn new(sink: W, packing: Packing) -> Self {
        let frame = Frame::new(packing.compression);
        let queue = TaskQueue::default();
        let stream = Stream { sink, packing, queue, frame, is_begun: false };
        Self { slicer: Slicer::default(), stream }
    }

    /// Ends the stream and returns the inner writer.
    ///
    /// # Errors
    /// Fails if the inner writer fails.
    pub(crate) fn finish(self) -> io::Result<W> {
        let mut stream = self.stream;
        if stream.packing.compression == Compression::Uncompressed {
            return Ok(stream.sink);
        }
        let last = self.slicer.finish();
        let last = (!last.is_empty() || !stream.is_begun)
            .then(|| PackedSegment::new(&last, stream.packing))
            .transpose()?;
        while let Some(segment) = stream.queue.oldest()? {
            stream.put(segment)?;
        }
        if let Some(last) = last {
            stream.put(Ok(last))?;
        }
        stream.begin()?;
        stream.sink.write_all(&stream.frame.tail())?;
        Ok(stream.sink)
    }
}

impl<W: Write> Stream<W> {
    /// Starts the compression of a segment.
    fn submit(&mut self, segment: Vec<u8>) -> io::Result<()> {
        let mut queue = std::mem::take(&mut self.queue);
        let result = queue.add(segment.len(), &mut |segment| self.put(segment));
        self.queue = queue;
        let (result, packing) = (result?, self.packing);
        self.begin()?;
        rayon::spawn(move || {
            // The receiver is gone if the writer was dropped.
            let _ = result.send(PackedSegment::new(&segment, packing));
        });
        Ok(())
    }

    fn begin(&mut self) -> io::Result<()> {
        if self.is_begun {
            return Ok(());
        }
        self.is_begun = true;
        self.sink.write_all(self.frame.head())
    }

    fn put(&mut self, segment: io::Result<PackedSegment>) -> io::Result<()> {
        let segment = segment?;
        self.begin()?;
        self.frame.add(segment.crc, segment.length);
        self.sink.write_all(&segment.bytes)
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self { slicer, stream } = self;
        if stream.packing.compression == Compression::Uncompressed {
            return stream.sink.write(bytes);
        }
        slicer.push(bytes, &mut |segment| stream.submit(segment))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;

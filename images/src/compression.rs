//! The compressions of layers, and writers that compress.

use std::io::{self, Write};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use kiln_oci::media_type;

use crate::budget;
use crate::gzip::GzipWriter;

/// The media type of a Docker layer in zstd's format.
pub(crate) const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

/// The size in bytes of the chunks that the zstd thread receives.
const CHUNK: usize = 1 << 20;
/// The maximum number of chunks that wait for the thread.
const WAITING: usize = 4;

/// A compression of layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// No compression: the layer is a plain tar.
    Uncompressed,
    /// gzip, compressed in parallel.
    #[default]
    Gzip,
    /// zstd, compressed in parallel if the layer is larger than 1 MiB.
    Zstd,
}

/// The options for packing layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packing {
    /// The compression of new layers.
    pub compression: Compression,
    /// The compression level. The default is 6 for gzip and 3 for zstd.
    pub level: Option<u32>,
    /// `true` if layers of base images are recompressed when they have another compression.
    pub force: bool,
}

impl Compression {
    /// Returns the compression of a layer's media type, OCI's or Docker's. Returns `None` for other
    /// media types.
    pub fn of(media_type: &str) -> Option<Self> {
        match media_type {
            media_type::OCI_LAYER | media_type::DOCKER_LAYER => Some(Self::Uncompressed),
            media_type::OCI_LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => Some(Self::Gzip),
            media_type::OCI_LAYER_ZSTD | DOCKER_LAYER_ZSTD => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Returns the media type of a layer with this compression: OCI's if `oci`, otherwise Docker's.
    pub const fn media_type(self, oci: bool) -> &'static str {
        match (self, oci) {
            (Self::Uncompressed, true) => media_type::OCI_LAYER,
            (Self::Uncompressed, false) => media_type::DOCKER_LAYER,
            (Self::Gzip, true) => media_type::OCI_LAYER_GZIP,
            (Self::Gzip, false) => media_type::DOCKER_LAYER_GZIP,
            (Self::Zstd, true) => media_type::OCI_LAYER_ZSTD,
            (Self::Zstd, false) => DOCKER_LAYER_ZSTD,
        }
    }

    /// Returns the value of the output key `compression`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uncompressed => "uncompressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// A writer that compresses into another writer.
pub(crate) enum Compressor<W: Write + Send + 'static> {
    Plain(W),
    Gzip(Box<GzipWriter<W>>),
    Zstd(ZstdWriter<W>),
}

impl<W: Write + Send + 'static> Compressor<W> {
    pub(crate) fn new(sink: W, packing: Packing) -> Self {
        match packing.compression {
            Compression::Uncompressed => Self::Plain(sink),
            Compression::Gzip => {
                Self::Gzip(Box::new(GzipWriter::new(sink, packing.level.unwrap_or(6))))
            }
            Compression::Zstd => Self::Zstd(ZstdWriter::new(sink, packing.level.unwrap_or(3))),
        }
    }

    /// Ends the stream and returns the inner writer.
    pub(crate) fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(sink) => Ok(sink),
            Self::Gzip(writer) => writer.finish(),
            Self::Zstd(writer) => writer.finish(),
        }
    }
}

impl<W: Write + Send + 'static> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(sink) => sink.write(bytes),
            Self::Gzip(writer) => writer.write(bytes),
            Self::Zstd(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A zstd writer with threads of its own, so that reading, hashing and compressing overlap. zstd
/// splits its input into jobs whose size depends only on the level, so the number of threads
/// doesn't change the output. Input that is smaller than a chunk is always compressed without
/// threads.
pub(crate) struct ZstdWriter<W: Write + Send + 'static> {
    level: u32,
    buffer: Vec<u8>,
    // `None` once the thread runs. It starts with the first full chunk, because most layers are
    // small and need no thread.
    sink: Option<W>,
    thread: Option<ZstdThread<W>>,
}

type ZstdThread<W> = (SyncSender<Vec<u8>>, JoinHandle<io::Result<W>>);

impl<W: Write + Send + 'static> ZstdWriter<W> {
    fn new(sink: W, level: u32) -> Self {
        Self { level, buffer: Vec::new(), sink: Some(sink), thread: None }
    }

    fn start(&mut self, sink: W) -> io::Result<()> {
        let (sender, chunks) = sync_channel::<Vec<u8>>(WAITING);
        let (level, is_background) = (self.level, budget::is_background());
        let body = move || {
            let _stream = budget::large_stream(is_background);
            let mut encoder = encoder(sink, level)?;
            encoder.multithread(rayon::current_num_threads() as u32)?;
            for chunk in chunks {
                encoder.write_all(&chunk)?;
            }
            encoder.finish()
        };
        let thread = std::thread::Builder::new().name("kiln-zstd".to_owned()).spawn(body)?;
        self.thread = Some((sender, thread));
        Ok(())
    }

    /// Sends the buffer to the thread. Starts the thread on first use.
    fn send(&mut self) -> io::Result<()> {
        if let Some(sink) = self.sink.take() {
            self.start(sink)?;
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        let sent = self.thread.as_ref().is_some_and(|(sender, _)| sender.send(chunk).is_ok());
        if sent { Ok(()) } else { Err(self.join().err().unwrap_or_else(died)) }
    }

    fn join(&mut self) -> io::Result<W> {
        let (sender, thread) = self.thread.take().ok_or_else(died)?;
        drop(sender);
        thread.join().map_err(|_| died())?
    }

    fn finish(mut self) -> io::Result<W> {
        if let Some(sink) = self.sink.take() {
            let mut encoder = encoder(sink, self.level)?;
            encoder.write_all(&self.buffer)?;
            return encoder.finish();
        }
        self.send()?;
        self.join()
    }
}

impl<W: Write + Send + 'static> Write for ZstdWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        if self.buffer.len() == CHUNK {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn encoder<W: Write>(sink: W, level: u32) -> io::Result<zstd::Encoder<'static, W>> {
    zstd::Encoder::new(sink, level.cast_signed())
}

fn died() -> io::Error {
    io::Error::other("the compressor ended early")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zstd(content: &[u8], step: usize) -> Vec<u8> {
        let mut writer = ZstdWriter::new(Vec::new(), 3);
        for piece in content.chunks(step) {
            writer.write_all(piece).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn zstd_reads_back_and_does_not_depend_on_how_it_is_written() {
        for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 7] {
            let content: Vec<u8> = (0..size).map(|n| (n * n % 251) as u8).collect();
            let packed = zstd(&content, 4096);
            assert_eq!(zstd::decode_all(&packed[..]).unwrap(), content, "{size}");
            assert_eq!(zstd(&content, 777_777), packed, "{size}");
        }
    }

    #[test]
    fn zstd_does_not_depend_on_threads() {
        let content: Vec<u8> =
            (0..30 * CHUNK as u64).map(|n| (n.wrapping_mul(n >> 7) % 251) as u8).collect();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| zstd(&content, 100_000))
        };
        let expected = with(1);
        assert_eq!(zstd::decode_all(&expected[..]).unwrap(), content);
        for threads in [2, 3, 8] {
            assert!(with(threads) == expected, "{threads}");
        }
    }

    #[test]
    fn a_sink_that_fails_is_told() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let noise: Vec<u8> = (0..20 * CHUNK as u64)
            .map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
            .collect();
        for compression in [Compression::Gzip, Compression::Zstd] {
            let packing = Packing { compression, ..Packing::default() };
            let mut writer = Compressor::new(Full, packing);
            let result = writer.write_all(&noise).and_then(|()| writer.finish().map(drop));
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull, "{compression:?}");
        }
    }
}

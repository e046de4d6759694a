//! Tar archives of files whose bytes are in the store. For the same files, they have the same bytes
//! as the archives of BuildKit's exporters.

#![expect(clippy::disallowed_methods, reason = "the user names the destination")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use kiln_oci::Digest;
use kiln_store::Store;

use crate::destination::NewFile;
use crate::error::{Error, Result};
use crate::export::ExportContext;

/// The destination of an archive or of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The path of a file.
    Path(PathBuf),
    /// The path of a directory that receives several files.
    Directory(PathBuf),
    /// The standard output of the process.
    Stdout,
}

/// The size of a tar block in bytes.
const BLOCK: u64 = 512;

/// The content of a file of an archive or a layout.
pub(crate) enum Body {
    /// The bytes of a document in memory.
    Bytes(Vec<u8>),
    /// The digest of a blob in the store.
    Blob(Digest),
}

/// The files of an archive or a layout, by path. A file that several documents refer to is included
/// once.
#[derive(Default)]
pub(crate) struct Files(BTreeMap<String, Body>);

impl Files {
    pub(crate) fn insert(&mut self, path: &str, bytes: Vec<u8>) {
        self.0.insert(path.to_owned(), Body::Bytes(bytes));
    }

    pub(crate) fn insert_blob(&mut self, digest: &Digest, body: Body) {
        self.0.insert(blob_path(digest), body);
    }

    /// Removes a blob from the files.
    pub(crate) fn remove_blob(&mut self, digest: &Digest) {
        self.0.remove(&blob_path(digest));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Body)> {
        self.0.iter().map(|(path, body)| (path.as_str(), body))
    }
}

/// Returns the path of a blob in an OCI layout.
pub(crate) fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Writes the files to a directory, or as a tar to another destination.
pub(crate) fn write(
    files: &Files,
    dest: &Destination,
    context: &mut ExportContext<'_>,
) -> Result<()> {
    match dest {
        Destination::Directory(path) => write_directory(files, path, context),
        _ => to_stream(dest, context, |mut sink, store| fill(files, &mut sink, store)),
    }
}

/// Writes the files as a tar to a stream.
pub(crate) fn write_stream(
    files: &Files,
    stream: &mut (dyn Write + Send),
    store: &Store,
) -> io::Result<()> {
    fill(files, &mut Sink::Stream(stream), store)
}

/// Returns the approximate size of the tar in bytes. Blobs that the store doesn't have count as
/// empty.
pub(crate) fn size(files: &Files, store: &Store) -> u64 {
    let size = |body: &Body| match body {
        Body::Bytes(bytes) => bytes.len() as u64,
        Body::Blob(digest) => store.content().size(digest).ok().flatten().unwrap_or_default(),
    };
    let padded = files.iter().map(|(_, body)| size(body).next_multiple_of(BLOCK) + BLOCK);
    padded.sum::<u64>() + 4 * BLOCK
}

fn fill(files: &Files, sink: &mut Sink<'_>, store: &Store) -> io::Result<()> {
    for dir in ["blobs/", "blobs/sha256/"] {
        sink.write(&header(dir, tar::EntryType::Directory, 0o755, 0)?)?;
    }
    for (path, body) in files.iter() {
        match body {
            Body::Bytes(bytes) => {
                let size = bytes.len() as u64;
                sink.write(&header(path, tar::EntryType::Regular, mode(path), size)?)?;
                sink.write(bytes)?;
                sink.pad(size)?;
            }
            Body::Blob(digest) => {
                let mut file = store.content().open(digest).map_err(io::Error::other)?;
                let size = file.metadata()?.len();
                sink.write(&header(path, tar::EntryType::Regular, mode(path), size)?)?;
                sink.copy(&mut file, size)?;
                sink.pad(size)?;
            }
        }
    }
    sink.write(&[0; 1024])
}

/// Calls `fill` with a sink to a new file, which appears under its name once it is complete, or to
/// standard output. Returns an error for a directory.
pub(crate) fn to_stream(
    dest: &Destination,
    context: &mut ExportContext<'_>,
    fill: impl FnOnce(Sink<'_>, &Store) -> io::Result<()>,
) -> Result<()> {
    match dest {
        Destination::Path(path) | Destination::Directory(path) => {
            let mut new = NewFile::create(path)?;
            let target = new.target().to_owned();
            fill(Sink::File(new.file()), context.store).map_err(Error::io("write", target))?;
            new.commit()
        }
        Destination::Stdout => {
            let failed = Error::io("write", PathBuf::from("standard output"));
            let store = context.store;
            fill(Sink::Stream(&mut *context.stdout), store)
                .and_then(|()| context.stdout.flush())
                .map_err(failed)
        }
    }
}

/// The sink of an archive. Files have a variant of their own because the kernel can copy between
/// files directly.
pub(crate) enum Sink<'a> {
    File(&'a mut File),
    Stream(&'a mut (dyn Write + Send)),
}

impl Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream().write_all(bytes)
    }

    pub(crate) fn stream(&mut self) -> &mut dyn Write {
        match self {
            Self::File(file) => file,
            Self::Stream(stream) => stream,
        }
    }

    /// Copies exactly `size` bytes.
    fn copy(&mut self, from: &mut File, size: u64) -> io::Result<()> {
        let mut from = from.take(size);
        let copied = match self {
            Self::File(file) => io::copy(&mut from, *file)?,
            Self::Stream(stream) => io::copy(&mut from, *stream)?,
        };
        if copied == size { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = (size % 512) as usize;
        if over == 0 { Ok(()) } else { self.write(&[0; 512][over..]) }
    }
}

/// Writes the files to a directory. The index comes last, so that a reader never misses a blob that
/// it names.
fn write_directory(files: &Files, dest: &Path, context: &ExportContext<'_>) -> Result<()> {
    let blobs = dest.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(Error::io("create", &blobs))?;
    let (late, early): (Vec<_>, Vec<_>) = files.iter().partition(|(path, _)| *path == "index.json");
    for (path, body) in early.into_iter().chain(late) {
        let path = dest.join(path);
        let mut new = NewFile::create(&path)?;
        match body {
            Body::Bytes(bytes) => new.file().write_all(bytes).map_err(Error::io("write", path))?,
            Body::Blob(digest) => {
                let mut blob = context.store.content().open(digest)?;
                io::copy(&mut blob, new.file()).map_err(Error::io("write", path))?;
            }
        }
        new.commit()?;
    }
    Ok(())
}

/// Returns the mode of a file. Documents that tools modify are writable.
fn mode(path: &str) -> u32 {
    if matches!(path, "index.json" | "manifest.json") { 0o644 } else { 0o444 }
}

/// Returns a tar header that depends only on the arguments.
fn header(path: &str, kind: tar::EntryType, mode: u32, size: u64) -> io::Result<[u8; 512]> {
    let mut header = tar::Header::new_ustar();
    header.set_path(Path::new(path))?;
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_device_major(0)?;
    header.set_device_minor(0)?;
    let mut block = *header.as_bytes();
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    // Go's format of the checksum.
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    Ok(block)
}

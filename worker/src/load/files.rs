//! The files of an archive, read in one pass.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write as _};

use kiln_oci::Digest;
use kiln_store::{Content, LayerBlob};
use kiln_tree::TarReader;
use kiln_tree::tar_reader::EntryType;

use super::LoadOptions;
use crate::error::{Error, Result};

/// Files up to this size are held in memory,
const SMALL: u64 = 256 << 10;
/// as long as all of them together are no larger.
const ALL_SMALL: u64 = 32 << 20;
/// Most bytes of the names of all files.
const ALL_NAMES: usize = 32 << 20;
/// How many links lead from one to the next at most.
const LINKS: usize = 8;
/// Bytes read at a time.
const CHUNK: usize = 256 << 10;

/// The files of an archive.
pub(super) struct ArchiveFiles {
    content: Content,
    files: HashMap<String, Entry>,
    pub(super) known: KnownLayers,
}

/// The layers that were unpacked before: an archive may name the same file a million times.
#[derive(Default)]
pub(super) struct KnownLayers {
    /// Blobs and the diff IDs that they have.
    pub(super) verified: RefCell<HashSet<(Digest, Digest)>>,
    /// Layers by their paths.
    pub(super) layers: RefCell<HashMap<String, LayerBlob>>,
}

/// A file.
enum Entry {
    /// A small one.
    Bytes(Vec<u8>),
    /// A blob of the store.
    Blob(Digest, u64),
    /// A link to another file, by its path in the archive.
    Link(String),
}

impl ArchiveFiles {
    /// Reads an archive.
    pub(super) fn read(archive: impl Read + Send, options: &LoadOptions) -> Result<Self> {
        let failed = |error| Error::kernel("read", "the archive")(error);
        let (mut plain, _) = options.limits.decompress(archive).map_err(failed)?;
        let mut reading = Reading {
            files: Self {
                content: options.store.content(),
                files: HashMap::new(),
                known: KnownLayers::default(),
            },
            small: 0,
            names: 0,
            entries: 0,
            buffer: vec![0; CHUNK],
        };
        let mut reader = TarReader::new(&mut plain);
        while let Some(entry) = reader.next_entry().map_err(failed)? {
            reading.entries += 1;
            if options.limits.max_entries.is_some_and(|most| reading.entries > most) {
                return Err(Error::image("the archive", "it exceeds the limit of entries"));
            }
            let Some(name) = normal(&[], &entry.name) else { continue };
            let link = match entry.kind {
                EntryType::Regular | EntryType::Continuous if entry.segments.is_none() => None,
                EntryType::Link => normal(&[], &entry.link),
                EntryType::Symlink => normal(parent(&name), &entry.link),
                _ => continue,
            };
            reading.names += name.len() + link.as_ref().map_or(0, String::len);
            if reading.names > ALL_NAMES {
                return Err(Error::image("the archive", "its names exceed the limit"));
            }
            let found = match (entry.kind, link) {
                (EntryType::Regular | EntryType::Continuous, _) => {
                    reading.file(&name, entry.size, &mut reader)?
                }
                (_, Some(link)) => Entry::Link(link),
                // It leads out of the archive.
                (_, None) => continue,
            };
            // Of several the last one counts, as if all were unpacked.
            reading.files.files.insert(name, found);
        }
        // What follows the end is read, that whoever writes it isn't cut off.
        io::copy(&mut plain, &mut io::sink()).map_err(failed)?;
        Ok(reading.files)
    }

    /// Tells whether there is a file.
    pub(super) fn contains(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    /// Returns the paths of all files.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Returns the bytes of a document of at most `limit` bytes.
    pub(super) fn document(&self, path: &str, limit: u64) -> Result<Vec<u8>> {
        match self.find(path) {
            None => Err(missing(path)),
            Some(Entry::Bytes(bytes)) if bytes.len() as u64 <= limit => Ok(bytes.clone()),
            Some(Entry::Blob(digest, size)) if *size <= limit => {
                Ok(self.content.read(digest, limit)?)
            }
            Some(_) => Err(Error::image(path, format!("is larger than {limit} bytes"))),
        }
    }

    /// Sees to it that a file is a blob of the store, and returns its digest and size.
    pub(super) fn blob(&self, path: &str) -> Result<(Digest, u64)> {
        match self.find(path) {
            None | Some(Entry::Link(_)) => Err(missing(path)),
            Some(Entry::Blob(digest, size)) => Ok((*digest, *size)),
            Some(Entry::Bytes(bytes)) => {
                let blob = self.content.put(bytes)?;
                Ok((blob.digest, blob.size))
            }
        }
    }

    /// Follows links; `None` where there is nothing at their end.
    fn find(&self, path: &str) -> Option<&Entry> {
        let mut path = normal(&[], path.as_bytes())?;
        for _ in 0..LINKS {
            match self.files.get(&path)? {
                Entry::Link(next) => path.clone_from(next),
                entry => return Some(entry),
            }
        }
        None
    }
}

/// An archive that is being read.
struct Reading {
    files: ArchiveFiles,
    /// Bytes of small files.
    small: u64,
    /// Bytes of names.
    names: usize,
    entries: u64,
    buffer: Vec<u8>,
}

impl Reading {
    fn file(&mut self, name: &str, size: u64, reader: &mut TarReader<'_>) -> Result<Entry> {
        let failed = |error| Error::kernel("read", name)(error);
        // What the store has already needn't be written once more.
        let named = name.strip_prefix("blobs/sha256/");
        let named = named.and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
        if let Some(digest) = named
            && self.files.content.hold(&digest)?
            && self.files.content.size(&digest)? == Some(size)
        {
            return Ok(Entry::Blob(digest, size));
        }
        if size <= SMALL && self.small + size <= ALL_SMALL {
            self.small += size;
            let mut bytes = Vec::with_capacity(size as usize);
            self.pass(reader, |part| {
                bytes.extend_from_slice(part);
                Ok(())
            })
            .map_err(failed)?;
            if let Some(digest) = named {
                check(&digest, Digest::of(&bytes))?;
            }
            return Ok(Entry::Bytes(bytes));
        }
        let mut writer = self.files.content.writer()?;
        self.pass(reader, |part| writer.write_all(part)).map_err(failed)?;
        let blob = writer.commit(named.as_ref())?;
        Ok(Entry::Blob(blob.digest, blob.size))
    }

    /// Passes the content of the entry that the reader is at on.
    fn pass(
        &mut self,
        reader: &mut TarReader<'_>,
        mut to: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        loop {
            match reader.read(&mut self.buffer)? {
                0 => return Ok(()),
                length => to(&self.buffer[..length])?,
            }
        }
    }
}

fn check(expected: &Digest, actual: Digest) -> Result<()> {
    if *expected == actual {
        return Ok(());
    }
    Err(kiln_store::Error::DigestMismatch { expected: *expected, actual }.into())
}

fn missing(path: &str) -> Error {
    Error::image(path, "is not in the archive")
}

/// Returns the components of a path's parent.
fn parent(path: &str) -> &[u8] {
    path.rsplit_once('/').map_or(&[], |(parent, _)| parent.as_bytes())
}

/// Returns a path below `base` without `.`, `..` and double slashes; `None` where it is the root, leads
/// out of it, or isn't UTF-8.
fn normal(base: &[u8], path: &[u8]) -> Option<String> {
    let mut parts: Vec<&[u8]> = Vec::new();
    let base = if path.starts_with(b"/") { &[] } else { base };
    for part in base.split(|byte| *byte == b'/').chain(path.split(|byte| *byte == b'/')) {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    let path = String::from_utf8(parts.join(&b'/')).ok()?;
    (!path.is_empty()).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_archive() {
        for (base, path, expected) in [
            ("", "./a//b", Some("a/b")),
            ("", "/a", Some("a")),
            ("x/y", "../z/layer.tar", Some("x/z/layer.tar")),
            ("x", "../../y", None),
            ("x", "/y", Some("y")),
            ("", "..", None),
            ("", ".", None),
            ("", "a/..", None),
        ] {
            let found = normal(base.as_bytes(), path.as_bytes());
            assert_eq!(found.as_deref(), expected, "{base} {path}");
        }
    }
}

//! The files of an archive, read in one pass.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write as _};

use kiln_oci::Digest;
use kiln_store::{Content, LayerBlob};
use kiln_tree::EntryType;
use kiln_tree::TarReader;

use super::LoadOptions;
use crate::error::{Error, Result};

/// The maximum size in bytes of a file that stays in memory.
const SMALL: u64 = 256 << 10;
/// The maximum total size in bytes of the files in memory.
const ALL_SMALL: u64 = 32 << 20;
/// The maximum total size in bytes of all names.
const ALL_NAMES: usize = 32 << 20;
/// The maximum number of links from a path to its file.
const LINKS: usize = 8;
/// The number of bytes that are read at a time.
const CHUNK: usize = 256 << 10;

/// The files of an archive by path.
pub(super) struct ArchiveFiles {
    content: Content,
    files: HashMap<String, Entry>,
    pub(super) known: KnownLayers,
}

/// The results of unpacking layers, because an archive may refer to the same file very often.
#[derive(Default)]
pub(super) struct KnownLayers {
    /// The blobs that were verified to have a diff ID.
    pub(super) verified: RefCell<HashSet<(Digest, Digest)>>,
    /// The layers by their paths in the archive.
    pub(super) layers: RefCell<HashMap<String, LayerBlob>>,
}

/// The content of an archive's file.
enum Entry {
    /// The bytes of a small file.
    Bytes(Vec<u8>),
    /// The digest and size of a blob in the store.
    Blob(Digest, u64),
    /// The path of the file that a link leads to.
    Link(String),
}

impl ArchiveFiles {
    /// Reads all files of an archive.
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
                // The link leads out of the archive.
                (_, None) => continue,
            };
            // The last entry of a name counts, as in unpacking.
            reading.files.files.insert(name, found);
        }
        // The rest is read so that the writer of a pipe can finish.
        io::copy(&mut plain, &mut io::sink()).map_err(failed)?;
        Ok(reading.files)
    }

    /// Returns `true` if the archive has a file at `path`.
    pub(super) fn contains(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    /// Returns the paths of all files and links.
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

    /// Stores a file as a blob if necessary. Returns its digest and size.
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

    /// Returns the file at a path after following links. Returns `None` if there is none.
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

/// The state of reading an archive.
struct Reading {
    files: ArchiveFiles,
    /// The total size of the files in memory.
    small: u64,
    /// The total size of the names.
    names: usize,
    entries: u64,
    buffer: Vec<u8>,
}

impl Reading {
    fn file(&mut self, name: &str, size: u64, reader: &mut TarReader<'_>) -> Result<Entry> {
        let failed = |error| Error::kernel("read", name)(error);
        // A blob that the store already has isn't written again.
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

    /// Passes the content of the reader's current entry to `to`.
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

/// Returns the path of a path's parent.
fn parent(path: &str) -> &[u8] {
    path.rsplit_once('/').map_or(&[], |(parent, _)| parent.as_bytes())
}

/// Returns a path below `base` without `.`, `..` and double slashes. Returns `None` if it is the
/// root, leads outside, or isn't UTF-8.
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

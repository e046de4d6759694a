//! The transfer of files and blobs to the client. Its functions block.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::io::Read;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kiln_event::Reporter;
use kiln_exporter::{BlobReceiver, ExportedFiles, FileAttestation, FilesReceiver, OpenBlob};
use kiln_oci::Digest;
use kiln_tree::{FileKind, Metadata, Owner, Timestamp, View};
use tokio::runtime::Handle;

use crate::session::{Content, ContentStore, OutgoingEntry, Session};

/// The metadata that tells a client to remove other files.
const MULTI_PLATFORM: &str = "buildkit-exporter-multi-platform";
/// The number of bytes of a blob that are read at once.
const PIECE: usize = 1 << 20;

type Result<T, E = Box<dyn StdError + Send + Sync>> = std::result::Result<T, E>;

/// A directory of the client.
#[derive(Debug)]
pub(super) struct ToDirectory {
    session: Session,
    /// The position of the output in the request.
    number: u32,
    deletes: bool,
    runtime: Handle,
}

impl ToDirectory {
    /// Must be called within a Tokio runtime.
    pub(super) fn new(session: Session, number: u32, deletes: bool) -> Self {
        Self { session, number, deletes, runtime: Handle::current() }
    }
}

impl FilesReceiver for ToDirectory {
    fn receive(&self, files: Vec<ExportedFiles>, progress: &Reporter) -> Result<()> {
        progress.status("copying files", 0, None, false);
        let entries = entries(files)?;
        let metadata: &[(&str, &str)] = if self.deletes { &[(MULTI_PLATFORM, "1")] } else { &[] };
        let sent = self.session.send_directory(self.number, entries, metadata);
        self.runtime.block_on(sent)?;
        progress.status("copying files", 0, None, true);
        Ok(())
    }
}

/// Lists the files of all images. Images that share a directory share its directories, too.
fn entries(files: Vec<ExportedFiles>) -> Result<Vec<OutgoingEntry>> {
    let (mut entries, mut seen) = (Vec::new(), HashSet::new());
    for ExportedFiles { below, dir, epoch, attestations } in files {
        let dir = Arc::new(dir);
        let time = epoch.map(|seconds| Timestamp { seconds, nanoseconds: 0 });
        let root = dir.metadata(std::path::Path::new("/"), false)?;
        let mut own = OutgoingEntry::list(&dir, View::of(&dir))?;
        if let Some(root) = root {
            own.extend(attestations.into_iter().map(|file| statement(file, &root)));
        }
        for entry in &mut own {
            if let Some(below) = &below {
                entry.path = [below.as_bytes(), b"/", &entry.path].concat();
            }
            entry.metadata.mtime = time.unwrap_or(entry.metadata.mtime);
        }
        if let (Some(below), Some(root)) = (below, dir.metadata(std::path::Path::new("/"), false)?)
        {
            let mtime = time.unwrap_or(root.mtime);
            let metadata = Metadata { mode: 0o755, owner: Owner::default(), mtime, ..root };
            own.push(OutgoingEntry {
                path: below.into_bytes(),
                metadata,
                target: Vec::new(),
                xattrs: Vec::new(),
                content: Content::None,
            });
        }
        own.retain(|entry| seen.insert(entry.path.clone()));
        entries.extend(own);
    }
    Ok(entries)
}

/// Returns the entry of a file with an attestation, in a directory with this root.
fn statement(file: FileAttestation, root: &Metadata) -> OutgoingEntry {
    let metadata = Metadata {
        kind: FileKind::File,
        mode: 0o600,
        owner: Owner::default(),
        size: file.bytes.len() as u64,
        inode: 0,
        links: 1,
        blocks: 0,
        ..*root
    };
    OutgoingEntry {
        path: file.name.into_bytes(),
        metadata,
        target: Vec::new(),
        xattrs: Vec::new(),
        content: Content::Bytes(Bytes::from(file.bytes)),
    }
}

/// A store of the client.
#[derive(Debug)]
pub(crate) struct ToStore {
    store: ContentStore,
    runtime: Handle,
}

impl ToStore {
    /// Must be called within a Tokio runtime.
    pub(crate) fn new(store: ContentStore) -> Self {
        Self { store, runtime: Handle::current() }
    }
}

impl BlobReceiver for ToStore {
    fn receive(&self, digest: &Digest, size: u64, open: &OpenBlob<'_>) -> Result<()> {
        let begun = self.runtime.block_on(self.store.write(&digest.to_string(), size, digest))?;
        let Some(mut writer) = begun else { return Ok(()) };
        if writer.offset() > 0 {
            // The rest of an interrupted transfer.
            self.runtime.block_on(writer.restart())?;
        }
        let mut blob = open()?;
        loop {
            let mut piece = BytesMut::zeroed(PIECE);
            let count = read_piece(&mut blob, &mut piece)?;
            if count == 0 {
                break;
            }
            piece.truncate(count);
            self.runtime.block_on(writer.write(piece.freeze()))?;
        }
        self.runtime.block_on(writer.commit(digest, std::collections::BTreeMap::new()))?;
        Ok(())
    }
}

/// Fills a buffer as far as the bytes reach.
fn read_piece(from: &mut dyn Read, piece: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match from.read(&mut piece[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use kiln_tree::Dir;

    use super::*;

    fn files(dir: &std::path::Path, below: Option<&str>, said: &str) -> ExportedFiles {
        ExportedFiles {
            below: below.map(str::to_owned),
            dir: Dir::open(dir).unwrap(),
            epoch: Some(7),
            attestations: vec![FileAttestation { name: said.to_owned(), bytes: b"{}".to_vec() }],
        }
    }

    #[test]
    fn platforms_have_directories_or_share_one() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("d")).unwrap();
        std::fs::write(temp.path().join("d/f"), "x").unwrap();
        let paths = |below: &[Option<&str>]| {
            let names = ["one.json", "two.json"];
            let all = below.iter().zip(names).map(|(below, said)| files(temp.path(), *below, said));
            let entries = entries(all.collect()).unwrap();
            assert!(entries.iter().all(|entry| entry.metadata.mtime.seconds == 7));
            let path = |entry: OutgoingEntry| String::from_utf8(entry.path).unwrap();
            let mut paths: Vec<String> = entries.into_iter().map(path).collect();
            paths.sort();
            paths
        };
        assert_eq!(paths(&[None, None]), ["d", "d/f", "one.json", "two.json"]);
        let split = paths(&[Some("a"), Some("b")]);
        assert_eq!(split, ["a", "a/d", "a/d/f", "a/one.json", "b", "b/d", "b/d/f", "b/two.json"]);
    }
}

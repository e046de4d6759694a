//! A builder of archives, and a test root with a canary beside it.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt};

use super::super::*;
use crate::tar_writer::{Fields, encode};
use crate::walk::{self, Entry};

/// An archive under construction.
#[derive(Default)]
pub(super) struct Archive(pub(super) Vec<u8>);

pub(super) fn fields<'a>(kind: u8, name: &'a [u8], link: &'a [u8]) -> Fields<'a> {
    Fields {
        name,
        kind,
        link,
        mode: if kind == b'5' { 0o755 } else { 0o644 },
        uid: 0,
        gid: 0,
        size: 0,
        mtime: 1_000_000_000,
        device: (0, 0),
        xattrs: &[],
    }
}

impl Archive {
    pub(super) fn add(mut self, fields: &Fields<'_>, content: &[u8]) -> Self {
        self.0.extend(encode(&Fields { size: content.len() as u64, ..fields.clone() }));
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn file(self, name: &str, content: &str) -> Self {
        self.add(&fields(b'0', name.as_bytes(), b""), content.as_bytes())
    }

    pub(super) fn dir(self, name: &str, mode: u32) -> Self {
        self.add(&Fields { mode, ..fields(b'5', name.as_bytes(), b"") }, b"")
    }

    pub(super) fn symlink(self, name: &str, target: &str) -> Self {
        self.add(&fields(b'2', name.as_bytes(), target.as_bytes()), b"")
    }

    pub(super) fn link(self, name: &str, target: &str) -> Self {
        self.add(&fields(b'1', name.as_bytes(), target.as_bytes()), b"")
    }

    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub(super) fn pax(self, records: &[u8]) -> Self {
        let data: Vec<u8> = records.to_vec();
        self.add(&fields(b'x', b"PaxHeaders.0/x", b""), &data)
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

/// A root with a canary beside it.
pub(super) struct Field {
    pub(super) temp: tempfile::TempDir,
    pub(super) dir: Dir,
    canary: Vec<String>,
}

/// Returns all entries of a tree except its root.
fn everything(dir: &Dir) -> Vec<Entry> {
    walk::entries(crate::View::of(dir), Path::new("/")).unwrap().split_off(1)
}

pub(super) fn describe(root: &Path) -> Vec<String> {
    let dir = Dir::open(root).unwrap();
    let found = everything(&dir);
    let line = |entry: &Entry| {
        let path = root.join(names::path(&entry.path.to_vec()));
        let content =
            if entry.metadata.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        let metadata = &entry.metadata;
        let (kind, mode, owner) = (metadata.kind, metadata.mode, metadata.owner);
        format!(
            "{} {kind:?} {mode:o} {owner:?} {:?} {content:?}",
            names::path(&entry.path.to_vec()).display(),
            metadata.mtime
        )
    };
    found.iter().map(line).collect()
}

impl Field {
    pub(super) fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap())
    }

    /// Creates a field in memory, for tests that create tens of thousands of files.
    pub(super) fn in_memory() -> Self {
        Self::at(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap())
    }

    pub(super) fn at(temp: tempfile::TempDir) -> Self {
        let canary = temp.path().join("canary");
        std::fs::create_dir_all(canary.join("sub")).unwrap();
        std::fs::write(canary.join("secret"), "the secret").unwrap();
        std::fs::set_permissions(canary.join("secret"), PermissionsExt::from_mode(0o4700)).unwrap();
        std::fs::set_permissions(&canary, PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::create_dir(temp.path().join("root")).unwrap();
        let dir = Dir::open(&temp.path().join("root")).unwrap();
        let mut field = Self { temp, dir, canary: Vec::new() };
        field.canary = field.outside();
        field
    }

    pub(super) fn root(&self) -> PathBuf {
        self.temp.path().join("root")
    }

    /// Returns a description of all files outside of the root, and of the canary's metadata.
    pub(super) fn outside(&self) -> Vec<String> {
        let mut lines = describe(&self.temp.path().join("canary"));
        let canary = std::fs::metadata(self.temp.path().join("canary")).unwrap();
        lines.push(format!("{:o} {} {}", canary.mode(), canary.mtime(), canary.nlink()));
        lines.extend(
            std::fs::read_dir(self.temp.path())
                .unwrap()
                .map(|entry| format!("{:?}", entry.unwrap())),
        );
        lines
    }

    pub(super) fn unpack(&self, archive: Archive) -> Result<Unpacked> {
        self.unpack_with(&archive.end(), UnpackOptions { whiteouts: true, ..Default::default() })
    }

    pub(super) fn unpack_with(&self, archive: &[u8], options: UnpackOptions) -> Result<Unpacked> {
        let result = unpack(&mut &archive[..], &self.dir, options);
        assert_eq!(self.outside(), self.canary, "the canary has changed");
        let secret = b"the secret";
        for entry in everything(&self.dir) {
            if entry.metadata.is_file() {
                let content =
                    std::fs::read(self.root().join(names::path(&entry.path.to_vec()))).unwrap();
                assert!(
                    !content.windows(secret.len()).any(|part| part == secret),
                    "a secret leaked"
                );
            }
        }
        result
    }

    pub(super) fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.root().join(path)).unwrap()
    }

    pub(super) fn names(&self) -> Vec<String> {
        let found = everything(&self.dir);
        found.into_iter().map(|entry| String::from_utf8(entry.path.to_vec()).unwrap()).collect()
    }
}

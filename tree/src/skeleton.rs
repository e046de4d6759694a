//! Skeletons: the trees of layers, derived from their archives without unpacking.
//!
//! A copy that goes directly into an archive needs to know two things about the tree below: where
//! the path of its destination leads, and which of the copied files exist already. A [`Skeleton`]
//! provides this. It is built from the [`Manifest`]s of a chain of layers, base first. A manifest
//! is read from an archive once and stored as bytes.
//!
//! A manifest has no contents. If a comparison needs the content of a file, the skeleton records
//! the request ([`Skeleton::wanted`]). A caller that can read the archive again computes the
//! digests ([`contents`]) and passes them on ([`Skeleton::learn`]).
//!
//! A skeleton has the same entries that `unpack` would create from the archives, including parents
//! without entries of their own, deletions, and directories of several layers. If an archive is
//! malformed or unusual (an entry lies behind a link, or a hard link has no target), there is no
//! skeleton ([`Skeleton::add`] returns `false`), and the caller must unpack the archive.

mod contents;
mod manifest;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use kiln_oci::Digest;
use rustix::io::Errno;

use crate::below::Below;
use crate::error::{Error, Result};
use crate::ids::Ids;
use crate::metadata::{FileKind, Metadata, Owner, Timestamp};
use crate::names;
pub use contents::contents;
pub use manifest::Manifest;
use manifest::{Attributes, Kind, Record};

/// The number of links that BuildKit follows to find a real path.
const LINKS: u32 = 255;
/// The prefix of a deletion's name.
const WHITEOUT: &[u8] = b".wh.";
/// The size of an entry whose size is unknown. No file is as large, so none is equal to it.
const UNKNOWN: u64 = u64::MAX;
/// The name of the mark that hides all entries of a directory in the layers below.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// The merged tree of a chain of layers.
#[derive(Debug, Default)]
pub struct Skeleton {
    /// The entries by path, with a zero byte in place of each slash. The entries below a directory
    /// thus follow it.
    nodes: BTreeMap<Vec<u8>, Node>,
    /// The entries that the last layer has created, and the directories above them.
    made: BTreeSet<Vec<u8>>,
    /// The number of layers.
    layers: usize,
    /// The known contents, and the requested ones.
    contents: BTreeMap<Place, Digest>,
    wanted: RefCell<BTreeSet<Place>>,
}

#[derive(Clone, Debug)]
enum Node {
    Directory(Attributes),
    Link(Vec<u8>, Option<Detail>),
    Other(Option<Detail>),
}

/// The properties of an entry other than a directory.
#[derive(Clone, Debug)]
struct Detail {
    kind: FileKind,
    attributes: Attributes,
    size: u64,
    capability: Box<[u8]>,
    place: Place,
}

/// The place of a file's content: the index of the layer, and the name in its archive.
type Place = (usize, Vec<u8>);

impl Skeleton {
    /// Adds a layer on top. Returns `false` if the result is uncertain. The skeleton is useless
    /// then.
    #[must_use]
    pub fn add(&mut self, manifest: &Manifest) -> bool {
        self.made.clear();
        self.layers += 1;
        manifest.records().all(|record| record.is_some_and(|record| self.put(&record).is_some()))
    }

    /// Adds an entry. Returns `None` if the result is uncertain.
    fn put(&mut self, record: &Record<'_>) -> Option<()> {
        let path = names::rooted(record.path);
        let Some((parent, name)) = names::split(&path) else { return Some(()) };
        self.make_parents(names::bytes(parent))?;
        let (name, at) = (names::bytes(name), key(names::bytes(&path)));
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.delete(names::bytes(parent), name, hidden);
        }
        if matches!(record.kind, Kind::Device) && Ids::current().leaves_devices_out() {
            return Some(());
        }
        let stays = matches!(record.kind, Kind::Directory(_))
            && self.nodes.get(&at).is_some_and(Node::is_directory);
        if !stays {
            self.remove(&at);
        }
        let node = match record.kind {
            Kind::Device | Kind::Other => Node::Other(self.detail(record)),
            Kind::Directory(attributes) => Node::Directory(attributes),
            Kind::Symlink => Node::Link(record.target.to_vec(), self.detail(record)),
            Kind::HardLink => self.linked(record.target)?,
        };
        self.nodes.insert(at, node);
        self.made.extend(prefixes(names::bytes(&path)));
        Some(())
    }

    fn detail(&self, record: &Record<'_>) -> Option<Detail> {
        let manifest::Detail { kind, attributes, size, capability } = record.detail?;
        let place = (self.layers - 1, record.path.to_vec());
        Some(Detail { kind, attributes, size, capability: capability.into(), place })
    }

    /// Returns the files with requested but unknown contents, by the index of the layer whose
    /// archive has them.
    pub fn wanted(&self) -> BTreeMap<usize, BTreeSet<Vec<u8>>> {
        let mut wanted: BTreeMap<usize, BTreeSet<Vec<u8>>> = BTreeMap::new();
        for (layer, name) in self.wanted.borrow().iter() {
            wanted.entry(*layer).or_default().insert(name.clone());
        }
        wanted
    }

    /// Adds the digests of files of a layer, and removes the requests for that layer.
    pub fn learn(&mut self, layer: usize, contents: impl IntoIterator<Item = (Vec<u8>, Digest)>) {
        self.wanted.get_mut().retain(|(wanted, _)| *wanted != layer);
        self.contents.extend(contents.into_iter().map(|(name, digest)| ((layer, name), digest)));
    }

    /// Adds the missing directories of a path. Returns `None` if another entry is in the way.
    fn make_parents(&mut self, path: &[u8]) -> Option<()> {
        for at in prefixes(path) {
            match self.nodes.get(&at) {
                Some(node) if node.is_directory() => {}
                Some(_) => return None,
                None => {
                    // The directory counts as created by the layer only if the layer adds an entry
                    // to it. A deletion is none.
                    self.nodes.insert(at, Node::Directory(Attributes::of_parent()));
                }
            }
        }
        Some(())
    }

    /// Returns the entry to which a hard link refers.
    fn linked(&self, target: &[u8]) -> Option<Node> {
        let target = names::rooted(target);
        let target = names::bytes(&target);
        let is_directory = |at: &Vec<u8>| self.nodes.get(at).is_some_and(Node::is_directory);
        let way: Vec<_> = prefixes(target).collect();
        let (last, above) = way.split_last()?;
        let found = self.nodes.get(last).filter(|_| above.iter().all(is_directory))?;
        (!found.is_directory()).then(|| found.clone())
    }

    fn delete(&mut self, parent: &[u8], name: &[u8], hidden: &[u8]) -> Option<()> {
        if name == OPAQUE {
            for at in self.below(&key(parent)) {
                if !self.made.contains(&at) {
                    self.nodes.remove(&at);
                }
            }
            return Some(());
        }
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return None;
        }
        self.remove(&key(&names::join(parent, hidden)));
        Some(())
    }

    /// Removes the entry at a path and all entries below it.
    fn remove(&mut self, at: &[u8]) {
        for below in self.below(at) {
            self.nodes.remove(&below);
        }
        self.nodes.remove(at);
    }

    /// Returns the keys of all entries below a directory.
    fn below(&self, at: &[u8]) -> Vec<Vec<u8>> {
        let mut start = at.to_vec();
        if !at.is_empty() {
            start.push(0);
        }
        let below = self.nodes.range(start.clone()..).map(|(at, _)| at);
        below.take_while(|at| at.starts_with(&start)).cloned().collect()
    }
}

impl Node {
    fn is_directory(&self) -> bool {
        matches!(self, Self::Directory(_))
    }

    fn metadata(&self) -> Metadata {
        match self {
            Node::Directory(attributes) => metadata(FileKind::Directory, *attributes, 0),
            Node::Link(_, Some(detail)) | Node::Other(Some(detail)) => {
                metadata(detail.kind, detail.attributes, detail.size)
            }
            Node::Link(_, None) => metadata(FileKind::Symlink, Attributes::of_parent(), UNKNOWN),
            Node::Other(None) => metadata(FileKind::File, Attributes::of_parent(), UNKNOWN),
        }
    }

    fn detail(&self) -> Option<&Detail> {
        match self {
            Node::Directory(_) => None,
            Node::Link(_, detail) | Node::Other(detail) => detail.as_ref(),
        }
    }
}

fn metadata(kind: FileKind, attributes: Attributes, size: u64) -> Metadata {
    let Attributes { mode, owner, mtime } = attributes;
    Metadata {
        kind,
        mode,
        owner,
        size,
        mtime,
        ctime: Timestamp::default(),
        device: 0,
        inode: 0,
        links: 1,
        blocks: 0,
    }
}

impl Attributes {
    /// Returns the attributes of a parent directory without an entry.
    fn of_parent() -> Self {
        Self { mode: 0o755, owner: Owner::default(), mtime: Timestamp::default() }
    }
}

impl Below for Skeleton {
    fn entry(&self, path: &Path) -> Result<Option<Metadata>> {
        let path = names::rooted(names::bytes(path));
        let Some((parent, name)) = names::split(&path) else {
            return Ok(Some(metadata(FileKind::Directory, Attributes::of_parent(), 0)));
        };
        match self.resolve(parent) {
            Ok(parent) => {
                let at = key(names::bytes(&parent.join(name)));
                Ok(self.nodes.get(&at).map(Node::metadata))
            }
            Err(Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(Error::io("stat", &path, errno)),
        }
    }

    fn capability(&self, path: &Path) -> Result<Vec<u8>> {
        let detail = self.nodes.get(&key(names::bytes(path))).and_then(Node::detail);
        Ok(detail.map(|detail| detail.capability.to_vec()).unwrap_or_default())
    }

    fn content(&self, path: &Path) -> Result<Option<Digest>> {
        let node = self.nodes.get(&key(names::bytes(path)));
        if let Some(Node::Link(target, _)) = node {
            return Ok(Some(Digest::of(target)));
        }
        let Some(Detail { place, .. }) = node.and_then(Node::detail) else { return Ok(None) };
        let known = self.contents.get(place).copied();
        if known.is_none() {
            self.wanted.borrow_mut().insert(place.clone());
        }
        Ok(known)
    }

    fn real_path(&self, path: &Path) -> Result<PathBuf> {
        let path = names::rooted(names::bytes(path));
        self.resolve(&path).map_err(|errno| Error::io("resolve", &path, errno))
    }
}

impl Skeleton {
    /// Resolves a path, like `resolve::real_path` in a directory.
    fn resolve(&self, path: &Path) -> Result<PathBuf, Errno> {
        let owned = |name: &[u8]| name.to_vec();
        let mut pending: VecDeque<_> = names::components(names::bytes(path)).map(owned).collect();
        let mut real: Vec<Vec<u8>> = Vec::new();
        // The number of leading names that exist, once a name didn't.
        let mut there: Option<usize> = None;
        let mut links = LINKS;
        while let Some(name) = pending.pop_front() {
            if name == b".." {
                real.pop();
                there = there.filter(|there| real.len() > *there);
                continue;
            }
            real.push(name);
            if there.is_some() {
                continue;
            }
            match self.nodes.get(&real.join(&0)) {
                None => there = Some(real.len() - 1),
                Some(Node::Directory(_)) => {}
                Some(Node::Other(_)) if pending.is_empty() => {}
                Some(Node::Other(_)) => return Err(Errno::NOTDIR),
                Some(Node::Link(target, _)) => {
                    links = links.checked_sub(1).ok_or(Errno::LOOP)?;
                    real.pop();
                    if target.starts_with(b"/") {
                        real.clear();
                    }
                    for name in names::components(target).rev() {
                        pending.push_front(name.to_vec());
                    }
                }
            }
        }
        Ok(names::from_components(&real))
    }
}

/// Returns the key of an absolute, clean path.
fn key(path: &[u8]) -> Vec<u8> {
    names::components(path).collect::<Vec<_>>().join(&0)
}

/// Returns an iterator over the keys of an absolute, clean path and its parents except the root,
/// topmost first.
fn prefixes(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let key = key(path);
    let ends: Vec<usize> = key
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == 0)
        .map(|(end, _)| end)
        .chain((!key.is_empty()).then_some(key.len()))
        .collect();
    ends.into_iter().map(move |end| key[..end].to_vec())
}

#[cfg(test)]
mod tests;

//! Packing a tree into a tar.
//!
//! A [`Plan`] is made first, by a parallel walk: which entries the tar has, in what order, each with
//! its metadata. Then the plan is written, and only then are files read, each byte once and through
//! one buffer. Both halves depend on nothing but the tree, so that the bytes are the same wherever
//! and however often it is packed.
//!
//! What the tar holds is what containerd's layer writer puts there:
//! - no entry for the root; directories with a trailing slash, parents before their children, names
//!   in a directory sorted by bytes; sockets are left out;
//! - whiteouts as empty `.wh.` files without owner, mode or time;
//! - further names of a file that has come before as hard links, whatever their order in the tree;
//! - of the extended attributes only `security.capability`, on links' entries too: whoever unpacks
//!   them changes the owner after linking, which drops the capabilities;
//! - modification times in whole seconds, rounded down; no other times; no names of users.
//!
//! What of an upper directory goes into the tar is told by its [`Changes`], which are found when the
//! layer is made: the tree that it lies on need not be mounted for packing.

mod changed;
mod header;
pub(crate) mod overlay;
mod stream;
#[cfg(test)]
mod tests;
mod together;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd as _;

use crate::changes::Changes;
use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::metadata::{FileKind, Metadata, Timestamp};
use crate::names;
use crate::view::View;
use crate::walk::{self, Entry, EntryPath, Opener};
use header::Header;
pub(crate) use header::{octal, put_sum, record};
use overlay::Deletion;
use stream::Stream;
pub use together::{Conflict, find_conflict, write_together};

/// The only extended attribute that goes into a tar.
pub(crate) const CAPABILITY: &[u8] = b"security.capability";

/// How deletions are kept in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// The tree is an overlay's upper directory: character devices 0/0 and `trusted.overlay.*` (or
    /// `user.overlay.*`) attributes become `.wh.` entries.
    Overlay,
    /// There are none.
    None,
}

/// How to pack.
#[derive(Clone, Copy, Debug)]
pub struct PackOptions {
    /// How deletions are kept.
    pub whiteouts: Whiteouts,
    /// Times later than this are set to this (`SOURCE_DATE_EPOCH`).
    pub clamp_mtime: Option<Timestamp>,
}

/// What was packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// How many entries.
    pub entries: u64,
    /// How many bytes the tar has.
    pub bytes: u64,
}

/// Writes the tree below `dir` to `sink` as a tar whose bytes are a function of its content:
/// entries sorted by path, PAX headers only where needed, numeric owners, no access times.
///
/// # Errors
/// Fails where a file can't be read or changes while it is read, or `sink` fails.
pub fn pack(dir: &Dir, sink: &mut dyn Write, options: PackOptions) -> Result<Packed> {
    Plan::new(dir, options)?.write(sink)
}

/// What the tar of a tree will hold. No file has been read for it.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The directories that files are read from.
    dirs: Vec<&'a Dir>,
    items: Vec<Item>,
    /// The directory of the tar that everything lies in, and its time; `None` for the root.
    below: Option<(Vec<u8>, Timestamp)>,
}

/// An entry of the tar.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) entry: Entry,
    pub(crate) role: Role,
    /// Where a file is read from that doesn't lie under its own path in the first directory.
    pub(crate) origin: Option<Origin>,
}

/// Where a file is that has another name in the tar.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// The directory's number.
    pub(crate) dir: usize,
    /// The path in it, as a walk has it.
    pub(crate) path: EntryPath,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// What the tree has there.
    Itself,
    /// Another name of the item with this index.
    Link(usize),
    /// A mark that something is deleted.
    Mark,
}

impl<'a> Plan<'a> {
    /// Plans the tar of the tree below `dir`.
    ///
    /// # Errors
    /// Fails where the tree can't be walked, or is not whole: overlayfs can leave a file's bytes or
    /// a directory's entries in a layer below.
    pub fn new(dir: &'a Dir, options: PackOptions) -> Result<Self> {
        Self::of_view(View::of(dir), options)
    }

    /// Plans a tar that can be unpacked again: one without paths that readers of archives refuse.
    ///
    /// # Errors
    /// As [`Plan::new`], and where a path is too long.
    pub fn readable(dir: &'a Dir, options: PackOptions) -> Result<Self> {
        Self::of_view(View::of_layer(dir), options)
    }

    fn of_view(view: View<'a>, options: PackOptions) -> Result<Self> {
        let mut entries = walk::entries(view, "/".as_ref())?;
        if options.whiteouts == Whiteouts::Overlay {
            entries = overlay::with_marks_of_overlayfs(entries);
        }
        let items = Vec::with_capacity(entries.len());
        let mut plan = Self { dirs: vec![view.dir], items, below: None };
        let mut names = HashMap::new();
        for mut entry in entries {
            if let Some(clamp) = options.clamp_mtime {
                entry.metadata.mtime = entry.metadata.mtime.min(clamp);
            }
            plan.add(entry, options.whiteouts, &mut names)?;
        }
        Ok(plan)
    }

    /// Plans the tar of a layer whose upper directory is `dir`.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn of_changes(dir: &'a Dir, changes: &Changes) -> Result<Self> {
        if changes.is_empty() {
            return Self::new(
                dir,
                PackOptions { whiteouts: Whiteouts::Overlay, clamp_mtime: None },
            );
        }
        let view = View::of(dir);
        let entries = overlay::with_marks_of_overlayfs(walk::entries(view, "/".as_ref())?);
        let items = changed::items(entries, changes)?;
        Ok(Self::of(vec![dir], items))
    }

    /// Plans a tar of `items`, in their order, whose files are in `dirs`.
    pub(crate) fn of(dirs: Vec<&'a Dir>, items: Vec<Item>) -> Self {
        Self { dirs, items, below: None }
    }

    /// Returns the entries of the tar, in their order.
    pub(crate) fn items(&self) -> &[Item] {
        &self.items
    }

    /// Gives every entry the same time.
    #[must_use]
    pub fn stamped(mut self, mtime: Timestamp) -> Self {
        self.items.iter_mut().for_each(|item| item.entry.metadata.mtime = mtime);
        self
    }

    /// Returns how many entries the tar will have.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Tells whether the tar will have no entries.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Writes the tar.
    ///
    /// # Errors
    /// Fails where a file can't be read or has changed since it was planned, or `sink` fails.
    pub fn write(&self, sink: &mut dyn Write) -> Result<Packed> {
        write_together(std::slice::from_ref(self), sink)
    }

    /// Writes the entries that `skips` doesn't want to skip, and returns how many there were.
    fn write_to(
        &self,
        stream: &mut Stream<'_>,
        mut skips: impl FnMut(&[u8], FileKind) -> bool,
    ) -> Result<u64> {
        let mut openers: Vec<_> = self.dirs.iter().map(|dir| Opener::new(dir)).collect();
        let mut header = Vec::with_capacity(2048);
        let mut entries = 0;
        for item in &self.items {
            let path = self.placed(item.entry.path.to_vec());
            if skips(&path, item.entry.metadata.kind) {
                continue;
            }
            entries += 1;
            let failed = |error| Error::io("pack", &item.entry.shown(), error);
            let file = open(item, &mut openers)?;
            let size = file.as_ref().map_or(0, |(_, size)| *size);
            header.clear();
            self.header(item, (&path, size)).encode(&mut header);
            stream.put(&header).map_err(failed)?;
            if let Some((file, size)) = file {
                stream.put_file(&file, size).map_err(failed)?;
                stream.pad().map_err(failed)?;
            }
        }
        Ok(entries)
    }

    /// Returns where an entry of the tree lies in the tar.
    fn placed(&self, path: Vec<u8>) -> Vec<u8> {
        match &self.below {
            Some((directory, _)) => [directory.as_slice(), &path].join(&b'/'),
            None => path,
        }
    }

    fn add(
        &mut self,
        entry: Entry,
        whiteouts: Whiteouts,
        names: &mut HashMap<(u64, u64), usize>,
    ) -> Result<()> {
        let deletion = match whiteouts {
            Whiteouts::Overlay => overlay::deletion(&entry)?,
            Whiteouts::None => Deletion::None,
        };
        match deletion {
            Deletion::Whiteout => {
                let path = overlay::whiteout(&entry.path.to_vec());
                self.items.push(Item::mark(path));
            }
            Deletion::Opaque => {
                let path = overlay::opaque(&entry.path.to_vec());
                self.add_itself(entry, names);
                self.items.push(Item::mark(path));
            }
            Deletion::None => self.add_itself(entry, names),
        }
        Ok(())
    }

    fn add_itself(&mut self, entry: Entry, names: &mut HashMap<(u64, u64), usize>) {
        if entry.path.is_empty() || entry.metadata.kind == FileKind::Socket {
            return;
        }
        let mut role = Role::Itself;
        if entry.metadata.links > 1 && !entry.metadata.is_dir() {
            let index = self.items.len();
            let first =
                *names.entry((entry.metadata.device, entry.metadata.inode)).or_insert(index);
            if first != index {
                role = Role::Link(first);
            }
        }
        self.items.push(Item { entry, role, origin: None });
    }

    fn header<'b>(&'b self, item: &'b Item, (path, size): (&'b [u8], u64)) -> Header<'b> {
        let metadata = &item.entry.metadata;
        Header {
            path,
            kind: metadata.kind,
            mode: metadata.mode,
            owner: metadata.owner,
            size,
            mtime: metadata.mtime.seconds,
            target: match item.role {
                Role::Link(first) => Cow::Owned(self.placed(self.items[first].entry.path.to_vec())),
                Role::Itself | Role::Mark => Cow::Borrowed(&item.entry.target),
            },
            is_hard_link: matches!(item.role, Role::Link(_)),
            capability: item.entry.xattr(CAPABILITY).filter(|value| !value.is_empty()),
        }
    }
}

impl Item {
    /// Makes the mark of a deletion.
    fn mark(path: Vec<u8>) -> Self {
        let metadata = Metadata::nothing(FileKind::File);
        let entry = Entry { path: path.into(), metadata, target: Vec::new(), xattrs: Vec::new() };
        Self { entry, role: Role::Mark, origin: None }
    }

    /// Returns how many bytes follow the header.
    fn size(&self) -> u64 {
        if self.role == Role::Itself && self.entry.metadata.is_file() {
            self.entry.metadata.size
        } else {
            0
        }
    }
}

/// Opens the file whose bytes follow the header, if any do, and returns how many they are.
fn open(item: &Item, openers: &mut [Opener<'_>]) -> Result<Option<(File, u64)>> {
    let size = item.size();
    let Some(origin) = &item.origin else {
        let opened = (size > 0).then(|| openers[0].open_entry(&item.entry.path)).transpose()?;
        return Ok(opened.map(|file| (file, size)));
    };
    if item.role != Role::Itself || !item.entry.metadata.is_file() {
        return Ok(None);
    }
    // A file of somebody else's may have changed since it was listed, and is taken as it is.
    let file = openers[origin.dir].open_entry(&origin.path)?;
    let metadata = Metadata::of_fd(file.as_fd())
        .map_err(|errno| Error::io("stat", names::path(&origin.path.to_vec()), errno))?;
    if !metadata.is_file() {
        let path = origin.path.to_vec();
        let path = names::path(&path);
        return Err(Error::invalid(path, "changed its type while it was copied"));
    }
    Ok(Some((file, metadata.size)))
}

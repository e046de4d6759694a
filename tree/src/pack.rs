//! Packing of a tree into a tar.
//!
//! A parallel walk first creates a [`Plan`]: the entries of the tar, in order, with their metadata.
//! Writing the plan then reads the files, each byte once and through one buffer. Both steps depend
//! on nothing but the tree, so the bytes are always the same.
//!
//! The tar has the contents that containerd's layer writer produces:
//! - The root has no entry. Directories have a trailing slash. Parents precede their children, and
//!   the names in a directory are sorted bytewise. Sockets are left out.
//! - Whiteouts are empty `.wh.` files without owner, mode and time.
//! - Further names of an earlier file are hard links, whatever their order in the tree.
//! - The only extended attribute is `security.capability`. The entries of links have it too,
//!   because unpacking changes the owner after linking, which removes the capabilities.
//! - Modification times are rounded down to seconds. There are no other times, and no names of
//!   users.
//!
//! For an upper directory, its [`Changes`] decide about the entries. They are determined when the
//! layer is created, so the tree below need not be mounted for packing.

mod changed;
mod cut;
mod header;
pub(crate) mod overlay;
mod segments;
mod slicer;
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
pub use segments::{ContentDigest, FilePart, Segments, content_of};
pub use slicer::Slicer;
use stream::Stream;
pub use together::{find_conflict, write_together};

/// The only extended attribute that is stored in a tar.
pub(crate) const CAPABILITY: &[u8] = b"security.capability";

/// The representation of deletions in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// The tree is an overlay's upper directory. Character devices 0/0 and `trusted.overlay.*` (or
    /// `user.overlay.*`) attributes become `.wh.` entries.
    Overlay,
    /// The tree has no deletions.
    None,
}

/// The options for packing.
#[derive(Clone, Copy, Debug)]
pub struct PackOptions {
    /// The representation of deletions.
    pub whiteouts: Whiteouts,
    /// The time that replaces all later times (`SOURCE_DATE_EPOCH`).
    pub clamp_mtime: Option<Timestamp>,
}

/// The size of a packed tar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// The number of entries.
    pub entries: u64,
    /// The length of the tar in bytes.
    pub bytes: u64,
}

/// Writes the tree below `dir` to `sink` as a tar whose bytes depend only on its contents: entries
/// sorted by path, PAX headers only if needed, numeric owners, no access times.
///
/// # Errors
/// Fails if a file can't be read or changes while it is read, or if `sink` fails.
pub fn pack(dir: &Dir, sink: &mut dyn Write, options: PackOptions) -> Result<Packed> {
    Plan::new(dir, options)?.write(sink)
}

/// The contents of a tar. Creating it reads no files.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The directories from which files are read.
    dirs: Vec<&'a Dir>,
    items: Vec<Item>,
    /// The directory of the tar that contains all entries, and its time; `None` for the root.
    below: Option<(Vec<u8>, Timestamp)>,
}

/// An entry of the tar.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) entry: Entry,
    pub(crate) role: Role,
    /// The place of a file that is not at its own path in the first directory.
    pub(crate) origin: Option<Origin>,
}

/// The place of a file that has another name in the tar.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// The index of the directory in [`Plan::dirs`].
    pub(crate) dir: usize,
    /// The path in that directory, as a walk returns it.
    pub(crate) path: EntryPath,
    /// The modification time of the file. The entry's own may have been replaced.
    pub(crate) mtime: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The entry of the tree.
    Itself,
    /// A hard link to the item with this index.
    Link(usize),
    /// The mark of a deletion.
    Mark,
}

impl<'a> Plan<'a> {
    /// Plans the tar of the tree below `dir`.
    ///
    /// # Errors
    /// Fails if the tree can't be walked or is incomplete: overlayfs may keep a file's content or a
    /// directory's entries in a layer below.
    pub fn new(dir: &'a Dir, options: PackOptions) -> Result<Self> {
        Self::of_view(View::of(dir), options)
    }

    /// Plans a tar without paths that archive readers refuse, so that it can be unpacked again.
    ///
    /// # Errors
    /// Fails like [`Plan::new`], and if a path is too long.
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
    /// See [`Plan::new`].
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

    /// Plans a tar of `items`, in their order. Their files are in `dirs`.
    pub(crate) fn of(dirs: Vec<&'a Dir>, items: Vec<Item>) -> Self {
        Self { dirs, items, below: None }
    }

    /// Returns the entries of the tar, in order.
    pub(crate) fn items(&self) -> &[Item] {
        &self.items
    }

    /// Sets the time of every entry to `mtime`.
    #[must_use]
    pub fn stamped(mut self, mtime: Timestamp) -> Self {
        self.items.iter_mut().for_each(|item| item.entry.metadata.mtime = mtime);
        self
    }

    /// Returns the number of entries of the tar.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Returns `true` if the tar has no entries.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Writes the tar to `sink`.
    ///
    /// # Errors
    /// Fails if a file can't be read or has changed since it was planned, or if `sink` fails.
    pub fn write(&self, sink: &mut dyn Write) -> Result<Packed> {
        write_together(std::slice::from_ref(self), sink)
    }

    /// Writes the entries that `skips` doesn't skip, and returns their number.
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
            self.header(item, &path, size).encode(&mut header);
            stream.put(&header).map_err(failed)?;
            if let Some((file, size)) = file {
                stream.put_file(&file, size).map_err(failed)?;
                stream.pad().map_err(failed)?;
            }
        }
        Ok(entries)
    }

    /// Returns the path in the tar of an entry of the tree.
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

    fn header<'b>(&'b self, item: &'b Item, path: &'b [u8], size: u64) -> Header<'b> {
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
    /// Returns the mark of a deletion.
    fn mark(path: Vec<u8>) -> Self {
        let metadata = Metadata::nothing(FileKind::File);
        let entry = Entry { path: path.into(), metadata, target: Vec::new(), xattrs: Vec::new() };
        Self { entry, role: Role::Mark, origin: None }
    }

    /// Returns the number of bytes that follow the header.
    fn size(&self) -> u64 {
        if self.role == Role::Itself && self.entry.metadata.is_file() {
            self.entry.metadata.size
        } else {
            0
        }
    }
}

/// Opens the file whose content follows the header, if there is content. Returns the file and its
/// size.
fn open(item: &Item, openers: &mut [Opener<'_>]) -> Result<Option<(File, u64)>> {
    let size = item.size();
    let Some(origin) = &item.origin else {
        let opened = (size > 0).then(|| openers[0].open_entry(&item.entry.path)).transpose()?;
        return Ok(opened.map(|file| (file, size)));
    };
    if item.role != Role::Itself || !item.entry.metadata.is_file() {
        return Ok(None);
    }
    // Files in other directories may have changed since they were listed, and are packed as they
    // are now.
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

//! Merged layers in a directory, for systems where overlayfs can't mount them.
//!
//! The tree of a layer has the contents of an overlayfs upper directory: new files, and marks of
//! deletions. [`assemble`] merges a chain of such trees into the directory that a mounted overlay
//! would show. [`extract`] is the reverse: it creates the tree of a layer from the touched files in
//! such a directory.
//!
//! # Marks
//!
//! The mark of a deletion is a character device 0/0, as in overlayfs. Some file systems refuse such
//! a device: overlays, and those mounted without devices. There, an empty file without permissions
//! marks the deletion, `.kiln-wh.NAME`. All functions that read the trees of layers understand both
//! marks.
//!
//! # Hard links
//!
//! In a writable assembled tree, no two names share a file that comes from a layer. A step that
//! writes to one name changes only that name, as with overlayfs, which copies the file up. In a
//! read-only assembled tree, files are hard links to the files of the layers.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, OFlags, linkat};
use rustix::io::Errno;

use crate::copy::source::{Copier, Treatment};
use crate::copy::{CopyOptions, place};
use crate::digest::select::{Picked, Selected};
use crate::dir::{Dir, entry_names};
use crate::error::{Error, Result};
use crate::metadata::{FileKind, Metadata};
pub use crate::pack::overlay::FILE_MARK;
use crate::pack::overlay::{self, Deletion};
use crate::state::Touched;
use crate::view::View;
use crate::walk::{self, Entry, open_without_links, split};
use crate::{attributes, names, remove};

/// The way in which files are added to an assembled tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// Hard links to the files of the layers, for trees that are only read.
    Shared,
    /// Copies, which share blocks if the file system supports it.
    Own,
}

/// Merges the trees of layers, uppermost first, in the empty directory `dest`.
///
/// # Errors
/// Fails if a tree can't be read, or if `dest` can't be written.
pub fn assemble(layers: &[PathBuf], dest: &Dir, files: Files) -> Result<()> {
    for layer in layers.iter().rev() {
        lay(&Dir::open(layer)?, dest, files)?;
    }
    match layers.first() {
        Some(top) => copy_root(&Dir::open(top)?, dest),
        None => Ok(()),
    }
}

fn lay(layer: &Dir, dest: &Dir, files: Files) -> Result<()> {
    let mut picked = Vec::new();
    for entry in walk::entries(View::of(layer), Path::new("/"))? {
        match overlay::deletion(&entry)? {
            Deletion::Whiteout => {
                remove_below(dest, &overlay::hidden(&entry.path.to_vec(), entry.metadata.kind))?;
                continue;
            }
            Deletion::Opaque => clear(dest, &entry.path.to_vec())?,
            Deletion::None => {}
        }
        if !entry.path.is_empty() && entry.metadata.kind != FileKind::Socket {
            picked.push(pick(entry));
        }
    }
    let manner = match files {
        Files::Shared => Treatment::Share,
        Files::Own => {
            let files = picked.iter().map(|picked| &picked.entry.metadata);
            let blocks = files.filter(|file| file.is_file()).map(|file| file.blocks * 512);
            dest.take_room(blocks.sum())?;
            Treatment::Apart
        }
    };
    let options = CopyOptions { always_replace: true, ..CopyOptions::default() };
    let selected = Selected { path: Vec::new(), entries: picked };
    Copier::new(View::of(layer), dest, &options).with(manner).copy(selected, Path::new("/"))
}

fn pick(entry: Entry) -> Picked {
    Picked { entry, above: 0, passed: false }
}

/// Copies the attributes of one tree's root to another tree's root.
fn copy_root(from: &Dir, to: &Dir) -> Result<()> {
    let Some(root) = walk::entry(View::of(from), Path::new("/"))? else { return Ok(()) };
    let attributes = attributes::Attributes {
        mode: Some(root.metadata.mode),
        owner: Some(root.metadata.owner),
        mtime: Some(root.metadata.mtime),
    };
    place::finish(to.as_fd(), &attributes, &root.xattrs)
        .map_err(|errno| Error::io("set attributes of", Path::new("/"), errno))
}

/// Removes the entry at a real path. If the path leads through a link, nothing is removed, since
/// the target is elsewhere.
fn remove_below(dest: &Dir, path: &[u8]) -> Result<()> {
    let (parent, name) = split(path);
    match open_without_links(dest.as_fd(), parent, OFlags::PATH | OFlags::DIRECTORY) {
        Ok(parent) => remove::remove_all(parent.as_fd(), name)
            .map_err(|errno| Error::io("remove", names::path(path), errno)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
        Err(errno) => Err(Error::io("open", names::path(parent), errno)),
    }
}

/// Removes the contents of the directory at a real path, if it exists.
fn clear(dest: &Dir, path: &[u8]) -> Result<()> {
    let failed = |errno| Error::io("clear", names::path(path), errno);
    match open_without_links(dest.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(directory) => entry_names(directory.as_fd())
            .and_then(|names| {
                names.iter().try_for_each(|name| remove::remove_all(directory.as_fd(), name))
            })
            .map_err(failed),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
        Err(errno) => Err(failed(errno)),
    }
}

/// The result of [`extract`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extracted {
    /// `true` if files mark deletions because the file system refuses devices 0/0.
    pub file_marks: bool,
    /// The paths of files that now have several names.
    pub linked: Vec<Vec<u8>>,
}

/// Creates the tree of a layer in the empty directory `into`. The tree has the touched files of
/// `tree` and the directories above them. Hard links between the files are kept. Files mark
/// deletions if `file_marks` is set, or if the file system refuses overlayfs's marks.
///
/// # Errors
/// Fails if an entry can't be read or written.
pub fn extract(tree: &Dir, touched: &[Touched], into: &Dir, file_marks: bool) -> Result<Extracted> {
    let mut paths = BTreeSet::new();
    for touched in touched {
        let slashes = touched.path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        paths.extend(slashes.map(|(end, _)| touched.path[..end].to_vec()));
        if !touched.gone {
            paths.insert(touched.path.clone());
        }
    }
    let mut extracted = Extracted::default();
    let mut picked = Vec::with_capacity(paths.len());
    for path in paths {
        let Some(entry) = walk::entry(View::of(tree), names::path(&path))? else { continue };
        let metadata = &entry.metadata;
        if metadata.kind == FileKind::Socket {
            continue;
        }
        if metadata.is_file() && metadata.links > 1 {
            extracted.linked.push(path);
        }
        picked.push(pick(entry));
    }
    let gone = touched.iter().filter(|touched| touched.gone);
    picked.extend(gone.map(|touched| pick(mark(touched.path.clone()))));
    let files = picked.iter().map(|picked| &picked.entry.metadata);
    into.take_room(files.filter(|file| file.is_file()).map(|file| file.blocks * 512).sum())?;
    let options = CopyOptions::default();
    let selected = Selected { path: Vec::new(), entries: picked };
    let copier = Copier::new(View::of(tree), into, &options).with(Treatment::Layer { file_marks });
    copier.copy(selected, Path::new("/"))?;
    copy_root(tree, into)?;
    extracted.file_marks = copier.has_marked_by_files();
    Ok(extracted)
}

/// Returns overlayfs's mark of a deletion.
fn mark(path: Vec<u8>) -> Entry {
    let metadata = Metadata::nothing(FileKind::CharDevice { major: 0, minor: 0 });
    Entry { path: path.into(), metadata, target: Vec::new(), xattrs: Vec::new() }
}

/// Replaces each of the files that has other names too by a copy of its own.
///
/// # Errors
/// Fails if a file can't be copied.
pub fn part(tree: &Dir, paths: &[Vec<u8>]) -> Result<()> {
    let mut entries = Vec::new();
    for path in paths {
        let entry = walk::entry(View::of(tree), names::path(path))?;
        // When only the last name of a file remains, it needs no copy.
        entries.extend(entry.filter(|entry| entry.metadata.links > 1).map(pick));
    }
    for picked in entries {
        let path = picked.path();
        let (parent, name) = split(&path);
        let failed = |errno| Error::io("copy", names::path(&path), errno);
        let parent = open_without_links(tree.as_fd(), parent, OFlags::RDONLY | OFlags::DIRECTORY);
        let parent = Dir::from_fd(parent.map_err(failed)?);
        let kept = Metadata::of_fd(parent.as_fd()).map_err(failed)?.mtime;
        // The copy replaces the file once it is complete.
        let name = name.to_vec();
        let beside = [b".part.", &name[..]].concat();
        let entry = Entry { path: name.clone().into(), ..picked.entry };
        let selected = Selected {
            path: Vec::new(),
            entries: vec![Picked { above: name.len(), entry, passed: false }],
        };
        let options = CopyOptions::default();
        let target = Path::new("/").join(names::path(&beside));
        Copier::new(View::of(&parent), &parent, &options)
            .with(Treatment::Apart)
            .copy(selected, &target)?;
        rustix::fs::renameat(
            parent.as_fd(),
            names::path(&beside),
            parent.as_fd(),
            names::path(&name),
        )
        .map_err(failed)?;
        let times = attributes::Attributes { mtime: Some(kept), ..Default::default() };
        times.apply_to_fd(parent.as_fd()).map_err(failed)?;
    }
    Ok(())
}

/// Creates a hard link to the file at `from`, a real path in `source`, as `name` in an open
/// directory.
pub(crate) fn link(
    source: &Dir,
    from: &[u8],
    dir: impl AsFd,
    name: &[u8],
) -> std::result::Result<(), Errno> {
    let (parent, old) = split(from);
    let parent = open_without_links(source.as_fd(), parent, OFlags::PATH | OFlags::DIRECTORY)?;
    linkat(parent, names::path(old), dir, names::path(name), AtFlags::empty())
}

#[cfg(test)]
mod tests;

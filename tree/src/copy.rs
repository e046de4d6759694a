//! Copying between trees, in the manner of BuildKit's file op.
//!
//! A copy selects the same entries that [`mod@crate::digest`] digests for the same source, pattern
//! and rules: both use `digest::select`. The destination depends on the text of its path (a slash
//! at the end), on the existing entries, and on the type of the source. Links in the destination
//! are followed inside its root before anything is created, and never afterwards: entries are
//! created by name in an open directory, and replace links instead of following them.
//!
//! A copy has three passes:
//! 1. One thread creates directories and detects conflicts, in order.
//! 2. Several threads create files, links and nodes, each complete with owner, mode and time.
//! 3. One thread creates the further names of copied files, in order. It then sets the attributes
//!    of directories, deepest first, since creating entries has changed their times.
//!
//! There is one deliberate difference from BuildKit: a block device is copied as a block device.

mod content;
mod difference;
mod direct;
pub(crate) mod place;
mod record;
pub(crate) mod source;

use std::path::{Path, PathBuf};

use crate::archive_limits::ArchiveLimits;
use crate::attributes::Attributes;
use crate::below::Below;
use crate::decompress::decompress;
use crate::digest::Selection;
use crate::digest::select::{self, Selected};
use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::metadata::{Owner, Timestamp};
use crate::mode::ModeChange;
use crate::tar_reader::TarReader;
use crate::unpack::{UnpackOptions, unpack};
use crate::view::View;
use crate::{names, wildcard};

pub use difference::{CopyDifference, difference_of_copies};
pub use direct::plan as plan_copies;
pub use record::{CopiedFiles, CopyRecord};

/// The mode of new parent directories of the destination, unless the copy sets one.
const PARENT_MODE: u32 = 0o755;

/// The options of a copy.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "the switches of BuildKit's copy action")]
pub struct CopyOptions {
    /// The path or pattern of the source.
    pub source: String,
    /// The destination path. A trailing slash means a directory.
    pub dest: String,
    /// The owner of the copied files; `None` keeps the source's.
    pub owner: Option<Owner>,
    /// The change to the permission bits; `None` keeps them.
    pub mode: Option<ModeChange>,
    /// The modification time of the copied files; `None` keeps the source's.
    pub mtime: Option<Timestamp>,
    /// `true` to follow a symbolic link at the end of the source path.
    pub follow_symlink: bool,
    /// `true` to copy the contents of a source directory instead of the directory itself.
    pub dir_copy_contents: bool,
    /// `true` to unpack archives, as Docker's `ADD` does.
    pub unpack: bool,
    /// `true` to create missing parents of the destination.
    pub create_dest_path: bool,
    /// `true` if `source` is a pattern.
    pub allow_wildcard: bool,
    /// `true` if the pattern may match nothing.
    pub allow_empty_wildcard: bool,
    /// The patterns of entries to copy; empty for all.
    pub include: Vec<String>,
    /// The patterns of entries to leave out.
    pub exclude: Vec<String>,
    /// `true` to apply `exclude` to the source itself too ([`Selection::exclude_matches`]).
    pub exclude_matches: bool,
    /// `true` to remove an existing entry of another type at a destination path first.
    pub always_replace: bool,
    /// The paths that must exist.
    pub required: Vec<PathBuf>,
    /// The limits for unpacking archives.
    pub limits: ArchiveLimits,
}

/// Copies from `source` into `dest`, in parallel. Uses reflinks or `copy_file_range` if the file
/// system supports them. Keeps hard links between the copied files, and holes.
///
/// # Errors
/// Fails with BuildKit's messages if paths are missing or in the way.
pub fn copy(source: View<'_>, dest: &Dir, options: &CopyOptions) -> Result<()> {
    copy_recorded(source, dest, options, None)
}

/// Copies from `source` into `dest`, like [`copy`]. Adds the source files to `files`, if it is set.
///
/// # Errors
/// See [`copy`].
pub fn copy_recorded(
    source: View<'_>,
    dest: &Dir,
    options: &CopyOptions,
    mut files: Option<&mut CopiedFiles>,
) -> Result<()> {
    for Copied { selected, name } in copied(source, dest, options)? {
        let files = files.as_deref_mut();
        if let Some(archive) = archive(source, &selected, options) {
            if let Some(files) = files {
                files.abandon();
            }
            unpack_archive(source.dir, &archive, dest, options)?;
            continue;
        }
        copy_selected(&Copying { source, dest, options }, selected, &name, files)?;
    }
    Ok(())
}

/// A copy from a source into a tree.
struct Copying<'a> {
    source: View<'a>,
    dest: &'a Dir,
    options: &'a CopyOptions,
}

/// The entries to copy for one source path.
struct Copied {
    selected: Selected,
    /// The last component of the source path.
    name: Vec<u8>,
}

/// Returns the entries that a copy selects, at least one for each source path.
fn copied(source: View<'_>, dest: &dyn Below, options: &CopyOptions) -> Result<Vec<Copied>> {
    let asked = names::rooted(options.source.as_bytes());
    if !options.create_dest_path {
        let path = dest.real_path(Path::new(&options.dest))?;
        let parent = path.parent().unwrap_or(&path);
        if dest.entry(parent)?.is_none() {
            return Err(Error::NotFound { path: PathBuf::from(&options.dest) });
        }
    }
    let selection = Selection {
        path: options.source.clone(),
        wildcard: options.allow_wildcard,
        follow: options.follow_symlink,
        include: options.include.clone(),
        exclude: options.exclude.clone(),
        exclude_matches: options.exclude_matches,
    };
    let selected = select::select(source, &selection)?;
    let is_pattern = options.allow_wildcard && wildcard::has_wildcards(names::bytes(&asked));
    if selected.is_empty() && is_pattern && !options.allow_empty_wildcard {
        return Err(Error::NoMatch { pattern: asked.to_string_lossy().into_owned() });
    }
    check_required(&options.required, &asked, &selected)?;
    let copied = |selected: Selected| {
        let path = if is_pattern { names::rooted(&selected.path) } else { asked.clone() };
        if selected.entries.is_empty() {
            return Err(Error::NotFound { path });
        }
        // The path `dir/.` has no last component.
        let nameless = !options.allow_wildcard && options.source.ends_with("/.");
        let name = path.file_name().filter(|_| !nameless).map(names::bytes).unwrap_or_default();
        Ok(Copied { name: name.to_vec(), selected })
    };
    selected.into_iter().map(copied).collect()
}

/// Returns the path of the archive, if the source is an archive to unpack.
fn archive(source: View<'_>, selected: &Selected, options: &CopyOptions) -> Option<Vec<u8>> {
    let first = selected.entries.first().filter(|_| options.unpack)?;
    let path = first.entry.path.to_vec();
    (first.entry.metadata.is_file() && is_archive(source.dir, &path)).then_some(path)
}

/// Checks that each required path is the beginning of a selected path.
fn check_required(required: &[PathBuf], asked: &Path, selected: &[Selected]) -> Result<()> {
    let begins = |path: &[u8], selected: &Selected| {
        let matched = names::rooted(&selected.path);
        let base = if selected.path.is_empty() { asked } else { matched.as_path() };
        let mut entries = selected.entries.iter();
        entries.any(|picked| names::join(names::bytes(base), &picked.path()).starts_with(path))
    };
    for path in required {
        let wanted = names::rooted(names::bytes(path));
        if !selected.iter().any(|selected| begins(names::bytes(&wanted), selected)) {
            return Err(Error::NotFound { path: wanted });
        }
    }
    Ok(())
}

/// Returns the attributes of new parent directories of the destination.
fn parents(options: &CopyOptions) -> Attributes {
    let mode = options.mode.as_ref().and_then(ModeChange::bits).unwrap_or(PARENT_MODE) & 0o777;
    Attributes { mode: Some(mode), owner: options.owner, mtime: options.mtime }
}

/// Returns the part of the destination's text that names a directory, if there is one.
fn holder(options: &CopyOptions) -> Option<&Path> {
    let text = Path::new(&options.dest);
    let is_slashed = options.dest.ends_with('/') || options.dest.ends_with("/.");
    if is_slashed { Some(text) } else { text.parent() }
}

/// Copies the selected entries of one source path, whose last component is `name`.
fn copy_selected(
    copying: &Copying<'_>,
    selected: Selected,
    name: &[u8],
    copied: Option<&mut CopiedFiles>,
) -> Result<()> {
    let Copying { source, dest, options } = *copying;
    let files = selected.entries.iter().map(|picked| &picked.entry.metadata);
    dest.take_room(files.filter(|file| file.is_file()).map(|file| file.blocks * 512).sum())?;
    let parents = parents(options);
    let is_dir = selected.entries.first().is_some_and(|first| first.entry.metadata.is_dir());
    let text = Path::new(&options.dest);
    let mut made = match holder(options) {
        Some(holder) => dest.mkdir_all(holder, &parents)?,
        None => Vec::new(),
    };
    let mut target = dest.real_path(text)?;
    let existing = dest.metadata(&target, false)?;
    let nested = if is_dir {
        !options.dir_copy_contents && existing.is_some()
    } else {
        existing.as_ref().is_some_and(crate::Metadata::is_dir)
    };
    if nested {
        target.push(names::path(name));
    }
    let holder = if is_dir && options.dir_copy_contents && existing.is_none() {
        Some(target.as_path())
    } else {
        target.parent()
    };
    if let Some(holder) = holder {
        made.extend(dest.mkdir_all(holder, &parents)?);
    }
    if let Some(copied) = copied {
        for picked in selected.entries.iter().filter(|picked| !picked.entry.metadata.is_dir()) {
            copied.add(&source::destination(picked, &target), &picked.entry.metadata);
        }
    }
    source::Copier::new(source, dest, options).copy(selected, &target)?;
    dest.stamp(&made, options.mtime)
}

/// Returns `true` if a file is an archive that `ADD` unpacks: a tar, compressed or not, whose first
/// entry can be read.
fn is_archive(root: &Dir, path: &[u8]) -> bool {
    let Ok(file) = crate::walk::Opener::new(root).open(path) else { return false };
    let Ok((mut plain, _)) = decompress(file) else { return false };
    matches!(TarReader::new(&mut plain).next(), Ok(Some(_)))
}

fn unpack_archive(source: &Dir, path: &[u8], dest: &Dir, options: &CopyOptions) -> Result<()> {
    let text = Path::new(&options.dest);
    let (owner, mtime) = (options.owner, options.mtime);
    let made = dest.mkdir_all(text, &Attributes { mode: Some(PARENT_MODE), owner, mtime })?;
    let file = crate::walk::Opener::new(source).open(path)?;
    let (mut plain, _) = options
        .limits
        .decompress(file)
        .map_err(|error| Error::io("read", names::path(path), error))?;
    let into = dest.open_dir(text)?;
    let max_entries = options.limits.max_entries;
    unpack(&mut plain, &into, UnpackOptions { owner, max_entries, ..UnpackOptions::default() })?;
    dest.stamp(&made, mtime)
}

#[cfg(test)]
mod tests;

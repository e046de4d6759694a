//! Copies that go directly into a tar, without a tree on the disk.
//!
//! The effect of a chain of copies is computed in memory: the entries that an overlay's upper
//! directory would have in the end, with their metadata. This works if nothing must be removed and
//! nothing is in the way. In all other cases, including errors, [`plan`] returns `None`, and the
//! copies go into a tree.
//!
//! As in an upper directory, a directory of the tree below becomes part of the layer when it
//! changes or when an entry is created in it, and its parents with it. Creating an entry sets the
//! time of its directory to now. Entries equal to those of the tree below are left out, as for an
//! upper directory ([`mod@crate::changes`]).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_oci::Digest;

use super::source::{Placement, attributes, destination, directory};
use super::{CopyOptions, archive, copied, holder, parents};
use crate::attributes::Attributes;
use crate::below::Below;
use crate::changes;
use crate::digest::select::{Picked, Selected};
use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::metadata::{FileKind, Metadata, Owner, Timestamp};
use crate::pack::{CAPABILITY, Item, Origin, Plan, Role, overlay};
use crate::view::View;
use crate::walk::{Entry, Opener};
use crate::{names, path_limit};

/// The set-group-ID bit. New entries of a directory with this bit inherit its group.
const SETGID: u32 = 0o2000;

/// Plans the tar of the layer that a chain of copies creates on top of the tree `below`. Returns
/// `None` if the plan requires a tree.
///
/// # Errors
/// Fails if a source is missing or can't be read.
pub fn plan<'a>(copies: &[(View<'a>, CopyOptions)], below: &dyn Below) -> Result<Option<Plan<'a>>> {
    let Some(mut layer) = Layer::of(copies, below)? else { return Ok(None) };
    let dirs: Vec<&Dir> = copies.iter().map(|(source, _)| source.dir).collect();
    let unchanged = layer.unchanged(&dirs)?;
    layer.leave_out(&unchanged);
    Ok(Some(Plan::of(dirs, layer.items())))
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: since.as_secs().cast_signed(), nanoseconds: since.subsec_nanos() }
}

/// The origin of an entry: the copy and the source path.
struct From {
    copy: usize,
    part: usize,
    /// The last component of the source path.
    name: Vec<u8>,
}

/// A layer under construction.
pub(super) struct Layer<'a> {
    below: &'a dyn Below,
    /// The entries of the layer, in the order of a walk.
    pub(super) made: BTreeMap<Vec<u8>, Made>,
    now: Timestamp,
    /// The time of the root, if a copy sets it.
    pub(super) root_mtime: Option<Timestamp>,
}

/// An entry of a layer, with the metadata of the copy. The device, the inode and the change time
/// are those of the source.
pub(super) struct Made {
    pub(super) entry: Entry,
    /// The place of a file with a content.
    pub(super) origin: Option<Origin>,
    /// The identity of a file with several names: the copy, its source path, the device and the
    /// inode.
    pub(super) inode: Option<(usize, usize, u64, u64)>,
}

/// The type of the entry at a path.
enum Found {
    Nothing,
    Directory(Metadata),
    /// A link, through which the paths of later copies may lead.
    Link,
    Other,
}

/// A result that is `None` if computing it requires a tree.
type Maybe<T> = Option<T>;

impl<'a> Layer<'a> {
    /// Returns the layer that a chain of copies creates on top of the tree `below`, or `None` if it
    /// requires a tree.
    pub(super) fn of(
        copies: &[(View<'_>, CopyOptions)],
        below: &'a dyn Below,
    ) -> Result<Maybe<Self>> {
        let mut layer = Self { below, made: BTreeMap::new(), now: now(), root_mtime: None };
        for (number, (source, options)) in copies.iter().enumerate() {
            for (part, copied) in copied(*source, below, options)?.into_iter().enumerate() {
                if archive(*source, &copied.selected, options).is_some() {
                    return Ok(None);
                }
                let from = From { copy: number, part, name: copied.name };
                if layer.copy(copied.selected, &from, options)?.is_none() {
                    return Ok(None);
                }
            }
        }
        Ok(Some(layer))
    }

    /// Performs a copy, like `copy_selected` in a tree.
    fn copy(
        &mut self,
        selected: Selected,
        from: &From,
        options: &CopyOptions,
    ) -> Result<Maybe<()>> {
        let parents = parents(options);
        let is_dir = selected.entries.first().is_some_and(|first| first.entry.metadata.is_dir());
        let mut made = Vec::new();
        if let Some(holder) = holder(options)
            && self.make_parents(holder, &parents, &mut made)?.is_none()
        {
            return Ok(None);
        }
        let Some(mut target) = self.real_path(Path::new(&options.dest)) else { return Ok(None) };
        let existing = self.find(&target)?;
        let nested = match existing {
            Found::Nothing => false,
            Found::Directory(_) => !(is_dir && options.dir_copy_contents),
            Found::Other if !is_dir => false,
            Found::Other | Found::Link => return Ok(None),
        };
        if nested {
            target.push(names::path(&from.name));
        }
        let is_missing = matches!(existing, Found::Nothing);
        let above = if is_dir && options.dir_copy_contents && is_missing {
            Some(target.clone())
        } else {
            target.parent().map(Path::to_path_buf)
        };
        if let Some(above) = above
            && self.make_parents(&above, &parents, &mut made)?.is_none()
        {
            return Ok(None);
        }
        if self.put_selected(selected, &target, from, options)?.is_none() {
            return Ok(None);
        }
        if let Some(mtime) = options.mtime {
            for path in &made {
                self.change(path, Attributes { mtime: Some(mtime), ..Attributes::default() });
            }
        }
        Ok(Some(()))
    }

    fn put_selected(
        &mut self,
        selected: Selected,
        target: &Path,
        from: &From,
        options: &CopyOptions,
    ) -> Result<Maybe<()>> {
        let mut finishes = Vec::new();
        let mut fresh: Option<PathBuf> = None;
        for picked in selected.entries {
            let (is_root, to) = (picked.is_root(), destination(&picked, target));
            let Picked { entry, passed, .. } = picked;
            let is_fresh = fresh.as_ref().is_some_and(|fresh| to.starts_with(fresh));
            let found = if is_fresh { Found::Nothing } else { self.find(&to)? };
            if !entry.metadata.is_dir() {
                // A device with these numbers would be interpreted as a whiteout.
                let is_whiteout =
                    entry.metadata.kind == FileKind::CharDevice { major: 0, minor: 0 };
                let is_in_the_way = matches!(found, Found::Directory(_) | Found::Link);
                if is_in_the_way || is_whiteout || to == Path::new("/") {
                    return Ok(None);
                }
                self.put(entry, &to, from, options)?;
                continue;
            }
            let made = match found {
                Found::Other | Found::Link => return Ok(None),
                Found::Directory(_) => false,
                Found::Nothing => {
                    fresh = fresh.filter(|_| is_fresh).or_else(|| Some(to.clone()));
                    self.make_directory(&to, &Attributes::default())?;
                    true
                }
            };
            let attributes =
                directory(options, &entry.metadata, Placement { made, is_root, passed });
            finishes.push((to, attributes));
        }
        for (path, attributes) in finishes.into_iter().rev() {
            if self.appear(&path)? {
                self.change(&path, attributes);
            } else {
                self.root_mtime = attributes.mtime;
            }
        }
        Ok(Some(()))
    }

    /// Adds an entry that is no directory.
    fn put(
        &mut self,
        mut entry: Entry,
        to: &Path,
        from: &From,
        options: &CopyOptions,
    ) -> Result<()> {
        path_limit::check(relative(to), 0)?;
        self.touch_parent(to)?;
        let metadata = &mut entry.metadata;
        let (dir, path) = (from.copy, entry.path.clone());
        let origin = Origin { dir, path, mtime: metadata.mtime };
        let Attributes { mode, owner, mtime } = attributes(options, metadata);
        let inode = (metadata.links > 1 && metadata.is_file()).then_some((
            from.copy,
            from.part,
            metadata.device,
            metadata.inode,
        ));
        if metadata.kind == FileKind::Socket {
            // The same as in a copy into a tree, and in BuildKit.
            metadata.kind = FileKind::File;
            metadata.size = 0;
        }
        // Links have no permissions of their own.
        if !metadata.is_symlink() {
            metadata.mode = mode.unwrap_or(metadata.mode);
        }
        metadata.owner = owner.unwrap_or(metadata.owner);
        metadata.mtime = mtime.unwrap_or(metadata.mtime);
        let is_file = metadata.is_file() && metadata.size > 0;
        entry.path = relative(to).to_vec().into();
        let origin = is_file.then_some(origin);
        self.made.insert(key(to), Made { entry, origin, inode });
        Ok(())
    }

    /// Adds a directory and its missing parents.
    fn make_parents(
        &mut self,
        path: &Path,
        attributes: &Attributes,
        made: &mut Vec<PathBuf>,
    ) -> Result<Maybe<()>> {
        let Some(path) = self.real_path(path) else { return Ok(None) };
        let mut here = PathBuf::from("/");
        let mut inherits = false;
        for name in names::components(names::bytes(&path)) {
            here.push(names::path(name));
            match self.find(&here)? {
                Found::Other | Found::Link => return Ok(None),
                Found::Directory(metadata) => inherits = metadata.mode & SETGID != 0,
                Found::Nothing if inherits => return Ok(None),
                Found::Nothing => {
                    self.make_directory(&here, attributes)?;
                    made.push(here.clone());
                }
            }
        }
        Ok(Some(()))
    }

    fn make_directory(&mut self, path: &Path, attributes: &Attributes) -> Result<()> {
        path_limit::check(relative(path), overlay::added(FileKind::Directory))?;
        self.touch_parent(path)?;
        let metadata = Metadata {
            kind: FileKind::Directory,
            mode: attributes.mode.unwrap_or_default(),
            owner: attributes.owner.unwrap_or(Owner { uid: 0, gid: 0 }),
            size: 0,
            mtime: attributes.mtime.unwrap_or(self.now),
            ctime: self.now,
            device: 0,
            inode: 0,
            links: 1,
            blocks: 0,
        };
        self.insert(path, metadata);
        Ok(())
    }

    /// Adds an existing directory of the tree below to the layer, with its parents. Returns `true`
    /// if it is part of the layer now. The root never is.
    fn appear(&mut self, path: &Path) -> Result<bool> {
        let mut missing = Vec::new();
        let mut here = Some(path);
        while let Some(path) = here.filter(|path| path.parent().is_some()) {
            if self.made.contains_key(&key(path)) {
                break;
            }
            missing.push(path);
            here = path.parent();
        }
        for path in missing {
            if let Some(metadata) = self.below.entry(path)? {
                self.insert(path, metadata);
            }
        }
        Ok(path.parent().is_some())
    }

    /// Records that an entry is created in the parent directory of `path`.
    fn touch_parent(&mut self, path: &Path) -> Result<()> {
        let Some(parent) = path.parent() else { return Ok(()) };
        if self.appear(parent)? {
            let mtime = Some(self.now);
            self.change(parent, Attributes { mtime, ..Attributes::default() });
        } else {
            self.root_mtime = None;
        }
        Ok(())
    }

    fn insert(&mut self, path: &Path, metadata: Metadata) {
        let path_in_tar = relative(path).to_vec();
        let entry =
            Entry { path: path_in_tar.into(), metadata, target: Vec::new(), xattrs: Vec::new() };
        self.made.insert(key(path), Made { entry, origin: None, inode: None });
    }

    fn change(&mut self, path: &Path, attributes: Attributes) {
        if let Some(made) = self.made.get_mut(&key(path)) {
            let metadata = &mut made.entry.metadata;
            metadata.mode = attributes.mode.unwrap_or(metadata.mode);
            metadata.owner = attributes.owner.unwrap_or(metadata.owner);
            metadata.mtime = attributes.mtime.unwrap_or(metadata.mtime);
        }
    }

    /// Returns the type of the entry at a real path.
    fn find(&self, path: &Path) -> Result<Found> {
        let metadata = match self.made.get(&key(path)) {
            Some(made) => Some(made.entry.metadata.clone()),
            None => self.below.entry(path)?,
        };
        Ok(match metadata {
            None => Found::Nothing,
            Some(metadata) if metadata.is_dir() => Found::Directory(metadata),
            Some(metadata) if metadata.is_symlink() => Found::Link,
            Some(_) => Found::Other,
        })
    }

    /// Returns the real path of `path`, or `None` if it leads through an entry of this layer that
    /// is no directory.
    fn real_path(&self, path: &Path) -> Maybe<PathBuf> {
        let real = self.below.real_path(path).ok()?;
        let is_in_the_way = real.ancestors().skip(1).any(|path| {
            self.made.get(&key(path)).is_some_and(|made| !made.entry.metadata.is_dir())
        });
        (!is_in_the_way).then_some(real)
    }

    /// Returns the keys of the entries that equal those of the tree below.
    pub(super) fn unchanged(&self, dirs: &[&Dir]) -> Result<HashSet<Vec<u8>>> {
        let mut openers: Vec<_> = dirs.iter().map(|dir| Opener::new(dir)).collect();
        let mut unchanged: HashSet<Vec<u8>> = HashSet::new();
        // The last directory that doesn't exist below, with a separator. The entries in it are new.
        let mut fresh: Option<Vec<u8>> = None;
        for (key, made) in &self.made {
            if fresh.as_ref().is_some_and(|fresh| key.starts_with(fresh)) {
                continue;
            }
            let path = names::rooted(&made.entry.path.to_vec());
            match self.below.entry(&path)? {
                None if made.entry.metadata.is_dir() => fresh = Some([key, &[0][..]].concat()),
                Some(before) if self.is_unchanged(made, &path, &before, &mut openers)? => {
                    unchanged.insert(key.clone());
                }
                _ => {}
            }
        }
        Ok(unchanged)
    }

    /// Removes unchanged entries, except for directories that contain remaining entries.
    fn leave_out(&mut self, unchanged: &HashSet<Vec<u8>>) {
        let mut holders: HashSet<Vec<u8>> = HashSet::new();
        let keys: Vec<Vec<u8>> = self.made.keys().rev().cloned().collect();
        for key in keys {
            if unchanged.contains(&key) && !holders.contains(&key) {
                self.made.remove(&key);
            } else if let Some(end) = key.iter().rposition(|byte| *byte == 0) {
                holders.insert(key[..end].to_vec());
            }
        }
    }

    /// Compares two entries, like `is_unchanged` in trees.
    fn is_unchanged(
        &self,
        made: &Made,
        path: &Path,
        before: &Metadata,
        openers: &mut [Opener<'_>],
    ) -> Result<bool> {
        let after = &made.entry.metadata;
        if !changes::has_same_attributes(before, after) {
            return Ok(false);
        }
        if after.is_dir() {
            return Ok(true);
        }
        if self.below.capability(path)? != made.entry.xattr(CAPABILITY).unwrap_or_default() {
            return Ok(false);
        }
        if after.mtime.nanoseconds != 0 {
            return Ok(true);
        }
        let content = match (after.kind, &made.origin) {
            (FileKind::Symlink, _) => Digest::of(&made.entry.target),
            (FileKind::File, Some(origin)) => {
                let file = openers[origin.dir].open_entry(&origin.path)?;
                let failed = |errno| Error::io("read", names::path(&origin.path.to_vec()), errno);
                changes::digest_of(&file).map_err(failed)?
            }
            _ => return Ok(true),
        };
        Ok(self.below.content(path)? == Some(content))
    }

    /// Returns the entries of the tar, in order.
    fn items(self) -> Vec<Item> {
        let mut first_names = HashMap::new();
        let item = |(number, made): (usize, Made)| {
            let first =
                made.inode.map_or(number, |inode| *first_names.entry(inode).or_insert(number));
            let role = if first == number { Role::Itself } else { Role::Link(first) };
            Item { entry: made.entry, role, origin: made.origin }
        };
        self.made.into_values().enumerate().map(item).collect()
    }
}

/// Returns a real path without its leading slash.
fn relative(path: &Path) -> &[u8] {
    names::bytes(path).strip_prefix(b"/").unwrap_or_default()
}

/// Returns a key that sorts paths in the order of a walk: a directory's contents precede siblings
/// with a longer name.
fn key(path: &Path) -> Vec<u8> {
    changes::key(relative(path))
}

#[cfg(test)]
mod tests;

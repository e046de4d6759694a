//! Writable directories: links to the files of their sources, and the way back of changes.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use kiln_tree::{CopyOptions, Dir, View, part, remove_all};
use rustix::fs::{AtFlags, FileType, Mode, linkat, mkdirat, renameat, statat};
use rustix::io::Errno;

use super::nodes::{is_harmless, remove_nodes};
use super::{as_path, below, give_attributes, is_directory, names};
use crate::wire::Failure;

/// The name of a new file in a source until it is complete.
const NEW: &str = ".kiln-new";

/// A writable source.
#[derive(Debug)]
pub(super) struct Source {
    directory: OwnedFd,
    /// The entries at the beginning.
    before: BTreeSet<PathBuf>,
    /// `true` if the placed files are links to those of the source.
    is_linked: bool,
}

impl Source {
    /// Links a source's files into the empty directory `to`.
    pub(super) fn place(directory: OwnedFd, to: &OwnedFd) -> Result<Self, Failure> {
        let doing = |errno: Errno| Failure::doing::<Errno>("link its files")(errno);
        let mut before = BTreeSet::new();
        let is_linked = match link(&directory, to, &mut before) {
            Ok(()) => true,
            Err(Errno::XDEV | Errno::PERM | Errno::MLINK) => {
                copy(&directory, to)?;
                remove_nodes(to).map_err(doing)?;
                false
            }
            Err(errno) => return Err(doing(errno)),
        };
        Ok(Self { directory, before, is_linked })
    }

    /// Applies the changes in the placed directory to the source.
    pub(super) fn take_changes(&self, placed: &OwnedFd) -> std::io::Result<()> {
        let mut todo = vec![PathBuf::new()];
        let mut done = Vec::new();
        while let Some(path) = todo.pop() {
            let (from, to) = (below(placed, &path)?, below(&self.directory, &path)?);
            let present = names(&from)?;
            for name in &present {
                if self.take_entry(&from, &to, name)? {
                    todo.push(path.join(as_path(name)));
                }
            }
            let present: BTreeSet<&[u8]> = present.iter().map(Vec::as_slice).collect();
            for name in names(&to)? {
                // Another step may have added an entry meanwhile.
                let is_removed = !present.contains(name.as_slice())
                    && self.before.contains(&path.join(as_path(&name)));
                if is_removed {
                    remove_all(to.as_fd(), &name)?;
                }
            }
            done.push(path);
        }
        if !self.is_linked {
            copy(placed, &self.directory)
                .map_err(|failure| std::io::Error::other(failure.message))?;
        }
        for path in done.iter().rev() {
            give_attributes(&below(placed, path)?, &below(&self.directory, path)?)?;
        }
        Ok(())
    }

    /// Takes over an entry. Returns `true` for a directory, whose entries follow.
    fn take_entry(&self, from: &OwnedFd, to: &OwnedFd, name: &[u8]) -> rustix::io::Result<bool> {
        let new = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let old = statat(to, name, AtFlags::SYMLINK_NOFOLLOW).ok();
        let was_directory = old.as_ref().is_some_and(is_directory);
        if is_directory(&new) {
            if !was_directory {
                remove_all(to.as_fd(), name)?;
                mkdirat(to, name, Mode::from_raw_mode(0o700))?;
            }
            return Ok(true);
        }
        if was_directory {
            remove_all(to.as_fd(), name)?;
        }
        let is_same = old.is_some_and(|old| (old.st_dev, old.st_ino) == (new.st_dev, new.st_ino));
        if is_same || !self.is_linked {
            return Ok(false);
        }
        match rustix::fs::unlinkat(to, NEW, AtFlags::empty()) {
            Err(Errno::NOENT) => {}
            other => other?,
        }
        linkat(from, name, to, NEW, AtFlags::empty())?;
        renameat(to, NEW, to, name)?;
        Ok(false)
    }

    /// Replaces files that have names outside of the source by copies.
    pub(super) fn part(&self) -> std::io::Result<()> {
        if !self.is_linked {
            return Ok(());
        }
        let mut linked: BTreeMap<u64, (u64, Vec<Vec<u8>>)> = BTreeMap::new();
        let mut todo = vec![PathBuf::new()];
        while let Some(path) = todo.pop() {
            let directory = below(&self.directory, &path)?;
            for name in names(&directory)? {
                let stat = statat(&directory, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)?;
                let path = path.join(as_path(&name));
                if is_directory(&stat) {
                    todo.push(path);
                } else if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
                    && stat.st_nlink > 1
                {
                    let (links, names) = linked.entry(stat.st_ino).or_default();
                    *links = stat.st_nlink as u64;
                    names.push(path.into_os_string().into_encoded_bytes());
                }
            }
        }
        let shared = linked.into_values().filter(|(links, names)| *links > names.len() as u64);
        let paths: Vec<Vec<u8>> = shared.flat_map(|(_, names)| names).collect();
        part(&Dir::from_fd(self.directory.try_clone()?), &paths).map_err(std::io::Error::other)
    }
}

/// Links all files below `from` into the empty directory `to`, and notes the paths of all entries.
fn link(from: &OwnedFd, to: &OwnedFd, paths: &mut BTreeSet<PathBuf>) -> rustix::io::Result<()> {
    let mut todo = vec![PathBuf::new()];
    let mut done = Vec::new();
    while let Some(path) = todo.pop() {
        let (source, target) = (below(from, &path)?, below(to, &path)?);
        for name in names(&source)? {
            let stat = statat(&source, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)?;
            let below = path.join(as_path(&name));
            if !is_harmless(&stat) {
                continue;
            }
            if is_directory(&stat) {
                mkdirat(&target, name.as_slice(), Mode::from_raw_mode(0o700))?;
                todo.push(below.clone());
            } else {
                linkat(&source, name.as_slice(), &target, name.as_slice(), AtFlags::empty())?;
            }
            paths.insert(below);
        }
        done.push(path);
    }
    done.iter().rev().try_for_each(|path| give_attributes(&below(from, path)?, &below(to, path)?))
}

/// Copies the content and attributes of a directory.
pub(super) fn copy(from: &OwnedFd, to: &OwnedFd) -> Result<(), Failure> {
    let doing = |error: std::io::Error| Failure::doing("copy its files")(error);
    let options = CopyOptions {
        source: "/".to_owned(),
        dest: "/".to_owned(),
        dir_copy_contents: true,
        always_replace: true,
        ..CopyOptions::default()
    };
    let source = Dir::from_fd(from.try_clone().map_err(doing)?);
    let dest = Dir::from_fd(to.try_clone().map_err(doing)?);
    kiln_tree::copy(View::of(&source), &dest, &options)
        .map_err(|error| Failure::because(&error))?;
    give_attributes(from, to).map_err(|errno| doing(errno.into()))
}

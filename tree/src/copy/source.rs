//! The three passes of a copy.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use rustix::fs::{AtFlags, linkat, symlinkat};
use rustix::io::Errno;

use super::CopyOptions;
use super::content::{self, FailedMethods};
use super::place::{Place, finish};
use crate::assemble;
use crate::attributes::{Attributes, Xattr};
use crate::digest::select::{Picked, Selected};
use crate::dir::Dir;
use crate::edit;
use crate::error::{Error, Result};
use crate::metadata::{FileKind, Metadata};
use crate::names;
use crate::pack::overlay;
use crate::records;
use crate::view::View;
use crate::walk::{Entry, Opener};

/// The number of files in a task.
const TASK: usize = 32;

/// The treatment of files with several names, and of the marks of deletions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// Hard links between the copied files are kept. A mark is copied like any other device.
    Plain,
    /// Hard links between the copied files are kept. A mark becomes a file if the file system
    /// refuses devices, or in any case with `file_marks`.
    Layer {
        /// `true` to use files for all marks.
        file_marks: bool,
    },
    /// Each name becomes a file of its own.
    Apart,
    /// Each name becomes a hard link to the source's file if possible.
    Share,
}

/// A copy of the selected entries of one source path.
pub(crate) struct Copier<'a> {
    source: View<'a>,
    dest: &'a Dir,
    options: &'a CopyOptions,
    manner: Treatment,
    abilities: FailedMethods,
    /// `true` if the file system refuses overlayfs's marks.
    file_marks: AtomicBool,
}

/// A file to create.
pub(super) struct Job {
    pub(super) picked: Picked,
    /// `true` if the path may exist already.
    pub(super) occupied: bool,
    /// The path at which the file is created, if it doesn't follow from the path of the source.
    pub(super) to: Option<PathBuf>,
}

impl Job {
    /// Returns the path at which the file is created.
    fn path(&self, target: &Path) -> PathBuf {
        self.to.clone().unwrap_or_else(|| destination(&self.picked, target))
    }
}

/// Returns the path of an entry in `target`.
pub(super) fn destination(picked: &Picked, target: &Path) -> PathBuf {
    if picked.is_root() {
        return target.to_path_buf();
    }
    target.join(names::path(&picked.path()))
}

/// The circumstances of a directory in a copy.
#[derive(Clone, Copy)]
pub(super) struct Placement {
    /// `true` if the copy created the directory.
    pub(super) made: bool,
    /// `true` if the directory is the source path itself.
    pub(super) is_root: bool,
    /// `true` if the directory is copied only because an entry below it was selected.
    pub(super) passed: bool,
}

/// A directory and its final attributes.
pub(super) struct Finish {
    pub(super) path: PathBuf,
    pub(super) attributes: Attributes,
    pub(super) xattrs: Vec<Xattr>,
}

/// The work that the first pass leaves to the others.
#[derive(Default)]
struct Work {
    jobs: Vec<Job>,
    /// Files, and the destination path of the first copy of the same inode.
    links: Vec<(Job, PathBuf)>,
    directories: Vec<Finish>,
}

/// The resources that a task reuses from file to file.
struct TaskBuffers<'a> {
    opener: Opener<'a>,
    place: Place<'a>,
    buffer: Vec<u8>,
}

impl<'a> Copier<'a> {
    pub(crate) fn new(source: View<'a>, dest: &'a Dir, options: &'a CopyOptions) -> Self {
        let (manner, abilities) = (Treatment::Plain, FailedMethods::default());
        Self { source, dest, options, manner, abilities, file_marks: AtomicBool::new(false) }
    }

    /// Sets the treatment of hard links and marks.
    pub(crate) fn with(self, manner: Treatment) -> Self {
        let file_marks = AtomicBool::new(manner == Treatment::Layer { file_marks: true });
        Self { manner, file_marks, ..self }
    }

    /// Returns `true` if a deletion was marked by a file.
    pub(crate) fn has_marked_by_files(&self) -> bool {
        self.file_marks.load(Ordering::Relaxed)
    }

    /// Copies the entries to `target`, a real path whose parent exists.
    pub(crate) fn copy(&self, selected: Selected, target: &Path) -> Result<()> {
        let work = self.prepare(selected, target)?;
        self.make_all(&work.jobs, target)?;
        self.complete(&work.links, &work.directories, target)
    }

    /// Runs the second pass: creates files, links and nodes.
    pub(super) fn make_all(&self, jobs: &[Job], target: &Path) -> Result<()> {
        let hands = || TaskBuffers {
            opener: Opener::new(self.source.dir),
            place: Place::new(self.dest),
            buffer: vec![0; content::CHUNK],
        };
        let make = |hands: &mut TaskBuffers<'a>, jobs: &[Job]| {
            jobs.iter().try_for_each(|job| self.make(hands, job, &job.path(target)))
        };
        if jobs.len() > TASK {
            let tasks: Vec<Result<()>> = jobs.par_chunks(TASK).map_init(hands, make).collect();
            // Of several errors, the first in the order of the tree is reported.
            tasks.into_iter().collect::<Result<()>>()
        } else {
            make(&mut hands(), jobs)
        }
    }

    /// Runs the third pass: creates further names of files, each with the path of the first one, and
    /// sets the attributes of directories, the last one first.
    pub(super) fn complete(
        &self,
        links: &[(Job, PathBuf)],
        directories: &[Finish],
        target: &Path,
    ) -> Result<()> {
        let mut place = Place::new(self.dest);
        for (job, first) in links {
            self.link(&mut place, job, &job.path(target), first)?;
        }
        for Finish { path, attributes, xattrs } in directories.iter().rev() {
            place.finish_directory(path, attributes, xattrs)?;
        }
        Ok(())
    }

    /// Runs the first pass: creates the directories and collects the remaining work.
    fn prepare(&self, selected: Selected, target: &Path) -> Result<Work> {
        let mut work = Work::default();
        let mut place = Place::new(self.dest);
        let mut inodes: HashMap<(u64, u64), PathBuf> = HashMap::new();
        // The last new directory, as long as the entries are in it. It has no older entries.
        let mut fresh: Option<PathBuf> = None;
        for picked in selected.entries {
            let (is_root, to) = (picked.is_root(), destination(&picked, target));
            let Picked { entry, passed, .. } = &picked;
            let is_fresh = fresh.as_ref().is_some_and(|fresh| to.starts_with(fresh));
            if self.options.always_replace && !*passed && !is_fresh {
                place.replace(&to, entry.metadata.is_dir())?;
            }
            if !entry.metadata.is_dir() {
                let job = Job { occupied: !is_fresh, picked, to: None };
                let metadata = &job.picked.entry.metadata;
                let inode = (metadata.device, metadata.inode);
                let is_apart = matches!(self.manner, Treatment::Apart | Treatment::Share);
                if !metadata.is_file() || metadata.links < 2 || is_apart {
                    work.jobs.push(job);
                } else if let Some(first) = inodes.get(&inode) {
                    work.links.push((job, first.clone()));
                } else {
                    inodes.insert(inode, to);
                    work.jobs.push(job);
                }
                continue;
            }
            let made = place.directory(&to)?;
            if made && !is_fresh {
                fresh = Some(to.clone());
            }
            let placement = Placement { made, is_root, passed: *passed };
            work.directories.push(self.finish_of(to, picked.entry, placement));
        }
        Ok(work)
    }

    fn finish_of(&self, path: PathBuf, entry: Entry, placement: Placement) -> Finish {
        let is_whole = placement.made || !(placement.is_root || placement.passed);
        let attributes = directory(self.options, &entry.metadata, placement);
        let xattrs = if is_whole { entry.xattrs } else { Vec::new() };
        Finish { path, attributes, xattrs }
    }

    /// Runs the second pass for one file, link or node.
    fn make(&self, hands: &mut TaskBuffers<'a>, job: &Job, path: &Path) -> Result<()> {
        let entry = &job.picked.entry;
        if job.occupied {
            hands.place.clear(path)?;
        }
        let attributes = attributes(self.options, &entry.metadata);
        let error = |errno| Error::io("copy to", path, errno);
        let (dir, name) = hands.place.of(path)?;
        // A shared link would lack the record in its new directory.
        if self.manner == Treatment::Share
            && !records::has_entry_record(entry.metadata.kind)
            && assemble::link(self.source.dir, &entry.path.to_vec(), dir, name).is_ok()
        {
            return Ok(());
        }
        match entry.metadata.kind {
            FileKind::CharDevice { major: 0, minor: 0 }
                if matches!(self.manner, Treatment::Layer { .. }) =>
            {
                self.mark(dir, name, &attributes).map_err(error)
            }
            FileKind::File => {
                let from = hands.opener.open_entry(&entry.path)?;
                let to = self.create(dir, name, &attributes).map_err(error)?;
                let metadata = Metadata::of_fd(from.as_fd()).map_err(error)?;
                if !metadata.is_file() {
                    return Err(Error::invalid(path, "changed its type while it was copied"));
                }
                content::copy(&from, &metadata, &to, &self.abilities, &mut hands.buffer)
                    .map_err(|error| Error::io("copy to", path, error))?;
                let made = Metadata::of_fd(to.as_fd()).map_err(error)?;
                finish(to.as_fd(), &attributes.beyond(&made), &entry.xattrs).map_err(error)
            }
            FileKind::Symlink => make_link(dir, name, &entry.target, &attributes).map_err(error),
            // As in BuildKit, a socket becomes an empty file.
            FileKind::Socket => edit::create(dir, name)
                .and_then(|fd| attributes.apply_to_fd(fd.as_fd()))
                .map_err(error),
            kind => edit::make_node(dir, name, kind, &attributes).map_err(error),
        }
    }

    /// Creates a file. A file in the store has its final mode from the beginning, since other users
    /// can't reach it.
    fn create(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        attributes: &Attributes,
    ) -> Result<File, Errno> {
        let mode = attributes.mode.filter(|_| self.manner != Treatment::Plain);
        edit::create_with_mode(dir, name, mode.unwrap_or(0o600)).map(File::from)
    }

    /// Creates the mark of a deletion.
    fn mark(&self, dir: BorrowedFd<'_>, name: &[u8], attributes: &Attributes) -> Result<(), Errno> {
        let kind = FileKind::CharDevice { major: 0, minor: 0 };
        if !self.has_marked_by_files() && edit::make_node(dir, name, kind, attributes).is_ok() {
            return Ok(());
        }
        self.file_marks.store(true, Ordering::Relaxed);
        let file = edit::create(dir, &overlay::file_mark(name))?;
        attributes.apply_to_fd(file.as_fd())
    }

    /// Creates a hard link to a file that was copied already.
    fn link(&self, place: &mut Place<'_>, job: &Job, path: &Path, first: &Path) -> Result<()> {
        if job.occupied {
            place.clear(path)?;
        }
        let error = |errno| Error::at("link", path, errno);
        let Some((parent, old)) = self.dest.parent_of(first)? else {
            return Err(error(Errno::PERM));
        };
        let (dir, name) = place.of(path)?;
        linkat(&parent, old, dir, names::path(name), AtFlags::empty()).map_err(error)
    }
}

/// Returns the attributes of the copy of an entry.
pub(super) fn attributes(options: &CopyOptions, metadata: &Metadata) -> Attributes {
    let mode = match &options.mode {
        Some(change) => change.apply(metadata.mode, metadata.is_dir()),
        None => metadata.mode,
    };
    Attributes {
        mode: Some(mode),
        owner: Some(options.owner.unwrap_or(metadata.owner)),
        mtime: Some(options.mtime.unwrap_or(metadata.mtime)),
    }
}

/// Returns the final attributes of a directory. A directory that the copy created, or that was
/// selected below the source path, has all attributes of the source. For other directories, only
/// the attributes that BuildKit changes are set. A new directory that is only copied because of an
/// entry below it keeps its time of creation.
pub(super) fn directory(
    options: &CopyOptions,
    metadata: &Metadata,
    placement: Placement,
) -> Attributes {
    let all = attributes(options, metadata);
    let Placement { made, is_root, passed } = placement;
    match (made, is_root, passed) {
        (true, _, true) => Attributes { mtime: None, ..all },
        (true, ..) | (false, false, false) => all,
        (false, true, _) => Attributes { mtime: all.mtime, ..Attributes::default() },
        (false, false, true) => Attributes { mode: Some(metadata.mode), ..Attributes::default() },
    }
}

fn make_link(
    dir: BorrowedFd<'_>,
    name: &[u8],
    target: &[u8],
    attributes: &Attributes,
) -> Result<(), Errno> {
    symlinkat(names::path(target), dir, names::path(name))?;
    attributes.apply_to_entry(dir, name, FileKind::Symlink)
}

//! The way from a path of the program to a file of the host.
//!
//! The supervisor walks through a path as the kernel would: from the process's root or working
//! directory, through links, up by `..` as far as the process's root, and into the mounts of the
//! table. Each component is opened without following a link, so a directory that another process
//! renames meanwhile leads to no other place. In `/proc`, `self` is the calling process, only the
//! program's own processes exist, and links to programs and directories lead to paths in the
//! container.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{CWD, FileType, Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;

use super::metadata::{Access, Metadata};
use super::mounts::{Directory, Mounts, join, kind_of, open_beneath, parent_of};
use super::processes;
use super::state::{State, States};
use crate::descriptors::path_of;
use crate::root::MAX_LINKS;

/// A thread that uses a path.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The number of the thread.
    pub(super) thread: u32,
    pub(super) state: Rc<State>,
}

/// A file of the container.
#[derive(Debug)]
pub(super) struct Found {
    /// The file, opened as a path. May be a link.
    pub(super) fd: OwnedFd,
    pub(super) kind: FileType,
    /// The path in the container, without links.
    pub(super) path: Vec<u8>,
    /// The number of the mount that holds the file. `None` for a file that only a descriptor leads
    /// to.
    pub(super) mount: Option<usize>,
}

/// The place of an entry, which may be missing.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) directory: Directory,
    pub(super) name: Vec<u8>,
    /// `true` if the path ends with a slash.
    pub(super) is_directory: bool,
}

impl Place {
    /// Returns the path of the entry in the container.
    pub(super) fn path(&self) -> Vec<u8> {
        join(&self.directory.path, &self.name)
    }
}

/// The tables that a path leads through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tables<'a> {
    pub(super) mounts: &'a Mounts,
    pub(super) states: &'a States,
    /// The number of the process that seems to be process 1.
    pub(super) first: u32,
}

/// The end of a walk.
enum Step {
    /// The walk continues in this directory.
    Into(Directory),
    /// The walk continues with the components of this link.
    Link(Vec<u8>),
    /// The walk has reached a file.
    File(Found),
}

struct Walk<'a> {
    tables: Tables<'a>,
    caller: &'a Caller,
    current: Directory,
    /// The components that follow, the next one last.
    rest: Vec<Vec<u8>>,
    links: u32,
}

impl<'a> Tables<'a> {
    /// Finds the file at `path`. With `follows`, a link at the end is followed.
    pub(super) fn find(
        self,
        caller: &'a Caller,
        base: &[u8],
        path: &[u8],
        follows: bool,
    ) -> Result<Found, Errno> {
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        if let Some(found) = self.find_at_once(caller, base, path, follows) {
            return Ok(found);
        }
        let mut walk = self.walk(caller, base, path)?;
        let follows = follows || path.ends_with(b"/");
        while let Some(name) = walk.rest.pop() {
            let is_last = walk.rest.is_empty();
            match walk.step(&name, !is_last || follows)? {
                Step::Into(directory) => walk.current = directory,
                Step::Link(target) => walk.follow(&target)?,
                Step::File(found) if is_last => {
                    if path.ends_with(b"/") && found.kind != FileType::Directory {
                        return Err(Errno::NOTDIR);
                    }
                    return Ok(found);
                }
                Step::File(_) => return Err(Errno::NOTDIR),
            }
        }
        let Directory { path, fd, mount } = walk.current;
        let fd = rustix::io::fcntl_dupfd_cloexec(fd.as_fd(), 0)?;
        Ok(Found { fd, kind: FileType::Directory, path, mount: Some(mount) })
    }

    /// Finds a file with a single system call, if no link and no other mount is on the way.
    fn find_at_once(
        self,
        caller: &Caller,
        base: &[u8],
        path: &[u8],
        follows: bool,
    ) -> Option<Found> {
        let state = &caller.state;
        if !state.overrides_modes() || path.ends_with(b"/") {
            return None;
        }
        let start: &[u8] = if path.starts_with(b"/") { &state.root } else { base };
        let mut whole = if start == b"/" { Vec::new() } else { start.to_vec() };
        for name in path.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => {}
                b".." => return None,
                name => {
                    whole.push(b'/');
                    whole.extend_from_slice(name);
                }
            }
        }
        if whole.is_empty() {
            whole.push(b'/');
        }
        let (mount, rest) = self.mounts.holding(&whole);
        let held = self.mounts.get(mount);
        if held.is_proc || rest == b"." {
            return None;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let fd = open_beneath(held.fd.as_fd(), rest, flags).ok()?;
        let kind = kind_of(fd.as_fd()).ok()?;
        let is_found = kind != FileType::Symlink || !follows;
        is_found.then_some(Found { fd, kind, path: whole, mount: Some(mount) })
    }

    /// Returns the state of the process that a file of `/proc` belongs to.
    pub(super) fn process_at(self, mount: usize, path: &[u8]) -> Option<Rc<State>> {
        if !self.mounts.get(mount).is_proc {
            return None;
        }
        let process = path.split(|byte| *byte == b'/').nth(2)?;
        Some(self.states.of(processes::number(process)?))
    }

    /// Finds the directory of the last component of `path`.
    pub(super) fn place(
        self,
        caller: &'a Caller,
        base: &[u8],
        path: &[u8],
    ) -> Result<Place, Errno> {
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        let mut walk = self.walk(caller, base, path)?;
        while walk.rest.len() > 1 {
            let Some(name) = walk.rest.pop() else { break };
            match walk.step(&name, true)? {
                Step::Into(directory) => walk.current = directory,
                Step::Link(target) => walk.follow(&target)?,
                Step::File(_) => return Err(Errno::NOTDIR),
            }
        }
        let Some(name) = walk.rest.pop() else { return Err(Errno::EXIST) };
        walk.may_search()?;
        Ok(Place { directory: walk.current, name, is_directory: path.ends_with(b"/") })
    }

    fn walk(self, caller: &'a Caller, base: &[u8], path: &[u8]) -> Result<Walk<'a>, Errno> {
        let start: &[u8] = if path.starts_with(b"/") { &caller.state.root } else { base };
        let current = self.mounts.open_directory(start)?;
        Ok(Walk { tables: self, caller, current, rest: components(path), links: 0 })
    }
}

/// Returns the components of a path, the first one last. Leaves out those that mean nothing.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|byte| *byte == b'/');
    let mut names: Vec<_> =
        names.filter(|name| !name.is_empty() && *name != b".").map(<[u8]>::to_vec).collect();
    names.reverse();
    names
}

impl Walk<'_> {
    /// Continues with the target of a link.
    fn follow(&mut self, target: &[u8]) -> Result<(), Errno> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::LOOP);
        }
        if target.is_empty() {
            return Err(Errno::NOENT);
        }
        if target.starts_with(b"/") {
            self.current = self.tables.mounts.open_directory(&self.caller.state.root)?;
        }
        self.rest.extend(components(target));
        Ok(())
    }

    fn may_search(&self) -> Result<(), Errno> {
        if self.caller.state.overrides_modes() {
            return Ok(());
        }
        let mount = self.tables.mounts.get(self.current.mount);
        let mut metadata = Metadata::of(self.current.fd.as_fd(), mount.shown)?;
        if let Some(state) = self.tables.process_at(self.current.mount, &self.current.path) {
            metadata.belong_to(&state);
        }
        if metadata.allows(&self.caller.state, Access::EXECUTE) {
            Ok(())
        } else {
            Err(Errno::ACCESS)
        }
    }

    fn step(&mut self, name: &[u8], follows: bool) -> Result<Step, Errno> {
        self.may_search()?;
        let mounts = self.tables.mounts;
        if name == b".." {
            let is_root = self.current.path == self.caller.state.root;
            let path = if is_root { &self.current.path } else { parent_of(&self.current.path) };
            return mounts.open_directory(path).map(Step::Into);
        }
        let path = join(&self.current.path, name);
        if let Some(mount) = mounts.at(&path) {
            let fd = &mounts.get(mount).fd;
            let kind = kind_of(fd.as_fd())?;
            if kind == FileType::Directory {
                return Ok(Step::Into(Directory { path, fd: Rc::clone(fd), mount }));
            }
            let fd = rustix::io::fcntl_dupfd_cloexec(fd.as_fd(), 0)?;
            return Ok(Step::File(Found { fd, kind, path, mount: Some(mount) }));
        }
        if mounts.get(self.current.mount).is_proc
            && let Some(step) = self.step_in_proc(name, follows)?
        {
            return Ok(step);
        }
        self.step_plainly(name, path, follows)
    }

    fn step_plainly(&mut self, name: &[u8], path: Vec<u8>, follows: bool) -> Result<Step, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(self.current.fd.as_fd(), name, flags, Mode::empty())?;
        let mount = self.current.mount;
        match kind_of(fd.as_fd())? {
            FileType::Directory => Ok(Step::Into(Directory { path, fd: Rc::new(fd), mount })),
            FileType::Symlink if follows => {
                Ok(Step::Link(readlinkat(&fd, "", Vec::new())?.into_bytes()))
            }
            kind => Ok(Step::File(Found { fd, kind, path, mount: Some(mount) })),
        }
    }

    /// Handles the entries of `/proc` that mean something else to the program than to the
    /// supervisor.
    fn step_in_proc(&mut self, name: &[u8], follows: bool) -> Result<Option<Step>, Errno> {
        let place = self.current.path.strip_prefix(b"/proc").unwrap_or_default();
        let places: Vec<&[u8]> = place.split(|byte| *byte == b'/').skip(1).collect();
        let process = match places.as_slice() {
            [] => return self.step_in_proc_root(name, follows),
            [process, ..] => processes::number(process).ok_or(Errno::NOENT),
        };
        let Ok(process) = process else { return Ok(None) };
        let is_process = matches!(places.as_slice(), [_] | [_, b"task", _]);
        let is_table = matches!(places.as_slice(), [_, b"fd"] | [_, b"task", _, b"fd"]);
        if is_table && follows {
            return self.step_through_descriptor(name).map(Some);
        }
        if !is_process || !follows {
            return Ok(None);
        }
        let state = self.tables.states.of(process);
        let target = match name {
            b"exe" => &state.program,
            b"cwd" => &state.directory,
            b"root" => &state.root,
            _ => return Ok(None),
        };
        // The paths are those of the container, not of the caller's root.
        self.current = self.tables.mounts.open_directory(b"/")?;
        Ok(Some(Step::Link(target.strip_prefix(b"/").map_or(b".".to_vec(), |path| {
            if path.is_empty() { b".".to_vec() } else { path.to_vec() }
        }))))
    }

    fn step_in_proc_root(&mut self, name: &[u8], follows: bool) -> Result<Option<Step>, Errno> {
        let thread = self.caller.thread;
        let own = match name {
            b"self" => Some(processes::leader(thread)?.to_string()),
            b"thread-self" => Some(format!("{}/task/{thread}", processes::leader(thread)?)),
            _ => None,
        };
        if let Some(target) = own {
            return Ok(follows.then(|| Step::Link(target.into_bytes())));
        }
        if name == b"1" && self.tables.first != 0 {
            return self
                .step_plainly(
                    self.tables.first.to_string().as_bytes(),
                    join(&self.current.path, self.tables.first.to_string().as_bytes()),
                    follows,
                )
                .map(Some);
        }
        if let Some(process) = processes::number(name) {
            return if processes::is_ours(process) { Ok(None) } else { Err(Errno::NOENT) };
        }
        Ok(None)
    }

    /// Follows a link to an open file of a process.
    fn step_through_descriptor(&mut self, name: &[u8]) -> Result<Step, Errno> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let fd = openat(self.current.fd.as_fd(), name, flags, Mode::empty())?;
        let kind = kind_of(fd.as_fd())?;
        let host = path_of(fd.as_fd())?;
        let path = self.tables.mounts.path_in_container(&host);
        let mount = path.as_ref().map(|path| self.tables.mounts.holding(path).0);
        match (kind, path, mount) {
            (FileType::Directory, Some(path), Some(mount)) => {
                Ok(Step::Into(Directory { path, fd: Rc::new(fd), mount }))
            }
            (kind, path, mount) => {
                Ok(Step::File(Found { fd, kind, path: path.unwrap_or(host), mount }))
            }
        }
    }
}

/// Returns the target of a link.
pub(super) fn link_target(
    found: &Found,
    tables: Tables<'_>,
    thread: u32,
) -> Result<Vec<u8>, Errno> {
    let is_proc = found.mount.is_some_and(|mount| tables.mounts.get(mount).is_proc);
    let target = readlinkat(&found.fd, "", Vec::new());
    if !is_proc {
        return Ok(target?.into_bytes());
    }
    let leader = || processes::leader(thread);
    match &found.path[..] {
        b"/proc/self" => {
            let leader = leader()?;
            let shown = if leader == tables.first { 1 } else { leader };
            return Ok(shown.to_string().into_bytes());
        }
        b"/proc/thread-self" => return Ok(format!("{}/task/{thread}", leader()?).into_bytes()),
        _ => {}
    }
    let places: Vec<&[u8]> = found.path.split(|byte| *byte == b'/').skip(2).collect();
    let process = places.first().and_then(|process| processes::number(process));
    let state = process.map(|process| tables.states.of(process));
    match (state, places.last()) {
        (Some(state), Some(&b"exe")) => Ok(state.program.clone()),
        (Some(state), Some(&b"cwd")) => Ok(state.directory.clone()),
        (Some(state), Some(&b"root")) => Ok(state.root.clone()),
        (Some(_), _) => {
            // `readlinkat` on a magic link's own descriptor isn't possible on all kernels.
            let host = match target {
                Ok(target) => target,
                Err(_) => readlinkat(CWD, &found.path[..], Vec::new())?,
            };
            let host = host.into_bytes();
            Ok(tables.mounts.path_in_container(&host).filter(|_| host[0] == b'/').unwrap_or(host))
        }
        (None, _) => Ok(target?.into_bytes()),
    }
}

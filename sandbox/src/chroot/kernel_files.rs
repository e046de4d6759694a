//! The files of `/proc`, `/sys` and `/dev/pts`, opened outside for the program.
//!
//! The program sees the processes of its own step only. It never gets a directory of these file
//! systems, but a skeleton in its tree. Everything outside of the process directories is read-only.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, RawDir, ResolveFlags, openat2};
use rustix::io::Errno;

use super::files;
use super::locate::{Kernel, ProgramTree, names};
use super::processes::{Caller, Processes};
use super::skeleton::{Entry, Skeletons};
use super::terminal;
use crate::descriptors::path_of;
use crate::masks;

/// The directories among the hidden entries of `/proc`. The others are files.
const HIDDEN_DIRECTORIES: [&[u8]; 3] = [b"acpi", b"asound", b"scsi"];

/// The mounts that a program sees. The kernel shows a program only the mounts below its root
/// directory, of which there are none.
const MOUNTS: &str = "\
overlay / overlay rw,nodev,relatime 0 0
proc /proc proc rw,nosuid,nodev,noexec,relatime 0 0
tmpfs /dev tmpfs rw,nosuid,nodev,size=65536k,mode=755 0 0
devpts /dev/pts devpts rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666 0 0
shm /dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=65536k 0 0
sysfs /sys sysfs ro,nosuid,nodev,noexec,relatime 0 0
";

/// The same mounts in the format of `mountinfo`.
const MOUNT_INFO: &str = "\
30 1 0:30 / / rw,nodev,relatime - overlay overlay rw
31 30 0:31 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
32 30 0:32 / /dev rw,nosuid,nodev - tmpfs tmpfs rw,size=65536k,mode=755
33 32 0:33 / /dev/pts rw,nosuid,noexec,relatime - devpts devpts rw,gid=5,mode=620,ptmxmode=666
34 32 0:34 / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k
35 30 0:35 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs ro
";

/// The result of following a path.
#[derive(Debug)]
pub(super) enum Resolved {
    /// The path leads back to this path in the tree.
    Inside(Vec<u8>),
    /// A file of the kernel.
    Node(Node),
}

/// A file of the kernel.
#[derive(Debug)]
pub(super) struct Node {
    kernel: Kernel,
    /// The path below the file system's root.
    path: Vec<Vec<u8>>,
    kind: Kind,
}

/// The kind of a file of the kernel, for the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A directory.
    Directory,
    /// A directory that shows no entries.
    Hidden,
    /// A link that isn't followed, with its target.
    Link(Vec<u8>),
    /// The open file behind a link in `/proc/PID/fd`.
    Descriptor,
    /// A read-only file with this content.
    Text(Vec<u8>),
    /// Any other file.
    File,
}

/// The kernel's file systems outside.
#[derive(Debug)]
pub(super) struct KernelFiles {
    proc: OwnedFd,
    sys: Option<OwnedFd>,
    in_proc: Skeletons,
    in_sys: Skeletons,
    hostname: String,
    /// The numbers of the terminals that belong to the step.
    terminals: BTreeSet<u32>,
}

impl KernelFiles {
    /// Opens the file systems. The tree has directories in their place.
    pub(super) fn new(tree: &ProgramTree, hostname: &str) -> rustix::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path| rustix::fs::open(path, flags, Mode::empty());
        let place = |name| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            rustix::fs::openat(&tree.root, name, flags, Mode::empty())
        };
        Ok(Self {
            proc: open("/proc")?,
            sys: open("/sys").ok(),
            in_proc: Skeletons::new(place("proc")?),
            in_sys: Skeletons::new(place("sys")?),
            hostname: hostname.to_owned(),
            terminals: BTreeSet::new(),
        })
    }

    /// Lets the program open a terminal by its number.
    pub(super) fn add_terminal(&mut self, number: u32) {
        self.terminals.insert(number);
    }

    /// Follows a path below one of the file systems.
    pub(super) fn resolve(
        &self,
        tree: &ProgramTree,
        processes: &Processes,
        caller: &Caller,
        kernel: Kernel,
        path: Vec<Vec<u8>>,
        follows: bool,
    ) -> rustix::io::Result<Resolved> {
        match kernel {
            Kernel::Proc => self.resolve_proc(tree, processes, caller, path, follows),
            Kernel::Sys => self.resolve_sys(&path, follows),
            Kernel::Terminals => self.resolve_terminal(path),
        }
    }

    fn resolve_proc(
        &self,
        tree: &ProgramTree,
        processes: &Processes,
        caller: &Caller,
        path: Vec<Vec<u8>>,
        follows: bool,
    ) -> rustix::io::Result<Resolved> {
        let mut at: Vec<Vec<u8>> = Vec::new();
        let mut rest = path.into_iter();
        while let Some(name) = rest.next() {
            match name.as_slice() {
                b"." => continue,
                b".." => {
                    if at.pop().is_none() {
                        return Ok(Resolved::Inside(joined(b"/", rest.as_slice())));
                    }
                    continue;
                }
                _ => at.push(name),
            }
            // Programs look at process 1 to find out what they run in.
            if let [number] = at.as_mut_slice()
                && number == b"1"
            {
                *number = processes.first.to_string().into_bytes();
            }
            if let ([number], true) = (at.as_slice(), is_number(&at[0])) {
                let number = text(number).parse().map_err(|_| Errno::NOENT)?;
                if !processes.has(number) {
                    return Err(Errno::NOENT);
                }
            }
            let is_last = rest.as_slice().is_empty();
            if is_last && !follows {
                break;
            }
            let words: Vec<&[u8]> = at.iter().map(Vec::as_slice).collect();
            if words.len() > 1 && !is_number(words[0]) {
                continue;
            }
            let process = caller.process.to_string().into_bytes();
            match words.as_slice() {
                [b"self"] => at = vec![process],
                [b"thread-self"] => {
                    at = vec![process, b"task".to_vec(), caller.thread.to_string().into_bytes()];
                }
                [name @ (b"mounts" | b"net")] => at = vec![process, name.to_vec()],
                [_, .., b"cwd" | b"root" | b"exe"] => {
                    let target = self.link(tree, caller, &at)?;
                    return Ok(Resolved::Inside(joined(&target, rest.as_slice())));
                }
                [_, .., b"fd", _] => {
                    let target = self.link(tree, caller, &at);
                    if !is_last || self.is_directory(caller, &at) {
                        let target = target?;
                        return match target.first() {
                            Some(b'/') => Ok(Resolved::Inside(joined(&target, rest.as_slice()))),
                            _ => Err(Errno::NOTDIR),
                        };
                    }
                }
                _ => {}
            }
        }
        let kind = self.kind_in_proc(tree, processes, caller, &at, follows)?;
        Ok(Resolved::Node(Node { kernel: Kernel::Proc, path: at, kind }))
    }

    fn kind_in_proc(
        &self,
        tree: &ProgramTree,
        processes: &Processes,
        caller: &Caller,
        at: &[Vec<u8>],
        follows: bool,
    ) -> rustix::io::Result<Kind> {
        let words: Vec<&[u8]> = at.iter().map(Vec::as_slice).collect();
        match words.as_slice() {
            [] => return Ok(Kind::Directory),
            [name, ..] if masks::hides_in_proc(name) => {
                let is_directory = HIDDEN_DIRECTORIES.contains(name);
                return Ok(if is_directory { Kind::Hidden } else { Kind::Text(Vec::new()) });
            }
            [b"self"] => return Ok(Kind::Link(shown(processes, caller.process))),
            [b"thread-self"] => {
                let [process, thread] =
                    [caller.process, caller.thread].map(|it| shown(processes, it));
                return Ok(Kind::Link([process.as_slice(), b"/task/", &thread].concat()));
            }
            [_, .., b"mounts"] => return Ok(Kind::Text(MOUNTS.into())),
            [_, .., b"mountinfo"] => return Ok(Kind::Text(MOUNT_INFO.into())),
            [_, .., b"mountstats"] => return Ok(Kind::Text(Vec::new())),
            [b"sys", b"kernel", b"hostname"] => {
                return Ok(Kind::Text(format!("{}\n", self.hostname).into_bytes()));
            }
            _ => {}
        }
        let file = caller.with_its_rights(|| open_link(&self.proc, at))?;
        Ok(match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
            FileType::Directory => Kind::Directory,
            FileType::Symlink if !follows => Kind::Link(self.link(tree, caller, at)?),
            FileType::Symlink if words.len() > 2 && words[words.len() - 2] == b"fd" => {
                Kind::Descriptor
            }
            FileType::Symlink => return Err(Errno::ACCESS),
            _ => Kind::File,
        })
    }

    /// Reads a link in `/proc`, as the program sees it.
    fn link(
        &self,
        tree: &ProgramTree,
        caller: &Caller,
        at: &[Vec<u8>],
    ) -> rustix::io::Result<Vec<u8>> {
        let path = joined(b"", at);
        let target = caller
            .with_its_rights(|| rustix::fs::readlinkat(&self.proc, &path[1..], Vec::new()))?
            .into_bytes();
        match tree.inside(&target) {
            Some(inside) => Ok(inside.to_vec()),
            // Only files, not directories, can be elsewhere.
            None if at.last().is_some_and(|name| matches!(name.as_slice(), b"cwd" | b"root")) => {
                Err(Errno::NOENT)
            }
            None => Ok(target),
        }
    }

    fn is_directory(&self, caller: &Caller, at: &[Vec<u8>]) -> bool {
        let path = joined(b"", at);
        let stat = caller.with_its_rights(|| {
            rustix::fs::statat(&self.proc, &path[1..], rustix::fs::AtFlags::empty())
        });
        stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    fn resolve_sys(&self, path: &[Vec<u8>], follows: bool) -> rustix::io::Result<Resolved> {
        let mut depth = 0_usize;
        for (place, name) in path.iter().enumerate() {
            match name.as_slice() {
                b"." => {}
                b".." if depth == 0 => {
                    return Ok(Resolved::Inside(joined(b"/", &path[place + 1..])));
                }
                b".." => depth -= 1,
                _ => depth += 1,
            }
        }
        let file = self.open_sys(path, follows)?;
        let real = path_of(&file)?;
        let real = real.strip_prefix(b"/sys").ok_or(Errno::NOENT)?;
        let path: Vec<Vec<u8>> = names(real).map(<[u8]>::to_vec).collect();
        let kind = match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
            _ if masks::hides_in_sys(real) => Kind::Hidden,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => {
                Kind::Link(rustix::fs::readlinkat(&file, "", Vec::new())?.into_bytes())
            }
            _ => Kind::File,
        };
        Ok(Resolved::Node(Node { kernel: Kernel::Sys, path, kind }))
    }

    fn open_sys(&self, path: &[Vec<u8>], follows: bool) -> rustix::io::Result<OwnedFd> {
        let sys = self.sys.as_ref().ok_or(Errno::NOENT)?;
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        flags.set(OFlags::NOFOLLOW, !follows);
        let path = joined(b".", path);
        openat2(sys, path.as_slice(), flags, Mode::empty(), ResolveFlags::BENEATH)
    }

    fn resolve_terminal(&self, path: Vec<Vec<u8>>) -> rustix::io::Result<Resolved> {
        let is_known = match path.as_slice() {
            [] => return Ok(Resolved::Inside(b"/dev/pts".to_vec())),
            [first, ..] if first == b".." => {
                return Ok(Resolved::Inside(joined(b"/dev", &path[1..])));
            }
            [name] if name == b"ptmx" => true,
            [name] => text(name).parse().is_ok_and(|number| self.terminals.contains(&number)),
            _ => false,
        };
        if !is_known {
            return Err(Errno::NOENT);
        }
        Ok(Resolved::Node(Node { kernel: Kernel::Terminals, path, kind: Kind::File }))
    }
}

impl KernelFiles {
    /// Opens a file for the program.
    pub(super) fn open(
        &mut self,
        tree: &ProgramTree,
        processes: &Processes,
        caller: &Caller,
        node: &Node,
        flags: OFlags,
    ) -> rustix::io::Result<OwnedFd> {
        let is_directory = matches!(node.kind, Kind::Directory | Kind::Hidden);
        if flags.contains(OFlags::CREATE | OFlags::EXCL) {
            return Err(Errno::EXIST);
        }
        if flags.contains(OFlags::DIRECTORY) && !is_directory {
            return Err(Errno::NOTDIR);
        }
        let file = if flags.contains(OFlags::PATH) && !is_directory {
            self.open_path(caller, node)?
        } else {
            self.open_node(tree, processes, caller, node, flags)?
        };
        // The name may lead to another file by now. A directory outside is a way out of the tree.
        let is_now = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
        let has_changed = !is_directory && is_now == FileType::Directory;
        if has_changed { Err(Errno::ACCESS) } else { Ok(file) }
    }

    fn open_node(
        &mut self,
        tree: &ProgramTree,
        processes: &Processes,
        caller: &Caller,
        node: &Node,
        flags: OFlags,
    ) -> rustix::io::Result<OwnedFd> {
        let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC);
        match &node.kind {
            Kind::Directory | Kind::Hidden if writes => Err(Errno::ISDIR),
            Kind::Directory | Kind::Hidden => self.skeleton(tree, processes, caller, node),
            Kind::Link(_) => Err(Errno::LOOP),
            _ if writes && node.is_read_only() => Err(Errno::ROFS),
            Kind::Text(text) => files::memory(text, 0o444, 0, 0, true)
                .and_then(|memory| files::open_again(&memory, OFlags::RDONLY)),
            Kind::File | Kind::Descriptor => self.open_real(caller, node, flags),
        }
    }

    fn open_real(
        &mut self,
        caller: &Caller,
        node: &Node,
        flags: OFlags,
    ) -> rustix::io::Result<OwnedFd> {
        let kept = OFlags::ACCMODE | OFlags::APPEND | OFlags::NONBLOCK | OFlags::TRUNC;
        // The supervisor must neither get a controlling terminal nor wait for the other end of a
        // pipe.
        let own = OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let wanted = (flags & kept) | own;
        if node.kernel == Kernel::Terminals && node.path == [b"ptmx"] {
            let (controller, number) = terminal::open_controller()?;
            self.terminals.insert(number);
            return unblocked(controller, flags);
        }
        let path = joined(b"", &node.path);
        let file = caller.with_its_rights(|| match (&node.kind, node.kernel) {
            (Kind::Descriptor, _) => {
                rustix::fs::openat(&self.proc, &path[1..], wanted, Mode::empty())
            }
            (_, Kernel::Proc) => {
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                openat2(&self.proc, &path[1..], wanted, Mode::empty(), resolve)
            }
            (_, Kernel::Sys) => {
                let sys = self.sys.as_ref().ok_or(Errno::NOENT)?;
                openat2(sys, &path[1..], wanted, Mode::empty(), ResolveFlags::BENEATH)
            }
            (_, Kernel::Terminals) => {
                rustix::fs::open([b"/dev/pts", path.as_slice()].concat(), wanted, Mode::empty())
            }
        })?;
        unblocked(file, flags)
    }

    /// Opens a file only to look at it. Opens the link itself if it is one.
    pub(super) fn open_path(&self, caller: &Caller, node: &Node) -> rustix::io::Result<OwnedFd> {
        let path = joined(b"", &node.path);
        match (&node.kind, node.kernel) {
            (Kind::Text(text), _) => files::memory(text, 0o444, 0, 0, true),
            (Kind::Descriptor, _) => caller.with_its_rights(|| {
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                rustix::fs::openat(&self.proc, &path[1..], flags, Mode::empty())
            }),
            (_, Kernel::Proc) => caller.with_its_rights(|| open_link(&self.proc, &node.path)),
            (_, Kernel::Sys) => self.open_sys(&node.path, false),
            (_, Kernel::Terminals) => {
                let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                let path = [b"/dev/pts", path.as_slice()].concat();
                rustix::fs::open(path, flags, Mode::empty())
            }
        }
    }

    /// Makes a directory in the tree that shows the names of a directory.
    fn skeleton(
        &mut self,
        tree: &ProgramTree,
        processes: &Processes,
        caller: &Caller,
        node: &Node,
    ) -> rustix::io::Result<OwnedFd> {
        let mut entries = Vec::new();
        if node.kind == Kind::Directory {
            let path = joined(b".", &node.path);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let top = match node.kernel {
                Kernel::Sys => self.sys.as_ref().ok_or(Errno::NOENT)?,
                _ => &self.proc,
            };
            let directory = caller
                .with_its_rights(|| openat2(top, path.as_slice(), flags, Mode::empty(), resolve))?;
            entries = list(&directory)?;
        }
        if node.kernel == Kernel::Sys {
            return self.in_sys.make(&node.path, &entries);
        }
        if node.path.is_empty() {
            entries.retain(|entry| !is_number(&entry.name));
            let own = processes.all().into_iter().map(|(number, _)| Entry {
                name: shown(processes, number.cast_unsigned()),
                kind: FileType::Directory,
                target: Vec::new(),
            });
            entries.extend(own);
        }
        for entry in entries.iter_mut().filter(|entry| entry.kind == FileType::Symlink) {
            let mut at = node.path.clone();
            at.push(entry.name.clone());
            entry.target = match self.kind_in_proc(tree, processes, caller, &at, false) {
                Ok(Kind::Link(target)) => target,
                _ => b"?".to_vec(),
            };
        }
        self.in_proc.make(&node.path, &entries)
    }
}

impl Node {
    /// Returns the target of a link.
    pub(super) fn target(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::Link(target) => Some(target),
            _ => None,
        }
    }

    /// Returns `true` if no user can write to the file.
    pub(super) fn is_read_only(&self) -> bool {
        match self.kernel {
            Kernel::Proc => {
                matches!(self.kind, Kind::Text(_))
                    || !self.path.first().is_some_and(|name| is_number(name))
            }
            Kernel::Sys => true,
            Kernel::Terminals => false,
        }
    }
}

/// Clears the flag that was set for the supervisor, unless the program wanted it.
fn unblocked(file: OwnedFd, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    if !flags.contains(OFlags::NONBLOCK) {
        let now = rustix::fs::fcntl_getfl(&file)?;
        rustix::fs::fcntl_setfl(&file, now - OFlags::NONBLOCK)?;
    }
    Ok(file)
}

/// Opens an entry itself, even if it is a link. Follows no link before it.
fn open_link(top: &OwnedFd, at: &[Vec<u8>]) -> rustix::io::Result<OwnedFd> {
    let path = joined(b".", at);
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(top, path.as_slice(), flags, Mode::empty(), resolve)
}

fn list(directory: &OwnedFd) -> rustix::io::Result<Vec<Entry>> {
    let mut buffer = Vec::with_capacity(32 << 10);
    let mut reader = RawDir::new(directory, buffer.spare_capacity_mut());
    let mut entries = Vec::new();
    while let Some(entry) = reader.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes().to_vec();
        if !matches!(name.as_slice(), b"." | b"..") {
            entries.push(Entry { name, kind: entry.file_type(), target: Vec::new() });
        }
    }
    for entry in entries.iter_mut().filter(|entry| entry.kind == FileType::Symlink) {
        if let Ok(target) = rustix::fs::readlinkat(directory, entry.name.as_slice(), Vec::new()) {
            entry.target = target.into_bytes();
        }
    }
    Ok(entries)
}

/// Returns `start` with a slash before each of the names.
pub(super) fn joined(start: &[u8], names: &[Vec<u8>]) -> Vec<u8> {
    let mut path = start.to_vec();
    for name in names {
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend(name);
    }
    path
}

/// Returns the number of a process that the program sees.
fn shown(processes: &Processes, process: u32) -> Vec<u8> {
    let is_first = processes.is_numbered && process.cast_signed() == processes.first;
    if is_first { b"1".to_vec() } else { process.to_string().into_bytes() }
}

fn is_number(name: &[u8]) -> bool {
    name.iter().all(u8::is_ascii_digit)
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

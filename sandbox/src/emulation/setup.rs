//! The setup of a program's emulation: its mounts, `/dev`, and its first state.

#![expect(clippy::disallowed_methods, reason = "the file is the kernel's")]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, chmod, mkdirat, openat, readlinkat, symlinkat};
use rustix::io::Errno;

use super::metadata::Metadata;
use super::mounts::{Mounts, Shown, VirtualMount, join, parent_of};
use super::resolve::Caller;
use super::scratch::Scratch;
use super::sockets::Sockets;
use super::start::Process;
use super::state::{Roles, State, States};
use super::{Copies, Emulation, processes};
use crate::child;
use crate::descriptors::own_path;
use crate::devices::{DEVICES, LINKS, Terminal};
use crate::helper::Task;
use crate::masks;
use crate::root::{MAX_LINKS, clean};
use crate::run::memory_file;
use crate::sources::open_inside;
use crate::spec::{Mount, MountKind, Spec, TmpfsOptions, Tree};
use crate::stubs::{CreatedStubs, keeping_times};
use crate::users::ResolvedUser;
use crate::wire::Failure;

const PATH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Makes the emulation of a program, and the parts of the program's process.
pub(super) fn prepare(task: &Task) -> Result<(Emulation, Process), Failure> {
    rustix::process::umask(Mode::empty());
    let spec = &task.spec;
    if !spec.sysctls.is_empty() {
        // They are settings of a namespace, and here the machine's.
        return Err(Failure::new(
            "a kernel parameter is impossible without namespaces (isolation: none)",
        ));
    }
    let Some(path) = spec.rootfs.directory() else {
        return Err(Failure::new("without mounts, a root file system has to be one directory"));
    };
    let root = rustix::fs::open(path, PATH | OFlags::DIRECTORY, Mode::empty())
        .map_err(Failure::doing("open the root file system"))?;
    let (user, home) = child::resolve_user(&root, &spec.process)?;
    let scratch = Scratch::new(&task.anchor).map_err(Failure::doing("make a directory"))?;
    let mounts = Mounts::new(root).map_err(Failure::doing("open the root file system"))?;
    let listing = scratch.directory("proc").map_err(Failure::doing("make a directory"))?;
    let directory = scratch.fd().try_clone().map_err(Failure::doing("open a directory"))?;
    let mut setup = Setup {
        emulation: Emulation {
            mounts,
            states: States::new(State::of_root()),
            memory: RefCell::default(),
            scratch,
            copies: Copies::default(),
            sockets: Sockets::default(),
            pending: HashMap::default(),
            hostname: spec.hostname.clone(),
            domain: spec.domainname.clone(),
            listing,
            is_listed: Cell::new(false),
            first: 0,
            capabilities: spec.privileges.capabilities.set().bits(),
        },
        made: CreatedStubs::default(),
        number: 0,
    };
    setup.mount_own(spec)?;
    let terminal = spec.process.terminal.map(Terminal::of_host).transpose()?;
    if let Some(terminal) = &terminal {
        setup.add_console(terminal)?;
    }
    for mount in &spec.mounts {
        setup.mount(mount).map_err(|failure| Failure {
            message: format!("mount at {}: {}", mount.target.display(), failure.message),
            ..failure
        })?;
    }
    let Setup { mut emulation, made, .. } = setup.finish(spec, &user)?;
    let trees = emulation.mounts.trees().map_err(Failure::doing("open a directory"))?;
    emulation.states = States::new(state_of(&user, &emulation, spec)?);
    Ok((emulation, Process { directory, trees, home, terminal, made }))
}

/// Returns the state of the program's process.
fn state_of(user: &ResolvedUser, emulation: &Emulation, spec: &Spec) -> Result<State, Failure> {
    use std::os::unix::ffi::OsStrExt;
    let caller = own_caller();
    let path = clean(&spec.process.cwd);
    let action = format!("enter working directory {}", path.display());
    let found = emulation.tables().find(&caller, b"/", path.as_os_str().as_bytes(), true);
    let found = found.map_err(Failure::doing(&action))?;
    if found.kind != FileType::Directory {
        return Err(Failure::doing(&action)(Errno::NOTDIR));
    }
    let (uid, gid, mut groups) = (user.uid, user.gid, user.groups.clone());
    // The kernel sorts them, too.
    groups.sort_unstable();
    let state = State::of_root();
    Ok(State {
        user: Roles::all(uid),
        group: Roles::all(gid),
        groups,
        directory: found.path,
        ..state
    })
}

fn own_caller() -> Caller {
    Caller { thread: processes::supervisor(), state: std::rc::Rc::new(State::of_root()) }
}

/// An emulation whose mounts are being made.
struct Setup {
    emulation: Emulation,
    made: CreatedStubs,
    /// The number of file systems in memory.
    number: usize,
}

/// The file to create in place of a missing one.
#[derive(Clone, Copy)]
enum Missing {
    /// A directory that is removed afterwards.
    StubDirectory,
    /// A file that is removed afterwards.
    StubFile,
    /// A directory that stays and has this owner.
    Directory(u32, u32),
}

impl Setup {
    /// Makes `/proc`, `/sys` and `/dev`.
    fn mount_own(&mut self, spec: &Spec) -> Result<(), Failure> {
        let listing = VirtualMount::new(b"/proc", reopened(&self.emulation.listing)?);
        let listing = listing.map_err(Failure::doing("mount /proc"))?;
        let proc = open_host("/proc")?;
        self.place(b"/proc", |mount| VirtualMount { is_proc: true, ..mount }, proc)?;
        self.emulation.mounts.add_below(VirtualMount { is_hidden: true, ..listing });
        // A container may have no `/sys`.
        if let Ok(sys) = open_host("/sys") {
            self.place(b"/sys", |mount| mount.readonly(true), sys)?;
        }
        let dev = self.emulation.scratch.directory("dev");
        let dev = dev.map_err(Failure::doing("make /dev"))?;
        let is_complete = fill_dev(&dev, spec).map_err(Failure::doing("furnish /dev"));
        is_complete?;
        self.place(b"/dev", |mount| mount, reopened(&dev)?)?;
        for (name, ..) in DEVICES {
            let path = format!("/dev/{name}");
            if let Ok(device) = open_host(&path) {
                self.place(path.as_bytes(), |mount| mount, device)?;
            }
        }
        self.mask(spec)?;
        if let Ok(pts) = open_host("/dev/pts") {
            self.place(b"/dev/pts", |mount| mount, pts)?;
        }
        let mut hostname = spec.hostname.clone().into_bytes();
        hostname.push(b'\n');
        let file = memory_file(&hostname).map_err(Failure::doing("make a file"))?;
        let shown = Some(Shown { mode: 0o444, uid: 0, gid: 0 });
        let path = b"/proc/sys/kernel/hostname";
        let mount = VirtualMount::new(path, file).map_err(Failure::doing("make a file"))?;
        self.emulation.mounts.add(VirtualMount { is_readonly: true, shown, ..mount });
        Ok(())
    }

    /// Hides parts of `/proc` and `/sys`.
    fn mask(&mut self, spec: &Spec) -> Result<(), Failure> {
        if !spec.security.is_sandbox() || !spec.privileges.hides_system {
            return Ok(());
        }
        let empty = self.emulation.scratch.directory("empty");
        let empty = empty.map_err(Failure::doing("make a directory"))?;
        for path in masks::masked() {
            let Ok(hidden) = open_host(&path) else { continue };
            let action = format!("mask {path}");
            let kind = super::kind_of(hidden.as_fd()).map_err(Failure::doing(&action))?;
            let is_directory = kind == FileType::Directory;
            let mask = if is_directory { reopened(&empty)? } else { open_host("/dev/null")? };
            let mount = VirtualMount::new(path.as_bytes(), mask);
            let mount = mount.map_err(Failure::doing(&action))?.readonly(is_directory);
            self.emulation.mounts.add(VirtualMount {
                is_memory: is_directory,
                is_alias: true,
                ..mount
            });
        }
        Ok(())
    }

    /// Shows the terminal as the console.
    fn add_console(&mut self, terminal: &Terminal) -> Result<(), Failure> {
        let peer = rustix::fs::open(own_path(terminal.peer.as_fd()), PATH, Mode::empty())
            .map_err(Failure::doing("open the terminal"))?;
        let alias = |mount| VirtualMount { is_alias: true, ..mount };
        self.place(b"/dev/console", alias, peer)
    }

    /// Makes a mount at a path without links.
    fn place(
        &mut self,
        target: &[u8],
        change: impl FnOnce(VirtualMount) -> VirtualMount,
        fd: OwnedFd,
    ) -> Result<(), Failure> {
        let shown = String::from_utf8_lossy(target).into_owned();
        let action = format!("mount {shown}");
        let kind = super::kind_of(fd.as_fd()).map_err(Failure::doing(&action))?;
        let missing =
            if kind == FileType::Directory { Missing::StubDirectory } else { Missing::StubFile };
        let path = self.open_or_make(target, missing).map_err(Failure::doing(&action))?;
        if path != target {
            return Err(Failure::new(format!("{action}: it is no directory in the image")));
        }
        let mount = VirtualMount::new(target, fd).map_err(Failure::doing(&action))?;
        self.emulation.mounts.add(change(mount));
        Ok(())
    }

    /// Makes a mount of the specification.
    fn mount(&mut self, mount: &Mount) -> Result<(), Failure> {
        use std::os::unix::ffi::OsStrExt;
        let target = clean(&mount.target);
        if target == Path::new("/") {
            return Err(Failure::new("nothing can be mounted over the root file system"));
        }
        let doing = |errno| Failure::doing::<Errno>("open")(errno);
        let is_in_proc = |emulation: &Emulation, path: &[u8]| {
            emulation.mounts.get(emulation.mounts.holding(path).0).is_proc
        };
        let in_proc = || Failure::new("nothing can be mounted in /proc");
        if is_in_proc(&self.emulation, target.as_os_str().as_bytes()) {
            return Err(in_proc());
        }
        let (fd, is_readonly, shown) = self.source(&mount.kind)?;
        let is_memory = matches!(mount.kind, MountKind::Tmpfs { .. });
        let kind = super::kind_of(fd.as_fd()).map_err(doing)?;
        let missing =
            if kind == FileType::Directory { Missing::StubDirectory } else { Missing::StubFile };
        let path = self.open_or_make(target.as_os_str().as_bytes(), missing).map_err(doing)?;
        if is_in_proc(&self.emulation, &path) {
            return Err(in_proc());
        }
        let found = self.emulation.tables().find(&own_caller(), b"/", &path, true);
        if (found.map_err(doing)?.kind == FileType::Directory) != (kind == FileType::Directory) {
            return Err(doing(Errno::NOTDIR));
        }
        let mount = VirtualMount::new(&path, fd).map_err(doing)?;
        self.emulation.mounts.add(VirtualMount { is_readonly, is_memory, shown, ..mount });
        Ok(())
    }

    /// Opens the source of a mount. Returns whether it is read-only, and the attributes to show.
    fn source(&mut self, kind: &MountKind) -> Result<(OwnedFd, bool, Option<Shown>), Failure> {
        match kind {
            MountKind::Bind { tree, selector, readonly, .. } => {
                Ok((bound(tree, selector)?, *readonly, None))
            }
            MountKind::Tmpfs { mode, options, .. } => {
                let fd = self.memory_directory(*mode, options);
                Ok((fd.map_err(Failure::doing("make a directory"))?, options.readonly, None))
            }
            MountKind::Device(path) => {
                let action = format!("mount device {}", path.display());
                let device = rustix::fs::open(path, PATH, Mode::empty());
                let device = device.map_err(Failure::doing(&action))?;
                let kind = super::kind_of(device.as_fd()).map_err(Failure::doing(&action))?;
                if !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
                    return Err(Failure::new(format!("{action}: it is no device")));
                }
                Ok((device, false, None))
            }
            MountKind::File { contents, mode, uid, gid, readonly } => {
                let file = memory_file(contents).map_err(Failure::doing("create file"))?;
                let shown = Shown { mode: *mode, uid: *uid, gid: *gid };
                Ok((file, *readonly, Some(shown)))
            }
        }
    }

    fn memory_directory(&mut self, mode: u32, options: &TmpfsOptions) -> io::Result<OwnedFd> {
        self.number += 1;
        let directory = self.emulation.scratch.directory(&format!("memory{}", self.number))?;
        let metadata = Metadata::of(directory.as_fd(), None)?;
        metadata.set_owner(directory.as_fd(), options.uid, options.gid)?;
        metadata.set_mode(directory.as_fd(), mode)?;
        Ok(directory)
    }

    /// Makes the working directory.
    fn finish(mut self, spec: &Spec, user: &ResolvedUser) -> Result<Self, Failure> {
        use std::os::unix::ffi::OsStrExt;
        let path = clean(&spec.process.cwd);
        let action = format!("create {} in the root file system", path.display());
        self.open_or_make(path.as_os_str().as_bytes(), Missing::Directory(user.uid, user.gid))
            .map_err(Failure::doing(&action))?;
        if spec.readonly_rootfs {
            self.emulation.mounts.make_root_readonly();
        }
        Ok(self)
    }

    /// Returns the path without links of a file, and creates its missing parts.
    fn open_or_make(&mut self, path: &[u8], missing: Missing) -> Result<Vec<u8>, Errno> {
        self.walk(path, missing, &mut 0)
    }

    fn walk(&mut self, path: &[u8], missing: Missing, links: &mut u32) -> Result<Vec<u8>, Errno> {
        let caller = own_caller();
        match self.emulation.tables().find(&caller, b"/", path, true) {
            Ok(found) => return Ok(found.path),
            Err(Errno::NOENT) if path != b"/" => {}
            Err(errno) => return Err(errno),
        }
        let above = match missing {
            Missing::StubFile => Missing::StubDirectory,
            other => other,
        };
        let parent = self.walk(parent_of(path), above, links)?;
        let start = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
        let name = &path[start..];
        let directory = self.emulation.mounts.open_directory(&parent)?;
        // A link whose target is missing: the target is created.
        if let Ok(target) = readlinkat(&directory.fd, name, Vec::new()) {
            *links += 1;
            if *links > MAX_LINKS {
                return Err(Errno::LOOP);
            }
            let target = join_text(&parent, target.as_bytes());
            return self.walk(&target, missing, links);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = openat(&directory.fd, ".", flags, Mode::empty())?;
        match self.make(&open, &join(&parent, name), missing, directory.mount == 0) {
            // Another step has made it in a directory that both have mounted.
            Err(Errno::EXIST) => {
                let found = self.emulation.tables().find(&caller, b"/", path, true)?;
                Ok(found.path)
            }
            made => made,
        }
    }

    fn make(
        &mut self,
        parent: &OwnedFd,
        path: &[u8],
        missing: Missing,
        is_in_root: bool,
    ) -> Result<Vec<u8>, Errno> {
        use std::os::unix::ffi::OsStrExt;
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let mode = Mode::from_raw_mode(0o755);
        match missing {
            Missing::Directory(uid, gid) => {
                mkdirat(parent, name, mode)?;
                let made = openat(parent, name, PATH | OFlags::NOFOLLOW, Mode::empty())?;
                Metadata::of(made.as_fd(), None)?.set_owner(made.as_fd(), uid, gid)?;
                return Ok(path.to_vec());
            }
            Missing::StubDirectory => keeping_times(parent, || mkdirat(parent, name, mode))?,
            Missing::StubFile => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let mode = Mode::from_raw_mode(0o644);
                keeping_times(parent, || openat(parent, name, flags, mode).map(drop))?;
            }
        }
        if is_in_root {
            let relative = path.strip_prefix(b"/").unwrap_or(path);
            self.made.stubs.push(Path::new(std::ffi::OsStr::from_bytes(relative)).to_owned());
        }
        Ok(path.to_vec())
    }
}

/// Returns the absolute path of a link's target.
fn join_text(directory: &[u8], target: &[u8]) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let directory = Path::new(std::ffi::OsStr::from_bytes(directory));
    let path = directory.join(std::ffi::OsStr::from_bytes(target));
    clean(&path).as_os_str().as_bytes().to_vec()
}

fn open_host(path: &str) -> Result<OwnedFd, Failure> {
    rustix::fs::open(path, PATH, Mode::empty()).map_err(Failure::doing(&format!("open {path}")))
}

/// Opens a directory once more as a path.
fn reopened(directory: &OwnedFd) -> Result<OwnedFd, Failure> {
    openat(directory, ".", PATH | OFlags::DIRECTORY, Mode::empty())
        .map_err(Failure::doing("open a directory"))
}

/// Opens the part of a tree that is mounted.
fn bound(tree: &Tree, selector: &Path) -> Result<OwnedFd, Failure> {
    let Some(path) = tree.directory() else {
        return Err(Failure::new("without mounts, a tree has to be one directory"));
    };
    let action = format!("open {}", path.display());
    let root = rustix::fs::open(path, PATH, Mode::empty()).map_err(Failure::doing(&action))?;
    if selector.as_os_str().is_empty() || selector == Path::new("/") {
        return Ok(root);
    }
    let action = format!("open {}", selector.display());
    open_inside(&root, selector, OFlags::PATH).map_err(Failure::doing(&action))
}

/// Makes the directories, the links and the places of devices in `/dev`.
fn fill_dev(dev: &OwnedFd, spec: &Spec) -> rustix::io::Result<()> {
    for (name, ..) in DEVICES {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        drop(openat(dev, name, flags, Mode::from_raw_mode(0o666))?);
    }
    for (target, name) in LINKS {
        // Not every kernel has `/proc/kcore`.
        if name == "core" && !Path::new(target).exists() {
            continue;
        }
        symlinkat(target, dev, name)?;
    }
    let mode = Mode::from_raw_mode(0o755);
    mkdirat(dev, "pts", mode)?;
    for (name, is_there) in [("mqueue", true), ("shm", spec.shm_size.is_some())] {
        if is_there {
            mkdirat(dev, name, mode)?;
            let made = openat(dev, name, PATH | OFlags::NOFOLLOW, Mode::empty())?;
            chmod(own_path(made.as_fd()), Mode::from_raw_mode(0o1777))?;
        }
    }
    Ok(())
}

//! The answers to a program's calls.
//!
//! Most calls of a program name ordinary files of its tree. The supervisor looks at the path and lets
//! the kernel execute the call. The supervisor answers the others itself: it hands in a descriptor,
//! or writes the result into the caller's memory.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::files::{self, ServedFile};
use super::kernel_files::{KernelFiles, Node, Resolved, joined};
use super::locate::{Place, ProgramTree, inode_of, names};
use super::processes::{Caller, Processes};
use super::readonly::{CHANGES, MountTable, OLD_CHANGES};
use super::terminal;
use crate::descriptors::own_path;
use crate::devices::{DEVICES, Terminal};
use crate::seccomp::{self, Filter, When};
use crate::sources::open_inside;
use crate::spec::Spec;
use crate::supervisor::{Call, Calls};
use crate::sys::{self, Answer};
use crate::tracee::Tracees;
use crate::uname::utsname;

/// The calls with a path that both architectures have.
const PATH_CALLS: [libc::c_long; 15] = [
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_mknodat,
    libc::SYS_uname,
];

/// The older calls with a path, which newer architectures don't have.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: [libc::c_long; 10] = [
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_unlink,
    libc::SYS_rmdir,
    libc::SYS_rename,
    libc::SYS_link,
    libc::SYS_mknod,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: [libc::c_long; 0] = [];

/// The calls that name a process.
const PROCESS_CALLS: [libc::c_long; 19] = [
    libc::SYS_pidfd_open,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_prlimit64,
    libc::SYS_setpriority,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
    libc::SYS_ioprio_set,
    libc::SYS_kcmp,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
];

/// The supervisor's knowledge of a program.
pub(super) struct ProgramCalls {
    tree: ProgramTree,
    files: Vec<ServedFile>,
    /// The devices and inodes of what stands for mounts.
    mounts: Vec<(u64, u64)>,
    table: MountTable,
    kernel: KernelFiles,
    processes: Processes,
    tracees: Tracees,
    hostname: Option<String>,
    /// The paths of executed programs in `/proc`, each with the number of the link that leads there.
    executed: Vec<Vec<u8>>,
}

/// The file that a path leads to, if the kernel can't open it for the program.
enum Found {
    Served(usize),
    Inside(Vec<u8>, Caller),
    Node(Node, Caller),
}

/// A call's result: an errno if it fails.
type Outcome = Result<Answer, Errno>;

/// The directory of a relative path, and the path's address.
#[derive(Clone, Copy)]
struct PathArgument {
    directory: i32,
    address: u64,
}

impl ProgramCalls {
    /// Prepares the answers for a program in `root`.
    pub(super) fn new(
        root: &OwnedFd,
        files: Vec<ServedFile>,
        spec: &Spec,
        terminal: Option<&Terminal>,
    ) -> io::Result<Self> {
        let tree = ProgramTree::new(root)?;
        let mut kernel = KernelFiles::new(&tree, &spec.hostname)?;
        if let Some(terminal) = terminal {
            kernel.add_terminal(terminal::number(&terminal.controller)?);
        }
        let hostname = (!spec.shared.uts).then(|| spec.hostname.clone());
        let mut processes = Processes::new(rustix::process::getpid().as_raw_nonzero().get());
        processes.is_numbered = spec.process.terminal.is_none() && !spec.shared.pid;
        let (tracees, executed) = (Tracees::default(), Vec::new());
        let own = ["/proc", "/sys", "/dev"].iter().map(Path::new);
        let targets = own.chain(spec.mounts.iter().map(|mount| mount.target.as_path()));
        let open = |target| open_inside(root, target, OFlags::PATH).ok();
        let mounts = targets.filter_map(open).filter_map(inode_of).collect();
        let table = MountTable::of(&tree, &spec.mounts);
        Ok(Self { tree, files, mounts, table, kernel, processes, tracees, hostname, executed })
    }

    /// Returns the filter that asks the supervisor.
    pub(super) fn filter(&self) -> io::Result<Filter> {
        let mut calls = [&PATH_CALLS[..], &OLD_CALLS[..], &PROCESS_CALLS[..]].concat();
        if self.processes.is_numbered {
            calls.extend([libc::SYS_getpid, libc::SYS_gettid, libc::SYS_getppid]);
        }
        if self.table.has_read_only() {
            calls.extend(CHANGES.iter().chain(&OLD_CHANGES).map(|(call, ..)| *call));
        }
        let when = |call| match call {
            // The kernel knows the status of an open file.
            libc::SYS_newfstatat => When::Without(3, libc::AT_EMPTY_PATH as u64),
            _ => When::Always,
        };
        let mut calls: Vec<_> = calls.into_iter().map(|call| (call, when(call))).collect();
        calls.push((libc::SYS_fcntl, seccomp::SIGNALS_OF_FILE));
        calls.push((libc::SYS_ioctl, seccomp::SIGNALS_OF_SOCKET));
        seccomp::notifying(&calls, true)
    }

    /// Notes the program's process.
    pub(super) fn begin(&mut self, program: i32) {
        self.processes.first = program;
        // Files aren't opened with the rights of kiln's own groups. Without the capability, kiln has
        // no groups of others.
        let _ = rustix::thread::set_thread_groups(&[]);
    }

    /// Finds the file of a path. Returns `None` if the kernel can do so itself.
    fn find(
        &mut self,
        call: &Call<'_>,
        path: PathArgument,
        follows: bool,
    ) -> Result<Option<Found>, Errno> {
        match self.full_path(call, path) {
            Some(full) => self.follow(call.notification.pid, full, follows),
            None => Ok(None),
        }
    }

    /// Returns the path of a call from the tree's root on. Returns `None` if the supervisor can't
    /// read it: the program may have changed its user.
    fn full_path(&mut self, call: &Call<'_>, path: PathArgument) -> Option<Vec<u8>> {
        let thread = call.notification.pid;
        let text = self.tracees.read_path(thread, path.address).ok()?;
        if text.is_empty() || !call.is_waiting() {
            return None;
        }
        if text.starts_with(b"/") {
            return Some(text);
        }
        let base = self.directory(thread, path.directory)?;
        Some([base.as_slice(), b"/", text.as_slice()].concat())
    }

    fn follow(
        &mut self,
        thread: u32,
        full: Vec<u8>,
        follows: bool,
    ) -> Result<Option<Found>, Errno> {
        let mut caller = None;
        let mut full = full;
        for _ in 0..40 {
            match self.tree.place(&full, follows) {
                Place::Ordinary if caller.is_none() => return Ok(None),
                Place::Inode(device, inode) => {
                    let is_it = |file: &ServedFile| file.inode == (device, inode);
                    if let Some(place) = self.files.iter().position(is_it) {
                        return Ok(Some(Found::Served(place)));
                    }
                    let Some(caller) = caller else { return Ok(None) };
                    return Ok(Some(Found::Inside(full, caller)));
                }
                Place::Ordinary => {
                    return Ok(caller.map(|caller| Found::Inside(full, caller)));
                }
                Place::Below(kernel, rest) => {
                    let who = match caller.take() {
                        Some(caller) => caller,
                        None => Caller::of(thread).map_err(|_| Errno::SRCH)?,
                    };
                    let resolved = self.kernel.resolve(
                        &self.tree,
                        &self.processes,
                        &who,
                        kernel,
                        rest,
                        follows,
                    )?;
                    match resolved {
                        Resolved::Node(node) => return Ok(Some(Found::Node(node, who))),
                        // The directory itself is in the tree.
                        Resolved::Inside(path) if path == b"/dev/pts" => {
                            return Ok(Some(Found::Inside(path, who)));
                        }
                        Resolved::Inside(path) => full = path,
                    }
                    caller = Some(who);
                }
            }
        }
        Err(Errno::LOOP)
    }

    /// Returns the path of a directory that a relative path begins at, in the tree.
    fn directory(&mut self, thread: u32, directory: i32) -> Option<Vec<u8>> {
        let link = if directory == libc::AT_FDCWD {
            format!("/proc/{thread}/cwd")
        } else {
            format!("/proc/{thread}/fd/{directory}")
        };
        let read = || rustix::fs::readlinkat(CWD, link.as_str(), Vec::new());
        let path = self.processes.with_rights_of(thread, read).ok()?;
        self.tree.inside(path.as_bytes()).map(<[u8]>::to_vec)
    }

    fn open(&mut self, call: &Call<'_>, path: PathArgument, how: How) -> Outcome {
        let creates = how.flags.contains(OFlags::CREATE | OFlags::EXCL);
        let follows = !how.flags.contains(OFlags::NOFOLLOW) && !creates;
        let Some(full) = self.full_path(call, path) else { return Ok(Answer::Continue) };
        let changes = OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC | OFlags::CREATE;
        if how.flags.intersects(changes) && self.is_refused(&full, follows, how.flags) {
            return Err(Errno::ROFS);
        }
        let found = self.follow(call.notification.pid, full, follows)?;
        let Some(found) = found else { return Ok(Answer::Continue) };
        let file = match found {
            Found::Served(place) => self.open_served(call.notification.pid, place, how.flags)?,
            Found::Inside(path, caller) => {
                let mode = Mode::from_raw_mode(how.mode & !caller.umask & 0o7777);
                let flags = how.flags | OFlags::NOCTTY | OFlags::CLOEXEC;
                caller.with_its_rights(|| {
                    openat2(&self.tree.root, path.as_slice(), flags, mode, ResolveFlags::IN_ROOT)
                })?
            }
            Found::Node(node, caller) => {
                self.kernel.open(&self.tree, &self.processes, &caller, &node, how.flags)?
            }
        };
        let closes_on_exec = how.flags.contains(OFlags::CLOEXEC);
        let number =
            call.add_descriptor(file, None, closes_on_exec).map_err(|error| errno_of(&error))?;
        Ok(Answer::Value(number))
    }

    /// Returns `true` if opening a file with these flags would change a read-only mount.
    fn is_refused(&self, full: &[u8], follows: bool, flags: OFlags) -> bool {
        if !self.table.is_read_only(&self.tree, full, follows) {
            return false;
        }
        let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC);
        writes || self.tree.place(full, follows) == Place::Ordinary
    }

    fn open_served(&self, thread: u32, place: usize, flags: OFlags) -> Result<OwnedFd, Errno> {
        let file = &self.files[place];
        let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC);
        if flags.contains(OFlags::CREATE | OFlags::EXCL) {
            return Err(Errno::EXIST);
        }
        if flags.contains(OFlags::DIRECTORY) {
            return Err(Errno::NOTDIR);
        }
        if writes && file.readonly {
            return Err(Errno::ROFS);
        }
        let kept = OFlags::ACCMODE | OFlags::APPEND | OFlags::NONBLOCK | OFlags::TRUNC;
        let kept = flags & (kept | OFlags::PATH);
        let caller = Caller::of(thread).map_err(|_| Errno::SRCH)?;
        caller.with_its_rights(|| files::open_again(&file.file, kept | OFlags::NOCTTY))
    }

    /// Opens what was found, to look at it.
    fn look(&self, found: Found, follows: bool) -> Result<OwnedFd, Errno> {
        match found {
            Found::Served(place) => {
                self.files[place].file.try_clone().map_err(|error| errno_of(&error))
            }
            Found::Inside(path, caller) => {
                let mut flags = OFlags::PATH | OFlags::CLOEXEC;
                flags.set(OFlags::NOFOLLOW, !follows);
                caller.with_its_rights(|| {
                    let none = Mode::empty();
                    openat2(&self.tree.root, path.as_slice(), flags, none, ResolveFlags::IN_ROOT)
                })
            }
            Found::Node(node, caller) => self.kernel.open_path(&caller, &node),
        }
    }

    fn status(
        &mut self,
        call: &Call<'_>,
        path: PathArgument,
        follows: bool,
        into: u64,
        mask: Option<u32>,
    ) -> Outcome {
        let Some(found) = self.find(call, path, follows)? else { return Ok(Answer::Continue) };
        let file = self.look(found, follows)?;
        let bytes = match mask {
            Some(mask) => sys::extended_status(file, mask),
            None => sys::status(file),
        }
        .map_err(|error| errno_of(&error))?;
        self.write(call, into, &bytes)?;
        Ok(Answer::Value(0))
    }

    fn access(&mut self, call: &Call<'_>, path: PathArgument, mode: u64, flags: u64) -> Outcome {
        let follows = flags & libc::AT_SYMLINK_NOFOLLOW as u64 == 0;
        let Some(found) = self.find(call, path, follows)? else { return Ok(Answer::Continue) };
        let access = Access::from_bits_truncate(mode as _);
        let is_read_only = match &found {
            Found::Served(place) => self.files[*place].readonly,
            Found::Node(node, _) => node.is_read_only(),
            Found::Inside(..) => false,
        };
        if is_read_only && access.contains(Access::WRITE_OK) {
            return Err(Errno::ROFS);
        }
        let caller = Caller::of(call.notification.pid).map_err(|_| Errno::SRCH)?;
        let file = self.look(found, follows)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::Symlink {
            let link = own_path(file.as_fd());
            caller.with_its_rights(|| rustix::fs::accessat(CWD, link, access, AtFlags::EACCESS))?;
        }
        Ok(Answer::Value(0))
    }

    fn read_link(&mut self, call: &Call<'_>, path: PathArgument, into: u64, size: u64) -> Outcome {
        let Some(found) = self.find(call, path, false)? else { return Ok(Answer::Continue) };
        let target = match found {
            Found::Served(_) => return Err(Errno::INVAL),
            Found::Node(node, _) => node.target().ok_or(Errno::INVAL)?.to_vec(),
            Found::Inside(path, caller) => {
                let link = self.look(Found::Inside(path, caller), false)?;
                rustix::fs::readlinkat(link, "", Vec::new())?.into_bytes()
            }
        };
        let length = target.len().min(usize::try_from(size).unwrap_or(usize::MAX));
        self.write(call, into, &target[..length])?;
        Ok(Answer::Value(length as i64))
    }

    fn write(&mut self, call: &Call<'_>, into: u64, bytes: &[u8]) -> Result<(), Errno> {
        if !call.is_waiting() {
            return Err(Errno::INTR);
        }
        self.tracees.write(call.notification.pid, into, bytes).map_err(|error| errno_of(&error))
    }

    /// Refuses to remove or replace what stands for a mount.
    fn remove(&mut self, call: &Call<'_>, path: PathArgument) -> Outcome {
        let Some(full) = self.full_path(call, path) else { return Ok(Answer::Continue) };
        if let Place::Inode(device, inode) = self.tree.place(&full, false)
            && self.mounts.contains(&(device, inode))
        {
            return Err(Errno::BUSY);
        }
        if self.table.is_read_only(&self.tree, &full, false) {
            return Err(Errno::ROFS);
        }
        match self.follow(call.notification.pid, full, false)? {
            Some(Found::Served(_) | Found::Inside(..)) => Err(Errno::BUSY),
            Some(Found::Node(..)) => Err(Errno::PERM),
            None => Ok(Answer::Continue),
        }
    }

    fn rename(&mut self, call: &Call<'_>, from: PathArgument, to: PathArgument) -> Outcome {
        for path in [from, to] {
            match self.remove(call, path)? {
                Answer::Continue => {}
                other => return Ok(other),
            }
        }
        self.join(call, from, to)
    }

    /// Refuses a link in a read-only mount.
    fn link(&mut self, call: &Call<'_>, from: PathArgument, to: PathArgument) -> Outcome {
        let full = self.full_path(call, to);
        if full.is_some_and(|full| self.table.is_read_only(&self.tree, &full, false)) {
            return Err(Errno::ROFS);
        }
        self.join(call, from, to)
    }

    /// Refuses a link or a move between two mounts.
    fn join(&mut self, call: &Call<'_>, from: PathArgument, to: PathArgument) -> Outcome {
        let paths = (self.full_path(call, from), self.full_path(call, to));
        let (Some(from), Some(to)) = paths else { return Ok(Answer::Continue) };
        let served = |path: &[u8]| match self.tree.place(path, false) {
            Place::Inode(device, inode) => {
                self.files.iter().any(|file| file.inode == (device, inode))
            }
            _ => false,
        };
        let is_between = self.table.is_between(&self.tree, [&from, &to]) || served(&from);
        if is_between { Err(Errno::XDEV) } else { Ok(Answer::Continue) }
    }

    /// Prepares the execution of a program that is named by a path in `/proc`. The kernel can't
    /// follow that path, so it is replaced in the caller's memory by a link that the kernel can
    /// follow. The memory usually vanishes with the execution.
    fn execute(&mut self, call: &Call<'_>, path: PathArgument) -> Outcome {
        let found = self.find(call, path, true);
        let thread = call.notification.pid;
        if let Ok(Some(Found::Inside(target, _))) = found
            && let Ok(old) = self.tracees.read_path(thread, path.address)
        {
            let number = self.executed.iter().position(|known| *known == target);
            let number = number.unwrap_or_else(|| {
                self.executed.push(target.clone());
                self.executed.len() - 1
            });
            // The name of the process is that of the link.
            let name = names(&old).last().unwrap_or_default();
            let directory = format!("/proc/.{number}");
            let link = [directory.as_bytes(), b"/", name].concat();
            if link.len() <= old.len() {
                let root = &self.tree.root;
                let made = [
                    rustix::fs::mkdirat(root, &directory[1..], Mode::from_raw_mode(0o755)),
                    rustix::fs::symlinkat(target.as_slice(), root, &link[1..]),
                ];
                for made in made.into_iter().filter(|made| *made != Err(Errno::EXIST)) {
                    made?;
                }
                self.write(call, path.address, &[link.as_slice(), b"\0"].concat())?;
            }
        }
        self.tracees.forget_all();
        Ok(Answer::Continue)
    }

    /// Creates the node of a harmless device.
    fn make_node(
        &mut self,
        call: &Call<'_>,
        path: PathArgument,
        mode: u64,
        device: u64,
    ) -> Outcome {
        let kind = FileType::from_raw_mode(mode as u32);
        let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        if !is_device || device == 0 {
            return Ok(Answer::Continue);
        }
        let is_harmless = kind == FileType::CharacterDevice
            && DEVICES
                .iter()
                .any(|(_, major, minor)| rustix::fs::makedev(*major, *minor) == device);
        let caller = Caller::of(call.notification.pid).map_err(|_| Errno::SRCH)?;
        if !is_harmless || caller.identity.uid != 0 {
            return Err(Errno::PERM);
        }
        let full = self.full_path(call, path).ok_or(Errno::NOENT)?;
        let mut parts: Vec<Vec<u8>> = names(&full).map(<[u8]>::to_vec).collect();
        let name = parts.pop().ok_or(Errno::EXIST)?;
        let parent = joined(b"/", &parts);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let none = Mode::empty();
        let parent =
            openat2(&self.tree.root, parent.as_slice(), flags, none, ResolveFlags::IN_ROOT)?;
        let mode = Mode::from_raw_mode(mode as u32 & !caller.umask & 0o7777);
        rustix::fs::mknodat(&parent, name.as_slice(), kind, mode, device)?;
        Ok(Answer::Value(0))
    }

    /// Writes the kernel's description with the step's host name.
    fn describe(&mut self, call: &Call<'_>, into: u64) -> Answer {
        let Some(hostname) = &self.hostname else { return Answer::Continue };
        match self.tracees.write(call.notification.pid, into, &utsname(hostname, None)) {
            Ok(()) => Answer::Value(0),
            Err(_) => Answer::Continue,
        }
    }
}

/// The arguments of a call that opens a file.
#[derive(Clone, Copy)]
struct How {
    flags: OFlags,
    mode: u32,
}

impl Calls for ProgramCalls {
    fn answer(&mut self, call: &Call<'_>) -> Option<Answer> {
        let notification = call.notification;
        let number = i64::from(notification.call);
        let arguments = &notification.arguments;
        let outcome = match self.processes.answer(notification.pid, number, arguments) {
            Some(answer) => Ok(answer),
            None => self.answer_path(call, number, *arguments),
        };
        Some(outcome.unwrap_or_else(|errno| Answer::Error(errno.raw_os_error())))
    }
}

impl ProgramCalls {
    fn answer_path(&mut self, call: &Call<'_>, number: i64, arguments: [u64; 6]) -> Outcome {
        let [first, second, third, fourth, fifth, _] = arguments;
        let here = |address| PathArgument { directory: libc::AT_FDCWD, address };
        let at = PathArgument { directory: first as u32 as i32, address: second };
        let how = |flags: u64, mode: u64| How {
            flags: OFlags::from_bits_retain(flags as u32),
            mode: mode as u32,
        };
        let follows = |flags: u64| flags & libc::AT_SYMLINK_NOFOLLOW as u64 == 0;
        match number {
            libc::SYS_openat => self.open(call, at, how(third, fourth)),
            libc::SYS_openat2 => match self.read_how(call, third, fourth) {
                Some(how) => self.open(call, at, how),
                None => Ok(Answer::Continue),
            },
            libc::SYS_newfstatat => self.status(call, at, follows(fourth), third, None),
            libc::SYS_statx => self.status(call, at, follows(third), fifth, Some(fourth as u32)),
            libc::SYS_faccessat => self.access(call, at, third, 0),
            libc::SYS_faccessat2 => self.access(call, at, third, fourth),
            libc::SYS_readlinkat => self.read_link(call, at, third, fourth),
            libc::SYS_execve => self.execute(call, here(first)),
            libc::SYS_execveat => self.execute(call, at),
            libc::SYS_unlinkat => self.remove(call, at),
            libc::SYS_renameat | libc::SYS_renameat2 => {
                let to = PathArgument { directory: third as u32 as i32, address: fourth };
                self.rename(call, at, to)
            }
            libc::SYS_linkat => {
                let to = PathArgument { directory: third as u32 as i32, address: fourth };
                self.link(call, at, to)
            }
            libc::SYS_mknodat => self.make_node(call, at, third, fourth),
            libc::SYS_uname => Ok(self.describe(call, first)),
            _ => match self.change(call, number, &arguments) {
                Some(outcome) => outcome,
                None => self.answer_old(call, number, arguments),
            },
        }
    }

    /// Refuses a change in a read-only mount. Returns `None` if the call is another one.
    fn change(&mut self, call: &Call<'_>, number: i64, arguments: &[u64; 6]) -> Option<Outcome> {
        let mut all = CHANGES.iter().chain(&OLD_CHANGES);
        let (_, directory, path) = all.find(|(known, ..)| *known == number)?;
        let directory = directory.map_or(libc::AT_FDCWD, |index| arguments[index] as u32 as i32);
        let path = PathArgument { directory, address: arguments[*path] };
        let full = self.full_path(call, path);
        let is_refused = full.is_some_and(|full| self.table.is_read_only(&self.tree, &full, false));
        Some(if is_refused { Err(Errno::ROFS) } else { Ok(Answer::Continue) })
    }

    #[cfg(target_arch = "x86_64")]
    fn answer_old(&mut self, call: &Call<'_>, number: i64, arguments: [u64; 6]) -> Outcome {
        let [first, second, third, ..] = arguments;
        let path = PathArgument { directory: libc::AT_FDCWD, address: first };
        match number {
            libc::SYS_open => {
                let flags = OFlags::from_bits_retain(second as u32);
                self.open(call, path, How { flags, mode: third as u32 })
            }
            libc::SYS_stat => self.status(call, path, true, second, None),
            libc::SYS_lstat => self.status(call, path, false, second, None),
            libc::SYS_access => self.access(call, path, second, 0),
            libc::SYS_readlink => self.read_link(call, path, second, third),
            libc::SYS_unlink | libc::SYS_rmdir => self.remove(call, path),
            libc::SYS_rename => {
                let to = PathArgument { directory: libc::AT_FDCWD, address: second };
                self.rename(call, path, to)
            }
            libc::SYS_link => {
                let to = PathArgument { directory: libc::AT_FDCWD, address: second };
                self.link(call, path, to)
            }
            libc::SYS_mknod => self.make_node(call, path, second, third),
            _ => Ok(Answer::Continue),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn answer_old(&mut self, _: &Call<'_>, _: i64, _: [u64; 6]) -> Outcome {
        Ok(Answer::Continue)
    }

    /// Reads the `struct open_how` of a call. Returns `None` if it restricts the path, so that only
    /// the kernel can resolve it.
    fn read_how(&mut self, call: &Call<'_>, address: u64, size: u64) -> Option<How> {
        let mut bytes = [0; 24];
        if size < bytes.len() as u64 {
            return None;
        }
        self.tracees.read(call.notification.pid, address, &mut bytes).ok()?;
        let word = |place: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[place..place + 8]);
            u64::from_ne_bytes(word)
        };
        let restricts = ResolveFlags::BENEATH | ResolveFlags::IN_ROOT | ResolveFlags::NO_XDEV;
        (word(16) & restricts.bits() == 0)
            .then(|| How { flags: OFlags::from_bits_retain(word(0) as u32), mode: word(8) as u32 })
    }
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

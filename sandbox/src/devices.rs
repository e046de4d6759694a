//! The file systems `/proc`, `/sys` and `/dev` of a program.
//!
//! A program may create device nodes anywhere, and change the owner and mode of those in `/dev`. It
//! can open nodes in its root or in `/dev` only if its control groups restrict them to harmless
//! devices. In that case the sandbox creates its own nodes directly in `/dev`. Otherwise both file
//! systems are `nodev`, and the sandbox creates its nodes in a hidden file system in memory and
//! mounts each one. All other mounts are always `nodev`.
//!
//! In a user namespace, the kernel allows no device nodes, so the host's nodes are mounted. It
//! allows a mount of `/sys` only together with a network namespace. A program with the host's
//! network therefore gets the host's `/sys`, with all mounts in it covered.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use kiln_tree::Ids;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::cgroup_view::View;
use super::insecure::{self, Device};
use super::masks;
use super::mount_handle::MountHandle;
use super::root::Root;
use super::sources::Sources;
use super::spec::{Security, Spec, TerminalSize};
use super::sysfs;
use super::wire::Failure;
use crate::sys::MountAttributes;

/// The harmless devices, with their numbers.
pub(super) const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// The links in `/dev`, as targets and names.
pub(super) const LINKS: [(&str, &str); 6] = [
    ("pts/ptmx", "ptmx"),
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
];

/// The group ID of terminals.
const TTY_GROUP: u32 = 5;

/// The file systems that every container has.
pub(super) struct OwnMounts {
    proc: MountHandle,
    sys: MountHandle,
    cgroup: Option<View>,
    dev: MountHandle,
    /// The device nodes that can't be created in `/dev` itself.
    devices: Vec<(&'static str, MountHandle)>,
    pts: MountHandle,
    shm: Option<MountHandle>,
    mqueue: MountHandle,
    /// `true` if `/proc` is the host's, although the program has processes of its own.
    shows_others: bool,
}

/// Both ends of a terminal: kiln's and the program's.
pub(super) struct Terminal {
    pub(super) controller: OwnedFd,
    pub(super) peer: OwnedFd,
}

impl Terminal {
    /// Completes a terminal of this size from its controlling end.
    pub(super) fn new(controller: OwnedFd, size: TerminalSize) -> rustix::io::Result<Self> {
        unlockpt(&controller)?;
        // The peer's descriptor is safe from other mounts at /dev/pts.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let peer = ioctl_tiocgptpeer(&controller, flags)?;
        let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&controller, size)?;
        Ok(Self { controller, peer })
    }

    /// Opens a terminal of the container whose root is this process's.
    pub(super) fn of_container(size: TerminalSize) -> Result<Self, Failure> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty())
            .and_then(|controller| Self::new(controller, size))
            .map_err(Failure::doing("open a terminal"))
    }

    /// Opens a terminal of the host.
    pub(super) fn of_host(size: TerminalSize) -> Result<Self, Failure> {
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .and_then(|controller| Self::new(controller, size))
            .map_err(Failure::doing("open a terminal"))
    }
}

impl OwnMounts {
    /// Creates the file systems, not yet attached.
    pub(super) fn new(sources: &mut Sources, spec: &Spec) -> Result<Self, Failure> {
        let nosuid = MountAttrFlags::MOUNT_ATTR_NOSUID;
        let inert = nosuid | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let is_sandbox = spec.security.is_sandbox();
        let readonly = when(is_sandbox, MountAttrFlags::MOUNT_ATTR_RDONLY) | inert;
        let nodev = when(!spec.opens_devices(), MountAttrFlags::MOUNT_ATTR_NODEV);
        let is_namespace = Ids::current().is_namespace();
        let mut devices = Vec::new();
        for (name, major, minor) in DEVICES {
            if is_namespace {
                devices.push((name, Sources::host_device(name, major, minor)?));
            } else if !spec.opens_devices() {
                devices.push((name, sources.device(name, major, minor)?));
            }
        }
        let mut pts = vec![("ptmxmode", "0666"), ("mode", "0620")];
        if Ids::current().has_group(TTY_GROUP) {
            pts.push(("gid", "5"));
        }
        let (proc, shows_others) = match MountHandle::file_system("proc", &[], inert) {
            // The processes don't belong to this user namespace, or parts of `/proc` are hidden.
            // Then the kernel lets only root mount a whole one.
            Err(_) if is_namespace && spec.shared.pid => (host_proc()?, false),
            Err(_) if is_namespace => {
                let proc = host_proc()?;
                proc.restrict(MountAttributes::INERT)?;
                (proc, true)
            }
            other => (other?, false),
        };
        Ok(Self {
            proc,
            shows_others,
            sys: match MountHandle::file_system("sysfs", &[], readonly) {
                Err(_) if is_namespace => sysfs::of_host()?,
                other => other?,
            },
            cgroup: View::new(is_sandbox, &spec.shown_cgroups),
            dev: MountHandle::file_system(
                "tmpfs",
                &[("mode", "755"), ("size", "64m")],
                nosuid | nodev,
            )?,
            devices,
            pts: MountHandle::file_system(
                "devpts",
                &pts,
                nosuid | MountAttrFlags::MOUNT_ATTR_NOEXEC,
            )?,
            shm: shared_memory(spec, inert)?,
            mqueue: MountHandle::file_system("mqueue", &[], inert)?,
        })
    }

    /// Attaches the file systems and applies the masks. Opens a terminal if the specification
    /// requests one.
    pub(super) fn attach(&self, root: &mut Root, spec: &Spec) -> Result<Option<Terminal>, Failure> {
        root.mount_own(&self.proc, "proc")?;
        root.mount_own(&self.sys, "sys")?;
        if Ids::current().is_namespace() {
            sysfs::cover(&self.sys)?;
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup.attach(&self.sys, spec.security.is_sandbox())?;
        }
        root.mount_own(&self.dev, "dev")?;
        self.fill_dev().map_err(Failure::doing("furnish /dev"))?;
        if spec.security.is_sandbox() && spec.privileges.hides_system {
            masks::apply(&self.proc, &self.sys, &self.null()?)?;
            // Root owns these files, and a user namespace doesn't map the host's root.
            if spec.protects_proc && !Ids::current().is_namespace() {
                masks::protect_shared(&self.proc)?;
            }
        }
        match spec.security {
            Security::Sandbox => {}
            Security::Insecure => self.add_devices().map_err(Failure::doing("add devices"))?,
            Security::Privileged => {
                self.add_all_devices().map_err(Failure::doing("add devices"))?;
            }
        }
        spec.process.terminal.map(|size| self.open_terminal(size)).transpose()
    }

    /// Returns `true` if the program sees the processes of others in `/proc`.
    pub(super) fn shows_others(&self) -> bool {
        self.shows_others
    }

    /// Opens `/dev/null` as the program's standard input.
    pub(super) fn open_null(&self) -> Result<OwnedFd, Failure> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.dev, "null", flags, Mode::empty())
            .map_err(Failure::doing("open /dev/null"))
    }

    /// Opens `/dev/null` as the source of mounts.
    fn null(&self) -> Result<OwnedFd, Failure> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.dev, "null", flags, Mode::empty())
            .map_err(Failure::doing("mount /dev/null"))
    }

    fn fill_dev(&self) -> rustix::io::Result<()> {
        for (name, device) in &self.devices {
            device.attach(self.make_file(name)?)?;
        }
        if self.devices.is_empty() {
            let (kind, mode) = (FileType::CharacterDevice, Mode::from_raw_mode(0o666));
            for (name, major, minor) in DEVICES {
                let device = rustix::fs::makedev(major, minor);
                rustix::fs::mknodat(&self.dev, name, kind, mode, device)?;
            }
        }
        for (target, name) in LINKS {
            // Not every kernel has `/proc/kcore`.
            if name == "core" && !std::path::Path::new(target).exists() {
                continue;
            }
            rustix::fs::symlinkat(target, &self.dev, name)?;
        }
        let shm = self.shm.iter().map(|shm| ("shm", shm));
        for (name, mount) in [("pts", &self.pts), ("mqueue", &self.mqueue)].into_iter().chain(shm) {
            rustix::fs::mkdirat(&self.dev, name, Mode::from_raw_mode(0o755))?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let place = rustix::fs::openat(&self.dev, name, flags, Mode::empty())?;
            mount.attach(&place)?;
        }
        Ok(())
    }

    /// Adds the devices of insecure programs. Their `/dev` allows opening them.
    fn add_devices(&self) -> rustix::io::Result<()> {
        rustix::fs::mkdirat(&self.dev, "net", Mode::from_raw_mode(0o755))?;
        for Device { path, kind, number: (major, minor) } in insecure::devices() {
            if Ids::current().is_namespace() {
                // Devices that the host doesn't have or show are left out.
                if let Ok(device) = Sources::host_device(&path, major, minor) {
                    device.attach(self.make_file(&path)?)?;
                }
                continue;
            }
            let device = rustix::fs::makedev(major, minor);
            rustix::fs::mknodat(&self.dev, path, kind, Mode::from_raw_mode(0o666), device)?;
        }
        Ok(())
    }

    /// Mounts each of the host's devices.
    fn add_all_devices(&self) -> std::io::Result<()> {
        for path in insecure::nodes(Path::new("/dev")) {
            let place = path.strip_prefix("/dev").unwrap_or(&path);
            let mut above = PathBuf::new();
            for name in place.parent().into_iter().flat_map(Path::components) {
                above.push(name);
                match rustix::fs::mkdirat(&self.dev, &above, Mode::from_raw_mode(0o755)) {
                    Err(Errno::EXIST) => {}
                    other => other?,
                }
            }
            // The sandbox's own nodes stay, and nodes that have vanished are skipped.
            let Some(name) = place.to_str() else { continue };
            if let Ok(device) = MountHandle::of_path(&path, false)
                && let Ok(file) = self.make_file(name)
            {
                device.attach(file)?;
            }
        }
        Ok(())
    }

    fn make_file(&self, name: &str) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        drop(rustix::fs::openat(&self.dev, name, flags, mode)?);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.dev, name, flags, Mode::empty())
    }

    fn open_terminal(&self, size: TerminalSize) -> Result<Terminal, Failure> {
        let open = || -> rustix::io::Result<Terminal> {
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
            let controller = rustix::fs::openat(&self.pts, "ptmx", flags, Mode::empty())?;
            let terminal = Terminal::new(controller, size)?;
            MountHandle::clone_of(&terminal.peer)?.attach(self.make_file("console")?)?;
            Ok(terminal)
        };
        open().map_err(Failure::doing("open a terminal"))
    }
}

/// Returns the host's `/proc` with all mounts in it.
fn host_proc() -> Result<MountHandle, Failure> {
    MountHandle::of_path(Path::new("/proc"), true).map_err(Failure::doing("mount /proc"))
}

/// Returns the mount for `/dev/shm`, if the program has one.
fn shared_memory(spec: &Spec, inert: MountAttrFlags) -> Result<Option<MountHandle>, Failure> {
    if let Some(shm) = spec.shared.ipc.then(host_shm).flatten() {
        return Ok(Some(shm));
    }
    let Some(size) = spec.shm_size.map(|size| size.to_string()) else { return Ok(None) };
    let options = [("mode", "1777"), ("size", size.as_str())];
    MountHandle::file_system("tmpfs", &options, inert).map(Some)
}

/// Returns the host's `/dev/shm`, which holds the files of its shared memory.
fn host_shm() -> Option<MountHandle> {
    MountHandle::of_path(Path::new("/dev/shm"), false).ok()
}

fn when(condition: bool, flag: MountAttrFlags) -> MountAttrFlags {
    if condition { flag } else { MountAttrFlags::empty() }
}

//! Steps that another OCI runtime executes, such as runc.
//!
//! The runtime gets the same specification as the sandbox. kiln assembles the root file system with
//! all mounts in a private mount namespace and writes the rest into a `config.json` ([`config`]).
//! So layers, the removal of mount points, and users have the same meaning with either.
//!
//! The runtime is process 1 of a process namespace. Its containers are processes in it and end with
//! it, whether it exits or is killed. Its state is in memory and vanishes too. Its control groups
//! are below those that kiln has created for the program: kiln's limits apply, and kiln removes
//! them.
//!
//! Two differences remain. A program that was killed by a signal has the exit code 128 plus the
//! signal's number, because runtimes report no more. And an unsupported feature is the runtime's
//! own error, from its log.

#![expect(clippy::disallowed_methods, reason = "the bundle is kiln's own")]

mod config;
pub(super) mod init;
mod log;

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;
use rustix::mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags, mount_change, unmount};

use self::config::Config;
pub(super) use self::log::failure;
use super::child::{Ready, connect, die_with, enter_network, join, resolve_user, wait_at};
use super::devices::Terminal;
use super::helper::Task;
use super::mount_handle::MountHandle;
use super::program::Image;
use super::root::{Missing, Root, clean};
use super::sources::{Linked, Sources};
use super::spec::Spec;
use super::wire::{self, Failure, Report};
use super::{identity, seal};
use crate::sys;

/// The container's ID. It is unique because each runtime has a state directory of its own.
const NAME: &str = "step";

/// The file systems that the runtime mounts itself, and the types of their placeholders.
const OWN: [(&str, &str); 3] = [("proc", "proc"), ("sys", "tmpfs"), ("dev", "tmpfs")];

/// A private file system in memory that holds the runtime's files.
struct Stage {
    directory: PathBuf,
}

impl Stage {
    fn new(directory: &Path) -> Result<Self, Failure> {
        let store = MountHandle::file_system("tmpfs", &[("mode", "700")], MountAttrFlags::empty())?;
        store.attach_at(directory)?;
        let stage = Self { directory: directory.to_owned() };
        for name in ["root", "sources", "bundle", "state"] {
            stage.make(name, true)?;
        }
        Ok(stage)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn make(&self, name: &str, directory: bool) -> Result<PathBuf, Failure> {
        let path = self.path(name);
        let made = if directory { std::fs::create_dir(&path) } else { std::fs::write(&path, "") };
        made.map_err(Failure::doing("prepare for the runtime"))?;
        Ok(path)
    }
}

/// Prepares the container and executes the runtime.
pub(super) fn become_runtime(task: Task, runtime: &Path) -> Result<Infallible, Failure> {
    let Task { spec, anchor, namespace, gate, input, control, helper, log, .. } = task;
    join(&spec.cgroups)?;
    enter_network(spec.network, namespace)?;
    let linked = Linked::clone_of(&spec.mounts)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(Failure::doing("make mounts private"))?;
    // The runtime needs a `/proc` of its own process namespace.
    MountHandle::file_system("proc", &[], MountAttrFlags::empty())?
        .attach_at(Path::new("/proc"))?;
    let stage = Stage::new(&anchor)?;
    let (ready, config) = furnish(&spec, &stage, linked)?;
    // The runtime copies data between this terminal and the program's.
    let terminal = spec.process.terminal.map(Terminal::of_host).transpose()?;
    if let Some(terminal) = &terminal {
        wire::send(&control, &Report::Terminal, &[terminal.controller.as_fd()])
            .map_err(Failure::doing("hand the terminal over"))?;
    }
    let stdin = match input {
        Some(input) => input,
        None => rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(Failure::doing("open /dev/null"))?,
    };
    let log = log.ok_or_else(|| Failure::new("kiln gave no log for the runtime"))?;
    let bundle = stage.path("bundle");
    std::fs::write(bundle.join("config.json"), config.to_json()?)
        .map_err(Failure::doing("write the runtime's configuration"))?;
    let image = Image::new(runtime, &arguments(runtime, &stage, &log)?, &[])?;
    connect(&stdin, terminal.as_ref(), &config.user)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    die_with(helper.as_ref())?;
    wait_at(gate)?;
    ready.report(&control)?;
    sys::close_on_exec_above().map_err(Failure::doing("close descriptors"))?;
    rustix::io::fcntl_setfd(&log, FdFlags::empty())
        .map_err(Failure::doing("pass the runtime its log"))?;
    let failure = image.execute();
    Err(Failure::new(format!("start the runtime: {}", failure.message)))
}

fn arguments(runtime: &Path, stage: &Stage, log: &OwnedFd) -> Result<Vec<String>, Failure> {
    let text = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| {
            Failure::new(format!("{} is no path that a runtime can be told", path.display()))
        })
    };
    let log = format!("/proc/self/fd/{}", log.as_raw_fd());
    let (state, bundle) = (text(&stage.path("state"))?, text(&stage.path("bundle"))?);
    let words =
        ["--root", &state, "--log", &log, "--log-format", "json", "run", "--bundle", &bundle];
    let mut all = vec![text(runtime)?];
    all.extend(words.map(str::to_owned));
    all.push(NAME.to_owned());
    Ok(all)
}

/// Assembles the root file system and the runtime's configuration.
fn furnish<'a>(
    spec: &'a Spec,
    stage: &Stage,
    linked: Linked,
) -> Result<(Ready, Config<'a>), Failure> {
    let mut sources = Sources::new(&stage.path("sources"), &spec.mounts, linked);
    let mut mounts = Vec::new();
    for mount in &spec.mounts {
        let source = sources.mount(&mount.kind).map_err(|failure| Failure {
            message: format!("mount at {}: {}", mount.target.display(), failure.message),
            ..failure
        })?;
        mounts.push((source, clean(&mount.target)));
    }
    // The runtime itself restricts the devices that can be opened.
    let tree = sources.tree(&spec.rootfs, false)?;
    let upper = spec.rootfs.upper().map(PathBuf::as_path);
    let mut root = Root::attach(&tree, &stage.path("root"), upper)?;
    let (user, home) = resolve_user(root.fd(), &spec.process)?;
    identity::check(&user)?;
    // The runtime mounts its own file systems here. Until then, the placeholders cover the image's
    // files and cause the same errors as the sandbox's mounts.
    for (name, kind) in OWN {
        let mount = MountHandle::file_system(kind, &[], MountAttrFlags::MOUNT_ATTR_NODEV)?;
        root.mount_own(&mount, name)?;
    }
    let kept = {
        let mounts: Vec<_> = mounts.iter().map(|(source, _)| source.as_fd()).collect();
        seal::handles(spec, root.fd().as_fd(), &mounts)?
    };
    let mut listed = Vec::new();
    for (number, (source, target)) in mounts.into_iter().enumerate() {
        if is_runtimes(&target) {
            listed.push((target, keep(stage, &source, number)?));
        } else {
            root.mount(&source, &target)?;
        }
    }
    if spec.process.has_init {
        let path = stage.path("init");
        init::copy(&path, &root)?;
        listed.push((PathBuf::from(init::PATH), path));
    }
    let cwd = clean(&spec.process.cwd);
    if cwd != Path::new("/") && !is_runtimes(&cwd) {
        let missing = Missing::Directory { uid: user.uid, gid: user.gid };
        root.open_or_make(&cwd, missing)?;
    }
    for (name, _) in OWN {
        unmount(stage.path("root").join(name), UnmountFlags::DETACH)
            .map_err(Failure::doing(&format!("make place for /{name}")))?;
    }
    let (cgroup, directory) = (control_group()?, stage.path("root"));
    let config = Config { spec, user, home, root: directory, cgroup, mounts: listed };
    Ok((Ready { made: root.into_made(), kept }, config))
}

/// Returns the name of the container's control group. In hierarchies without a group of kiln's, the
/// groups of all containers are side by side. The name therefore contains the number of the
/// container's mount namespace.
fn control_group() -> Result<String, Failure> {
    let namespace = rustix::fs::stat("/proc/self/ns/mnt")
        .map_err(Failure::doing("look at the mount namespace"))?;
    Ok(format!("{NAME}-{}", namespace.st_ino))
}

/// Returns `true` if a path is inside a file system that the runtime mounts itself.
fn is_runtimes(path: &Path) -> bool {
    ["/dev", "/sys"].iter().any(|place| path.starts_with(place))
}

/// Attaches a mount in the stage, from where the runtime mounts it.
fn keep(stage: &Stage, mount: &MountHandle, number: usize) -> Result<PathBuf, Failure> {
    let path = stage.make(&format!("mount{number}"), mount.is_directory()?)?;
    mount.attach_at(&path)?;
    Ok(path)
}

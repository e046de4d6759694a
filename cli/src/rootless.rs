//! Working without root: the user namespace that kiln enters.
//!
//! Where kiln isn't root, it becomes root of a user namespace, and everything that follows is as if
//! it were root: owners, overlay mounts, namespaces of steps. It does so in place, before it has a
//! second thread: no process stands between the terminal, signals and exit codes on one side and
//! kiln on the other, and nothing outlives a SIGKILL.
//!
//! Inside, root is the caller. Which other ids there are is up to the machine:
//! - with subordinate ids (`/etc/subuid`, `/etc/subgid`) and the programs that may map them
//!   (`newuidmap`, `newgidmap`), those: as many users as images have;
//! - else none. Then owners are recorded instead (see `kiln_tree::ids`), and a step that becomes
//!   another user fails.
//!
//! The maps of a process can be written from outside only, by a process that is still there: so a
//! child is started before, which waits ([`mapper`]).

mod mapper;
mod refusal;
mod subordinate;

use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::{CapabilitySet, capabilities};

use crate::printer::Printer;

use mapper::Mapper;
pub(crate) use mapper::map_if_asked;
use subordinate::Ranges;

/// What a machine needs for more than one id.
const MORE_IDS: &str = "kiln has a single user id here; with the package uidmap (newuidmap, \
    newgidmap) and ranges for you in /etc/subuid and /etc/subgid it has as many as images use";

/// Where programs of the system are that may not be on the path.
const SYSTEM: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// Tells whether this process may do what files of images and containers take: as root, of the
/// machine or of a user namespace. Root of a container may lack it.
pub(crate) fn is_privileged() -> bool {
    let may_mount =
        capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
    geteuid().is_root() && may_mount
}

/// Becomes root of a user namespace, where kiln hasn't root's privileges. To be called by a process with one
/// thread, which hasn't asked for its ids yet (`kiln_tree::Ids::current`).
///
/// # Errors
/// Fails where the machine allows no user namespaces, and says what to change.
pub(crate) fn enter(printer: &Printer) -> Result<()> {
    if is_privileged() {
        return Ok(());
    }
    let (uid, gid) = (geteuid(), getegid());
    let plan = plan(uid);
    let mapper = plan.map(Mapper::start).transpose()?;
    // The file system's root and descriptors stay what they are.
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
        .map_err(|errno| refusal::explain(errno.into()))?;
    match mapper.map(Mapper::map).transpose() {
        Ok(Some(())) => {}
        Ok(None) => map_self(uid, gid)?,
        Err(error) => {
            printer.note(format_args!(
                "WARNING: subordinate ids can't be used, kiln goes on without: {error:#}"
            ));
            map_self(uid, gid)?;
        }
    }
    // The group that the caller has now may not be the one that is root's inside.
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)
        .and_then(|()| rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT))
        .context("become root of the user namespace")
}

/// Returns what helps where a program has failed, or couldn't be run, for want of user ids.
pub(crate) fn hint() -> Option<&'static str> {
    kiln_tree::Ids::current().is_single().then_some(MORE_IDS)
}

/// What the programs that map subordinate ids are asked for.
struct Plan {
    /// Each program, with the arguments that follow the process's number.
    programs: [(PathBuf, Vec<String>); 2],
}

/// Returns how the caller gets more ids; `None` where the machine has none for him.
fn plan(uid: Uid) -> Option<Plan> {
    let user = nix::unistd::User::from_uid(uid.as_raw().into()).ok().flatten();
    let (name, group) = user.map(|user| (user.name, user.gid.as_raw())).unzip();
    // Users of directory services are unknown to a static kiln. The programs check that the ranges are the caller's.
    let name = name.or_else(|| std::env::var("USER").ok()).unwrap_or_default();
    let group = group.unwrap_or_else(|| getegid().as_raw());
    let programs =
        [("newuidmap", "/etc/subuid", uid.as_raw()), ("newgidmap", "/etc/subgid", group)];
    let programs = programs.map(|(program, file, own)| {
        let text = std::fs::read_to_string(file).ok()?;
        let ranges = Ranges::of(&text, &name, uid.as_raw())?;
        Some((find(program)?, ranges.arguments(own)))
    });
    match programs {
        [Some(users), Some(groups)] => Some(Plan { programs: [users, groups] }),
        _ => None,
    }
}

/// Finds a program on the path or among the system's.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .chain(std::env::split_paths(SYSTEM))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// Maps the caller to root, which needs nobody else.
fn map_self(uid: Uid, gid: Gid) -> Result<()> {
    let write = |file: &str, text: String| {
        std::fs::write(file, text).with_context(|| format!("write {file}"))
    };
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {} 1", uid.as_raw()))?;
    write("/proc/self/gid_map", format!("0 {} 1", gid.as_raw()))
}

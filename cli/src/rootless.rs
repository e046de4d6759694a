//! Rootless mode: the user namespace that kiln enters.
//!
//! Without root's privileges, kiln becomes root of a user namespace. Everything after that works as
//! for root: owners, overlay mounts, namespaces of steps. kiln enters the namespace in place,
//! before it starts a second thread. So no other process stands between kiln and the terminal,
//! signals and exit codes, and no process survives a SIGKILL.
//!
//! In the namespace, root is the caller. Further IDs depend on the machine:
//! - with subordinate IDs (`/etc/subuid`, `/etc/subgid`) and the programs that may map them
//!   (`newuidmap`, `newgidmap`), kiln maps those, as many as images use;
//! - without them, there are no other IDs. kiln then records owners instead (see `kiln_tree::ids`),
//!   and a step that switches to another user fails.
//!
//! Only a process outside the namespace can write its ID maps. So kiln starts a child before it
//! enters the namespace, and the child waits ([`mapper`]).

#![expect(clippy::disallowed_methods, reason = "the files are the system's")]

mod mapper;
mod refusal;
mod subordinate;

use std::path::PathBuf;

use anyhow::{Context, Result};
use kiln::is_privileged;
use kiln_oci::error::chain;
use nix::sched::{CloneFlags, unshare};
use rustix::process::{Gid, Uid, getegid, geteuid};

use crate::rendering::printer::Printer;
use crate::settings;

use mapper::Mapper;
pub(crate) use mapper::map_if_asked;
use subordinate::Ranges;

/// The hint for a machine on which kiln has a single ID.
const MORE_IDS: &str = "kiln has a single user id here; with the package uidmap (newuidmap, \
    newgidmap) and ranges for you in /etc/subuid and /etc/subgid it has as many as images use";

/// Directories of system programs that may be missing from the path.
const SYSTEM: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// Makes this process root of a user namespace unless it has root's privileges. Call it from a
/// process with a single thread that has not requested its IDs yet (`kiln_tree::Ids::current`).
///
/// # Errors
/// Fails if the machine allows no user namespaces. The error explains the required change.
pub(crate) fn enter(printer: &Printer) -> Result<()> {
    if is_privileged() {
        return Ok(());
    }
    let (uid, gid) = (geteuid(), getegid());
    let plan = plan(uid);
    let mapper = plan.map(Mapper::start).transpose()?;
    // The root directory and open descriptors stay the same.
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
        .map_err(|errno| refusal::explain(errno.into()))?;
    match mapper.map(Mapper::map).transpose() {
        Ok(Some(())) => {}
        Ok(None) => map_self(uid, gid)?,
        Err(error) => {
            printer.note(format_args!(
                "WARNING: subordinate ids can't be used, kiln goes on without: {}",
                chain(error.as_ref())
            ));
            map_self(uid, gid)?;
        }
    }
    // The caller's current group may not be the one that is mapped to root's.
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)
        .and_then(|()| rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT))
        .context("become root of the user namespace")
}

/// Returns the hint for a program that failed because kiln has a single user ID.
pub(crate) fn hint() -> Option<&'static str> {
    kiln_tree::Ids::current().is_single().then_some(MORE_IDS)
}

/// The commands that map subordinate IDs.
struct Plan {
    /// Each program, with the arguments after the process ID.
    programs: [(PathBuf, Vec<String>); 2],
}

/// Returns the commands that map more IDs; `None` if the machine grants the caller none.
fn plan(uid: Uid) -> Option<Plan> {
    let user = nix::unistd::User::from_uid(uid.as_raw().into()).ok().flatten();
    let (name, group) = user.map(|user| (user.name, user.gid.as_raw())).unzip();
    // A statically linked kiln doesn't know users of directory services. The programs check that
    // the ranges belong to the caller.
    let name = name.or_else(settings::user_name).unwrap_or_default();
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

/// Finds a program on the path or in the system's directories.
fn find(program: &str) -> Option<PathBuf> {
    let path = settings::search_path();
    std::env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .chain(std::env::split_paths(SYSTEM))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// Maps only the caller to root, which requires no other program.
fn map_self(uid: Uid, gid: Gid) -> Result<()> {
    let write = |file: &str, text: String| {
        std::fs::write(file, text).with_context(|| format!("write {file}"))
    };
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {} 1", uid.as_raw()))?;
    write("/proc/self/gid_map", format!("0 {} 1", gid.as_raw()))
}

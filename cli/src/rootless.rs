//! The choice of a rung: the privileges with which kiln works.
//!
//! With root's privileges, kiln uses them. Without, kiln becomes root of a user namespace.
//! Everything after that works as for root: owners, overlay mounts, namespaces of steps. kiln enters
//! the namespace in place, before it starts a second thread. So no other process stands between
//! kiln and the terminal, signals and exit codes, and no process survives a SIGKILL.
//!
//! In the namespace, root is the caller. Further IDs depend on the machine:
//! - root of a container maps all IDs that it has;
//! - with subordinate IDs (`/etc/subuid`, `/etc/subgid`) and the programs that may map them
//!   (`newuidmap`, `newgidmap`), kiln maps those, as many as images use;
//! - without them, there are no other IDs. kiln then records owners instead (see `kiln_tree::ids`),
//!   and a step that switches to another user fails.
//!
//! Only a process outside the namespace can write its ID maps. So kiln starts a child before it
//! enters the namespace, and the child waits ([`mapper`]).
//!
//! Without user namespaces, kiln uses another rung: see [`kiln_sandbox::Isolation`]. It then gives up
//! the privileges that the rung doesn't have, so that a rung behaves the same wherever it is used.
//! Each rung is tried in a child process before kiln chooses it.

#![expect(clippy::disallowed_methods, reason = "the files are the system's")]

mod mapper;
mod refusal;
mod subordinate;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use kiln_oci::error::chain;
use kiln_sandbox::{Capabilities, Isolation, ProbeError, is_confined, probe};
use nix::sched::{CloneFlags, unshare};
use rustix::process::{Gid, Uid, getegid, geteuid};

use crate::arguments::IsolationChoice;
use crate::rendering::printer::Printer;
use crate::settings::{self, Rung};

use mapper::Mapper;
pub(crate) use mapper::map_if_asked;
use subordinate::Ranges;

/// The hint for a machine on which kiln has a single ID.
const MORE_IDS: &str = "kiln has a single user id here; with the package uidmap (newuidmap, \
    newgidmap) and ranges for you in /etc/subuid and /etc/subgid it has as many as images use, \
    and with --isolation none it needs no ids";

/// The number of IDs outside of any user namespace.
const ALL: &str = "4294967295";

/// Directories of system programs that may be missing from the path.
const SYSTEM: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// Chooses a rung and makes this process ready for it. Call it from a process with a single thread
/// that has not requested its IDs yet (`kiln_tree::Ids::current`).
///
/// # Errors
/// Fails if the rung that the user chooses can't be used. The error says what it lacks.
pub(crate) fn choose(choice: IsolationChoice, printer: &Printer) -> Result<Rung> {
    let rung = match choice {
        IsolationChoice::Auto => strongest(printer)?,
        IsolationChoice::Only(isolation) => only(isolation, printer)?,
    };
    rung.isolation.give_up_privileges().context("give up privileges")?;
    Ok(rung)
}

/// Chooses the strongest rung that works.
fn strongest(printer: &Printer) -> Result<Rung> {
    let mut obstacles = Vec::new();
    for isolation in Isolation::ALL {
        match attempt(isolation, printer)? {
            Ok(isolation) => return Ok(Rung { isolation, obstacles }),
            Err(error) => obstacles.push(refusal::obstacle(isolation, &error)),
        }
    }
    // Programs can't run, but images can be made.
    Ok(Rung { isolation: Isolation::None, obstacles })
}

/// Uses a rung that the user chooses.
fn only(isolation: Isolation, printer: &Printer) -> Result<Rung> {
    if isolation == Isolation::UserNamespace && is_root_of_namespace() {
        return Ok(Rung { isolation, obstacles: Vec::new() });
    }
    match (attempt(isolation, printer)?, isolation) {
        (Ok(isolation), _) => Ok(Rung { isolation, obstacles: Vec::new() }),
        (Err(error), Isolation::None) => {
            let obstacles = vec![refusal::obstacle(isolation, &error)];
            Ok(Rung { isolation, obstacles })
        }
        (Err(ProbeError::Refused { action, error }), Isolation::UserNamespace) => {
            Err(refusal::explain(action, error))
        }
        (Err(error), _) => bail!("isolation {isolation} can't be used here: {error}"),
    }
}

/// Tries a rung, and makes this process ready for it. Returns the rung or its obstacle.
///
/// # Errors
/// Fails if this process has entered a user namespace that it can't use.
fn attempt(isolation: Isolation, printer: &Printer) -> Result<Result<Isolation, ProbeError>> {
    // Entering a user namespace is a trial itself, unless it may fail halfway: under a filter, and for
    // root without the capability to map itself (`CAP_SETFCAP`).
    let may_fail_halfway = is_confined() || geteuid().is_root();
    if (isolation != Isolation::UserNamespace || may_fail_halfway)
        && let Err(error) = probe(isolation)
    {
        return Ok(Err(error));
    }
    match isolation {
        Isolation::UserNamespace => Ok(enter(printer)?.map(|()| isolation)),
        Isolation::Root if is_root_of_namespace() => Ok(Ok(Isolation::UserNamespace)),
        _ => Ok(Ok(isolation)),
    }
}

/// Returns `true` if this process has root's privileges in a user namespace already.
fn is_root_of_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let is_whole = map.split_whitespace().eq(["0", "0", ALL]);
    let admin = Capabilities::named("SYS_ADMIN");
    let has_admin = admin.is_some_and(has);
    geteuid().is_root() && has_admin && !map.is_empty() && !is_whole
}

/// Returns `true` if this process has capabilities.
fn has(capabilities: Capabilities) -> bool {
    Capabilities::effective().is_ok_and(|own| own.contain(capabilities))
}

/// Makes this process root of a user namespace. Returns the obstacle if the kernel refuses one.
///
/// # Errors
/// Fails if the process is in the namespace but can't become its root.
fn enter(printer: &Printer) -> Result<Result<(), ProbeError>> {
    let (uid, gid) = (geteuid(), getegid());
    let mapper = plan(uid).map(Mapper::start).transpose()?;
    // The root directory and open descriptors stay the same.
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS) {
        return Ok(Err(ProbeError::Refused { action: "unshare", error: errno.into() }));
    }
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
        .context("become root of the user namespace")?;
    Ok(Ok(()))
}

/// Returns the hint for a program that failed because kiln has a single user ID.
pub(crate) fn hint() -> Option<&'static str> {
    let ids = kiln_tree::Ids::current();
    (ids.is_single() && !ids.is_unprivileged()).then_some(MORE_IDS)
}

/// The way to map more IDs than the caller's own.
enum Plan {
    /// Programs map subordinate IDs. Each has its arguments after the process ID.
    Programs([(PathBuf, Vec<String>); 2]),
    /// The mapper writes these maps of users and groups.
    Own([String; 2]),
}

/// Returns the way to map more IDs; `None` if the machine grants the caller none.
fn plan(uid: Uid) -> Option<Plan> {
    if uid.is_root() {
        return plan_of_root();
    }
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
        [Some(users), Some(groups)] => Some(Plan::Programs([users, groups])),
        _ => None,
    }
}

/// Returns the maps of all IDs that root has here, if it may map them.
fn plan_of_root() -> Option<Plan> {
    let needed = Capabilities::named("SETUID")? | Capabilities::named("SETGID")?;
    let map = |name| {
        let text = std::fs::read_to_string(format!("/proc/self/{name}")).ok()?;
        subordinate::all_of(&text)
    };
    has(needed).then(|| Some(Plan::Own([map("uid_map")?, map("gid_map")?]))).flatten()
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

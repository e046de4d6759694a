//! What the program is and may: limits, user, groups, capabilities.

use std::io;

use kiln_tree::Ids;
use rustix::io::Errno;
use rustix::process::{Gid, Resource, Rlimit, Uid, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::capabilities::Capabilities;
use super::spec::{self, Security, Spec};
use super::wire::Failure;
use crate::users::ResolvedUser;

/// Sets resource limits.
pub(super) fn set_limits(limits: &[spec::Rlimit]) -> Result<(), Failure> {
    for limit in limits {
        let action = format!("set limit {}", limit.name);
        let resource =
            resource(&limit.name).ok_or_else(|| Failure::new(format!("{action}: unknown")))?;
        let value = Rlimit { current: limit.soft, maximum: limit.hard };
        setrlimit(resource, value).map_err(Failure::doing(&action))?;
    }
    Ok(())
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name.to_ascii_lowercase().as_str() {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return None,
    })
}

/// Fails where this process can't become `user`, and says why.
pub(super) fn check(user: &ResolvedUser) -> Result<(), Failure> {
    let ids = Ids::current();
    if ids.has_user(user.uid) && ids.has_group(user.gid) {
        return Ok(());
    }
    let what = if ids.has_user(user.uid) {
        format!("group {}", user.gid)
    } else {
        format!("user {}", user.uid)
    };
    Err(Failure::new(format!("{what} is not among the ids that kiln has here")))
}

/// Becomes `user`, with what is needed to [`finish`].
pub(super) fn assume(user: &ResolvedUser, spec: &Spec) -> Result<(), Failure> {
    match spec.security {
        Security::Sandbox => confine(user, spec.privileges.capabilities),
        Security::Insecure => keep_everything(user).map_err(Failure::doing("keep capabilities")),
        Security::Privileged => confine(user, available()?),
    }
}

fn available() -> Result<Capabilities, Failure> {
    Capabilities::available().map_err(Failure::doing("look at capabilities"))
}

/// Becomes `user`, who can gain no more than these capabilities, and keeps `SYS_ADMIN`.
fn confine(user: &ResolvedUser, capabilities: Capabilities) -> Result<(), Failure> {
    drop_bounding(capabilities.set()).map_err(Failure::doing("limit capabilities"))?;
    set_keep_capabilities(true).map_err(Failure::doing("keep capabilities"))?;
    become_user(user)?;
    set_keep_capabilities(false).map_err(Failure::doing("keep no capabilities"))?;
    clear_ambient_capability_set().map_err(Failure::doing("clear ambient capabilities"))?;
    have(own(user, capabilities) | Capabilities::SYS_ADMIN)
}

/// Gives up what the program isn't to have: a filter, where there is one, can be installed no more.
///
/// A user other than root has no capabilities, as the kernel has it where a program changes its user.
pub(super) fn finish(user: &ResolvedUser, spec: &Spec) -> Result<(), Failure> {
    match spec.security {
        Security::Sandbox => have(own(user, spec.privileges.capabilities)),
        Security::Insecure => Ok(()),
        // Root has them all still.
        Security::Privileged => have(own(user, available()?)),
    }
}

fn own(user: &ResolvedUser, capabilities: Capabilities) -> Capabilities {
    if user.uid == 0 { capabilities } else { Capabilities::NONE }
}

fn have(capabilities: Capabilities) -> Result<(), Failure> {
    let kept = capabilities.set();
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).map_err(Failure::doing("set capabilities"))
}

/// Becomes `user`, and keeps all capabilities, whoever that is, for the programs that are executed
/// too.
fn keep_everything(user: &ResolvedUser) -> io::Result<()> {
    let all = capabilities(None)?.permitted;
    set_keep_capabilities(true)?;
    become_user(user).map_err(|failure| io::Error::other(failure.message))?;
    set_capabilities(None, CapabilitySets { effective: all, permitted: all, inheritable: all })?;
    set_keep_capabilities(false)?;
    for capability in all.iter() {
        configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

fn become_user(user: &ResolvedUser) -> Result<(), Failure> {
    // Groups that aren't there have nothing that could be got at through them.
    let ids = Ids::current();
    let groups = user.groups.iter().filter(|gid| ids.has_group(**gid));
    let groups: Vec<Gid> = groups.map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    match set_thread_groups(&groups) {
        // A namespace of a single group keeps its creator's: the kernel has it so, since a group
        // may be what somebody is kept out by.
        Err(Errno::PERM) if ids.is_single() => {}
        other => other.map_err(Failure::doing("set groups"))?,
    }
    set_thread_res_gid(gid, gid, gid).map_err(Failure::doing("set group"))?;
    set_thread_res_uid(uid, uid, uid).map_err(Failure::doing("set user"))
}

fn drop_bounding(kept: CapabilitySet) -> rustix::io::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            // Beyond the last one that this kernel knows.
            Err(rustix::io::Errno::INVAL) => return Ok(()),
            other => other?,
        }
    }
    Ok(())
}

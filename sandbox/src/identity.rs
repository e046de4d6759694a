//! The program's identity and rights: limits, user, groups, capabilities.

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

/// Sets the resource limits: setrlimit(2).
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

/// Fails with a message if this process can't become `user`.
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

/// Changes to `user` but keeps the capabilities that [`finish`] needs.
pub(super) fn assume(user: &ResolvedUser, spec: &Spec) -> Result<(), Failure> {
    match spec.security {
        Security::Sandbox => confine(user, spec.privileges.capabilities),
        Security::Insecure => keep_everything(user).map_err(Failure::doing("keep capabilities")),
        Security::Privileged => confine(user, available()?),
    }
}

/// The capabilities that a program in a changed root directory never has. With the first, root leaves
/// the directory, and with the second, it opens the machine's disks.
const UNSAFE_IN_TREE: Capabilities = Capabilities::SYS_CHROOT.or(Capabilities::MKNOD);

/// Changes to `user` in a changed root directory. Keeps the program's capabilities.
pub(super) fn assume_in_tree(user: &ResolvedUser, spec: &Spec) -> Result<(), Failure> {
    let kept = in_tree(spec)?;
    match drop_bounding(kept.set()) {
        // `no_new_privs` has the same effect.
        Err(Errno::PERM) => {}
        other => other.map_err(Failure::doing("limit capabilities"))?,
    }
    set_keep_capabilities(true).map_err(Failure::doing("keep capabilities"))?;
    become_user(user)?;
    set_keep_capabilities(false).map_err(Failure::doing("keep no capabilities"))?;
    clear_ambient_capability_set().map_err(Failure::doing("clear ambient capabilities"))?;
    have(own(user, kept))
}

fn in_tree(spec: &Spec) -> Result<Capabilities, Failure> {
    Ok((spec.privileges.capabilities & available()?) - UNSAFE_IN_TREE)
}

fn available() -> Result<Capabilities, Failure> {
    Capabilities::available().map_err(Failure::doing("look at capabilities"))
}

/// Changes to `user` and limits the bounding set to `capabilities`. Keeps `SYS_ADMIN`.
fn confine(user: &ResolvedUser, capabilities: Capabilities) -> Result<(), Failure> {
    drop_bounding(capabilities.set()).map_err(Failure::doing("limit capabilities"))?;
    set_keep_capabilities(true).map_err(Failure::doing("keep capabilities"))?;
    become_user(user)?;
    set_keep_capabilities(false).map_err(Failure::doing("keep no capabilities"))?;
    clear_ambient_capability_set().map_err(Failure::doing("clear ambient capabilities"))?;
    have(own(user, capabilities) | Capabilities::SYS_ADMIN)
}

/// Drops the capabilities that the program must not have. After this, no filter can be installed.
///
/// A user other than root has no capabilities, as after a change of user in any program.
pub(super) fn finish(user: &ResolvedUser, spec: &Spec) -> Result<(), Failure> {
    match spec.security {
        Security::Sandbox => have(own(user, spec.privileges.capabilities)),
        Security::Insecure => Ok(()),
        // Root still has them all.
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

/// Changes to `user` and keeps all capabilities, for executed programs too.
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
    // Unmapped groups own nothing that the program could reach, so they are left out.
    let ids = Ids::current();
    let groups = user.groups.iter().filter(|gid| ids.has_group(**gid));
    let groups: Vec<Gid> = groups.map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    match set_thread_groups(&groups) {
        // A namespace with a single group keeps its creator's groups. The kernel forbids dropping
        // them, because a group may serve to deny access.
        Err(Errno::PERM) if ids.is_single() => {}
        other => other.map_err(Failure::doing("set groups"))?,
    }
    set_thread_res_gid(gid, gid, gid).map_err(Failure::doing("set group"))?;
    set_thread_res_uid(uid, uid, uid).map_err(Failure::doing("set user"))
}

pub(super) fn drop_bounding(kept: CapabilitySet) -> rustix::io::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            // The number is above the kernel's last capability.
            Err(rustix::io::Errno::INVAL) => return Ok(()),
            other => other?,
        }
    }
    Ok(())
}

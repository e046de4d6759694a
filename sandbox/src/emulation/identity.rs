//! The identity of processes: `setuid` and its relatives, groups, capabilities, `umask`, working
//! and root directories.

#![expect(clippy::unnecessary_wraps, reason = "all handlers of calls have one type")]

use rustix::fs::FileType;
use rustix::io::Errno;

use super::metadata::Access;
use super::mounts::below;
use super::state::{Roles, State};
use super::{Emulation, HERE, Reply, Request};

type Done = Result<Reply, Errno>;

/// The ID that means "unchanged".
const UNCHANGED: u32 = u32::MAX;

/// The kernel's limit on supplementary groups.
const MAX_GROUPS: u64 = 65_536;

/// The versions of `struct __user_cap_header_struct`.
const CAPABILITIES_1: u32 = 0x1998_0330;
const CAPABILITIES_2: u32 = 0x2007_1026;
const CAPABILITIES_3: u32 = 0x2008_0522;

const PR_SET_DUMPABLE: u64 = 4;
const PR_GET_KEEPCAPS: u64 = 7;
const PR_SET_KEEPCAPS: u64 = 8;
const PR_CAPBSET_READ: u64 = 23;
const PR_CAPBSET_DROP: u64 = 24;
const PR_SET_SECUREBITS: u64 = 28;
const PR_CAP_AMBIENT: u64 = 47;
/// The options of `prctl` that the supervisor answers.
pub(super) const PRCTL: [u64; 7] = [
    PR_SET_DUMPABLE,
    PR_GET_KEEPCAPS,
    PR_SET_KEEPCAPS,
    PR_CAPBSET_READ,
    PR_CAPBSET_DROP,
    PR_SET_SECUREBITS,
    PR_CAP_AMBIENT,
];

impl Emulation {
    fn become_user(&mut self, request: &Request<'_>, user: Roles) -> Done {
        let mut state = State::clone(&request.caller.state);
        let loses = state.user.effective == 0 && user.effective != 0;
        if loses {
            state.has_capabilities = state.keeps_capabilities;
        } else if user.effective == 0 {
            state.has_capabilities = false;
        }
        state.user = user;
        self.set(request, state)
    }

    fn become_group(&mut self, request: &Request<'_>, group: Roles) -> Done {
        let mut state = State::clone(&request.caller.state);
        state.group = group;
        self.set(request, state)
    }

    fn set(&mut self, request: &Request<'_>, state: State) -> Done {
        self.states.set(request.caller.thread, state)?;
        Ok(Reply::Value(0))
    }
}

/// Returns the roles after `setuid` or `setgid`.
fn set_one(roles: Roles, is_root: bool, id: u64) -> Result<Roles, Errno> {
    let id = id as u32;
    if id == UNCHANGED {
        return Err(Errno::INVAL);
    }
    if is_root {
        return Ok(Roles::all(id));
    }
    if id != roles.real && id != roles.saved {
        return Err(Errno::PERM);
    }
    Ok(Roles { effective: id, files: id, ..roles })
}

/// Returns the roles after `setreuid` or `setregid`.
fn set_two(roles: Roles, is_root: bool, ids: [u64; 2]) -> Result<Roles, Errno> {
    let [real, effective] = ids.map(|id| id as u32);
    let may_real = [UNCHANGED, roles.real, roles.effective].contains(&real);
    let may_effective = effective == UNCHANGED || roles.has(effective);
    if !(is_root || (may_real && may_effective)) {
        return Err(Errno::PERM);
    }
    let mut new = roles;
    if real != UNCHANGED {
        new.real = real;
    }
    if effective != UNCHANGED {
        new.effective = effective;
    }
    if real != UNCHANGED || (effective != UNCHANGED && effective != roles.real) {
        new.saved = new.effective;
    }
    new.files = new.effective;
    Ok(new)
}

/// Returns the roles after `setresuid` or `setresgid`.
fn set_three(roles: Roles, is_root: bool, ids: [u64; 3]) -> Result<Roles, Errno> {
    let ids = ids.map(|id| id as u32);
    if !is_root && ids.iter().any(|id| *id != UNCHANGED && !roles.has(*id)) {
        return Err(Errno::PERM);
    }
    let new = |id, old| if id == UNCHANGED { old } else { id };
    let effective = new(ids[1], roles.effective);
    Ok(Roles {
        real: new(ids[0], roles.real),
        effective,
        saved: new(ids[2], roles.saved),
        files: effective,
    })
}

pub(super) fn setuid(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let state = &request.caller.state;
    emulation.become_user(request, set_one(state.user, state.is_root(), request.arguments[0])?)
}

pub(super) fn setgid(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let state = &request.caller.state;
    emulation.become_group(request, set_one(state.group, state.is_root(), request.arguments[0])?)
}

pub(super) fn setreuid(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [real, effective, ..] = request.arguments;
    let state = &request.caller.state;
    emulation.become_user(request, set_two(state.user, state.is_root(), [real, effective])?)
}

pub(super) fn setregid(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [real, effective, ..] = request.arguments;
    let state = &request.caller.state;
    emulation.become_group(request, set_two(state.group, state.is_root(), [real, effective])?)
}

pub(super) fn setresuid(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [real, effective, saved, ..] = request.arguments;
    let state = &request.caller.state;
    let user = set_three(state.user, state.is_root(), [real, effective, saved])?;
    emulation.become_user(request, user)
}

pub(super) fn setresgid(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [real, effective, saved, ..] = request.arguments;
    let state = &request.caller.state;
    let group = set_three(state.group, state.is_root(), [real, effective, saved])?;
    emulation.become_group(request, group)
}

/// Changes the ID for files, and returns the old one in any case.
pub(super) fn setfsuid(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let (state, id) = (&request.caller.state, request.arguments[0] as u32);
    if id != UNCHANGED && (state.is_root() || state.user.has(id)) {
        let mut new = State::clone(state);
        new.user.files = id;
        emulation.set(request, new)?;
    }
    Ok(Reply::Value(state.user.files.into()))
}

/// Changes the group for files, and returns the old one in any case.
pub(super) fn setfsgid(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let (state, id) = (&request.caller.state, request.arguments[0] as u32);
    if id != UNCHANGED && (state.is_root() || state.group.has(id)) {
        let mut new = State::clone(state);
        new.group.files = id;
        emulation.set(request, new)?;
    }
    Ok(Reply::Value(state.group.files.into()))
}

pub(super) fn getuid(_: &mut Emulation, request: &Request<'_>) -> Done {
    Ok(Reply::Value(request.caller.state.user.real.into()))
}

pub(super) fn geteuid(_: &mut Emulation, request: &Request<'_>) -> Done {
    Ok(Reply::Value(request.caller.state.user.effective.into()))
}

pub(super) fn getgid(_: &mut Emulation, request: &Request<'_>) -> Done {
    Ok(Reply::Value(request.caller.state.group.real.into()))
}

pub(super) fn getegid(_: &mut Emulation, request: &Request<'_>) -> Done {
    Ok(Reply::Value(request.caller.state.group.effective.into()))
}

pub(super) fn getresuid(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    write_roles(emulation, request, request.caller.state.user)
}

pub(super) fn getresgid(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    write_roles(emulation, request, request.caller.state.group)
}

fn write_roles(emulation: &Emulation, request: &Request<'_>, roles: Roles) -> Done {
    let ids = [roles.real, roles.effective, roles.saved];
    for (at, id) in request.arguments.iter().zip(ids) {
        emulation.write(request, *at, &id.to_ne_bytes())?;
    }
    Ok(Reply::Value(0))
}

pub(super) fn getgroups(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [size, at, ..] = request.arguments;
    let groups = &request.caller.state.groups;
    if size != 0 {
        if size < groups.len() as u64 {
            return Err(Errno::INVAL);
        }
        let bytes: Vec<u8> = groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
        if !bytes.is_empty() {
            emulation.write(request, at, &bytes)?;
        }
    }
    Ok(Reply::Value(groups.len() as i64))
}

pub(super) fn setgroups(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [size, at, ..] = request.arguments;
    let state = &request.caller.state;
    if !state.is_root() {
        return Err(Errno::PERM);
    }
    if size > MAX_GROUPS {
        return Err(Errno::INVAL);
    }
    let size = usize::try_from(size).map_err(|_| Errno::INVAL)? * 4;
    let bytes = if size == 0 { Vec::new() } else { emulation.read(request, at, size)? };
    if bytes.len() != size {
        return Err(Errno::FAULT);
    }
    let words = bytes.chunks_exact(4);
    let mut groups: Vec<u32> =
        words.map(|word| word.try_into().map_or(0, u32::from_ne_bytes)).collect();
    // The kernel sorts them, too.
    groups.sort_unstable();
    emulation.set(request, State { groups, ..State::clone(state) })
}

/// Reads the header of a capability call. Returns the number of words per set.
fn capability_words(emulation: &Emulation, request: &Request<'_>) -> Result<usize, Errno> {
    let at = request.arguments[0];
    let version = u32::from_ne_bytes(emulation.read_array(request, at)?);
    match version {
        CAPABILITIES_1 => Ok(1),
        CAPABILITIES_2 | CAPABILITIES_3 => Ok(2),
        _ => {
            emulation.write(request, at, &CAPABILITIES_3.to_ne_bytes())?;
            Err(Errno::INVAL)
        }
    }
}

pub(super) fn capget(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let words = match capability_words(emulation, request) {
        // A program asks for the version in this way.
        Err(Errno::INVAL) if request.arguments[1] == 0 => return Ok(Reply::Value(0)),
        other => other?,
    };
    let bits = if request.caller.state.is_root() { emulation.capabilities } else { 0 };
    let mut bytes = Vec::new();
    for word in 0..words {
        let word = ((bits >> (32 * word)) as u32).to_ne_bytes();
        bytes.extend_from_slice(&word);
        bytes.extend_from_slice(&word);
        bytes.extend_from_slice(&[0; 4]);
    }
    if request.arguments[1] == 0 {
        return Ok(Reply::Value(0));
    }
    emulation.write(request, request.arguments[1], &bytes)
}

pub(super) fn capset(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let words = capability_words(emulation, request)?;
    let sets = emulation.read(request, request.arguments[1], words * 12)?;
    if sets.len() != words * 12 {
        return Err(Errno::FAULT);
    }
    let is_empty = sets.chunks_exact(12).all(|set| set[..4] == [0; 4]);
    let state = &request.caller.state;
    if !is_empty && !state.is_root() {
        return Err(Errno::PERM);
    }
    if is_empty && state.has_capabilities {
        return emulation.set(request, State { has_capabilities: false, ..State::clone(state) });
    }
    Ok(Reply::Value(0))
}

pub(super) fn prctl(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [option, argument, ..] = request.arguments;
    let state = &request.caller.state;
    let granted = |is_granted| if is_granted { Ok(Reply::Value(0)) } else { Err(Errno::PERM) };
    match option {
        // The supervisor reads the program's memory in any case.
        PR_SET_DUMPABLE | PR_CAP_AMBIENT => Ok(Reply::Value(0)),
        PR_GET_KEEPCAPS => Ok(Reply::Value(state.keeps_capabilities.into())),
        PR_SET_KEEPCAPS => {
            let keeps_capabilities = argument != 0;
            emulation.set(request, State { keeps_capabilities, ..State::clone(state) })
        }
        PR_CAPBSET_READ if argument > 63 => Err(Errno::INVAL),
        PR_CAPBSET_READ => Ok(Reply::Value((emulation.capabilities >> argument & 1) as i64)),
        PR_CAPBSET_DROP | PR_SET_SECUREBITS => granted(state.is_root()),
        _ => Ok(Reply::Continue),
    }
}

pub(super) fn umask(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let state = &request.caller.state;
    let umask = request.arguments[0] as u32 & 0o777;
    if umask != state.umask {
        emulation.set(request, State { umask, ..State::clone(state) })?;
    }
    Ok(Reply::Value(state.umask.into()))
}

pub(super) fn getcwd(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [at, size, ..] = request.arguments;
    let state = &request.caller.state;
    let mut path = match below(&state.root, &state.directory) {
        Some(b"") => b"/".to_vec(),
        Some(path) => path.to_vec(),
        None => [b"(unreachable)", &state.directory[..]].concat(),
    };
    emulation.mounts.open_directory(&state.directory)?;
    path.push(0);
    if (path.len() as u64) > size {
        return Err(Errno::RANGE);
    }
    emulation.write(request, at, &path)?;
    Ok(Reply::Value(path.len() as i64))
}

fn directory(emulation: &Emulation, request: &Request<'_>) -> Result<Vec<u8>, Errno> {
    let (base, path) = emulation.path_of(request, HERE, request.arguments[0])?;
    let found = emulation.tables().find(&request.caller, &base, &path, true)?;
    if found.kind != FileType::Directory {
        return Err(Errno::NOTDIR);
    }
    if !emulation.metadata(&found)?.allows(&request.caller.state, Access::EXECUTE) {
        return Err(Errno::ACCESS);
    }
    Ok(found.path)
}

pub(super) fn chdir(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let directory = directory(emulation, request)?;
    emulation.set(request, State { directory, ..State::clone(&request.caller.state) })
}

pub(super) fn fchdir(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let found = emulation.file_of(request, request.arguments[0])?;
    if found.kind != FileType::Directory || found.mount.is_none() {
        return Err(Errno::NOTDIR);
    }
    let state = &request.caller.state;
    if !emulation.metadata(&found)?.allows(state, Access::EXECUTE) {
        return Err(Errno::ACCESS);
    }
    emulation.set(request, State { directory: found.path, ..State::clone(state) })
}

pub(super) fn chroot(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let root = directory(emulation, request)?;
    let state = &request.caller.state;
    if !state.is_root() {
        return Err(Errno::PERM);
    }
    emulation.set(request, State { root, ..State::clone(state) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_user_returns_only_to_its_own_ids() {
        let roles = Roles { real: 5, effective: 5, saved: 7, files: 5 };
        assert_eq!(set_one(roles, false, 7).unwrap().effective, 7);
        assert_eq!(set_one(roles, false, 0), Err(Errno::PERM));
        assert_eq!(set_one(roles, true, 0), Ok(Roles::all(0)));
        assert_eq!(set_three(roles, false, [5, 7, 0]), Err(Errno::PERM));
        let keep = u64::from(UNCHANGED);
        let swapped = set_two(roles, false, [keep, 7]).unwrap();
        assert_eq!((swapped.real, swapped.effective, swapped.saved), (5, 7, 7));
        assert_eq!(set_three(roles, true, [keep, 9, keep]).unwrap().files, 9);
    }
}

//! The files of `/proc` that would show the machine instead of the container: the list of processes,
//! the identity of a process, and the mounts.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, mkdirat, openat, readlinkat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::mounts::Mounts;
use super::resolve::Found;
use super::state::State;
use super::{Emulation, processes};
use crate::descriptors::own_path;
use crate::run::memory_file;

/// A file whose content the supervisor writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    Processes,
    Status,
    Mounts,
    MountInfo,
}

impl View {
    fn of(path: &[u8]) -> Option<Self> {
        let place = path.strip_prefix(b"/proc")?;
        let parts: Vec<&[u8]> = place.split(|byte| *byte == b'/').skip(1).collect();
        let name = match parts.as_slice() {
            [] => return Some(Self::Processes),
            [process, name] | [process, b"task", _, name]
                if processes::number(process).is_some() =>
            {
                *name
            }
            _ => return None,
        };
        match name {
            b"status" => Some(Self::Status),
            b"mounts" | b"mountstats" => Some(Self::Mounts),
            b"mountinfo" => Some(Self::MountInfo),
            _ => None,
        }
    }
}

impl Emulation {
    /// Opens a file of `/proc` as the program has to see it. `None` if the kernel's is right.
    pub(super) fn view(&self, found: &Found) -> Result<Option<OwnedFd>, Errno> {
        let is_proc = found.mount.is_some_and(|mount| self.mounts.get(mount).is_proc);
        let Some(view) = View::of(&found.path).filter(|_| is_proc) else { return Ok(None) };
        let text = match view {
            View::Processes => return self.list_processes().map(Some),
            View::Status => self.status(found)?,
            View::Mounts => mounts(&self.mounts),
            View::MountInfo => mount_info(&self.mounts),
        };
        let file = memory_file(text.as_bytes());
        let file = file.map_err(|error| super::errno(&error))?;
        let path = own_path(file.as_fd());
        Ok(Some(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// Lists the program's processes in a directory that stands for `/proc`.
    fn list_processes(&self) -> Result<OwnedFd, Errno> {
        let list = &self.listing;
        if !self.is_listed.replace(true) {
            make_listing(list).map_err(|error| super::errno(&error))?;
        }
        let ours: Vec<String> = processes::ours()
            .map(|process| if process == self.first { 1 } else { process })
            .map(|process| process.to_string())
            .collect();
        let open = || {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            openat(list, ".", flags, Mode::empty())
        };
        for entry in Dir::new(open()?)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if processes::number(name.as_bytes()).is_some() && !ours.contains(&name) {
                let _ = unlinkat(list, &name, AtFlags::REMOVEDIR);
            }
        }
        for process in ours {
            match mkdirat(list, &process, Mode::from_raw_mode(0o555)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        open()
    }

    /// Returns the status of a process with the identity that the program knows.
    fn status(&self, found: &Found) -> Result<String, Errno> {
        let path = own_path(found.fd.as_fd());
        let text = std::fs::read(path).map_err(|error| super::errno(&error))?;
        let process = found.path.split(|byte| *byte == b'/').nth(2);
        let process = process.and_then(processes::number).ok_or(Errno::SRCH)?;
        let state = self.states.of(process);
        let mut shown = String::new();
        for line in String::from_utf8_lossy(&text).lines() {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = self.status_value(&state, name).unwrap_or_else(|| self.seen(name, value));
            // Writing to a string can't fail.
            let _ = writeln!(shown, "{name}:{value}");
        }
        Ok(shown)
    }

    /// Returns the value of a field that the supervisor knows.
    fn status_value(&self, state: &State, name: &str) -> Option<String> {
        let capabilities = |has| if has { self.capabilities } else { 0 };
        let is_root = state.is_root();
        let roles = |roles: super::state::Roles| {
            format!("\t{}\t{}\t{}\t{}", roles.real, roles.effective, roles.saved, roles.files)
        };
        Some(match name {
            "Umask" => format!("\t{:04o}", state.umask),
            "Uid" => roles(state.user),
            "Gid" => roles(state.group),
            "Groups" => {
                let groups = state.groups.iter().map(|group| format!("{group} "));
                format!("\t{}", groups.collect::<String>())
            }
            "CapPrm" | "CapEff" => format!("\t{:016x}", capabilities(is_root)),
            "CapBnd" => format!("\t{:016x}", capabilities(true)),
            "NoNewPrivs" => "\t0".to_owned(),
            _ => return None,
        })
    }

    /// Returns a field with the number of the program's process as the program knows it.
    fn seen(&self, name: &str, value: &str) -> String {
        let is_number = matches!(name, "Tgid" | "Pid" | "PPid");
        let number = value.trim().parse::<u32>().ok().filter(|_| is_number);
        if number.is_some_and(|number| number == self.first) {
            return "\t1".to_owned();
        }
        if number == Some(processes::supervisor()) { "\t0".to_owned() } else { value.to_owned() }
    }
}

/// Makes the entries that don't change in the directory that stands for `/proc`.
fn make_listing(list: &OwnedFd) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::open("/proc", flags, Mode::empty())?;
    for entry in Dir::read_from(&proc)?.flatten() {
        let name = entry.file_name();
        let is_process = processes::number(name.to_bytes()).is_some();
        if is_process || matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match entry.file_type() {
            FileType::Directory => mkdirat(list, name, Mode::from_raw_mode(0o555))?,
            FileType::Symlink => {
                let target = readlinkat(&proc, name, Vec::new())?;
                symlinkat(&target, list, name)?;
            }
            _ => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
                drop(openat(list, name, flags, Mode::from_raw_mode(0o444))?);
            }
        }
    }
    Ok(())
}

/// Returns the options of a mount.
fn options(is_readonly: bool, is_root: bool, is_device: bool) -> String {
    let mut options = if is_readonly { "ro" } else { "rw" }.to_owned();
    if !is_root {
        options.push_str(",nosuid");
    }
    if !is_device {
        options.push_str(",nodev");
    }
    options + ",relatime"
}

/// Returns the lines of the mount table: number, target, options, type.
fn rows(mounts: &Mounts) -> Vec<(usize, String, String, &'static str)> {
    let shown = |path: &[u8]| {
        let text = String::from_utf8_lossy(path);
        text.replace('\\', "\\134").replace(' ', "\\040").replace('\n', "\\012")
    };
    let all = mounts.iter().enumerate().filter(|(_, mount)| !mount.is_hidden);
    all.map(|(number, mount)| {
        let (is_root, is_device) = (number == 0, mount.target.starts_with(b"/dev/"));
        let kind = match &mount.target[..] {
            b"/" => "overlay",
            b"/proc" => "proc",
            b"/sys" => "sysfs",
            b"/dev/pts" => "devpts",
            _ => "tmpfs",
        };
        let options = options(mount.is_readonly, is_root, is_device);
        (number + 1, shown(&mount.target), options, kind)
    })
    .collect()
}

fn mounts(mounts: &Mounts) -> String {
    let mut text = String::new();
    for (_, target, options, kind) in rows(mounts) {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{kind} {target} {kind} {options} 0 0");
    }
    text
}

fn mount_info(mounts: &Mounts) -> String {
    let mut text = String::new();
    for (number, target, options, kind) in rows(mounts) {
        let parent = usize::from(number > 1);
        let place = format!("{number} {parent} 0:{number} / {target} {options}");
        // Writing to a string can't fail.
        let _ = writeln!(text, "{place} - {kind} {kind} rw");
    }
    text
}

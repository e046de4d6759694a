//! The process that maps kiln's IDs.
//!
//! It is a second instance of the same binary. kiln starts it before entering its user namespace.
//! The process waits for a byte, then runs the two programs that may write maps, or writes them
//! itself if it is root. If kiln ends before, it ends too.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use super::Plan;
use crate::rendering::printer::Printer;

/// The program name that makes the process the mapper.
const MARKER: &str = "kiln-id-mapper";
/// The first argument of a mapper that writes the maps itself.
const WRITE: &str = "--write";
/// The separator between the arguments of the two programs.
const NEXT: &str = "--";

/// A handle to the process.
pub(super) struct Mapper {
    child: Child,
}

impl Mapper {
    /// Starts the process. It then waits.
    pub(super) fn start(plan: Plan) -> Result<Self> {
        let pid = std::process::id().to_string();
        let mut command = Command::new("/proc/self/exe");
        command.arg0(MARKER).env_clear().stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        match plan {
            Plan::Programs([users, groups]) => {
                command.arg(users.0).arg(&pid).args(users.1).arg(NEXT);
                command.arg(groups.0).arg(&pid).args(groups.1);
            }
            Plan::Own(maps) => {
                command.arg(WRITE).arg(&pid).args(maps);
            }
        }
        Ok(Self { child: command.spawn().context("start kiln once more, to map user ids")? })
    }

    /// Makes the process map the IDs of this one, and waits for its end.
    pub(super) fn map(mut self) -> Result<()> {
        if let Some(mut stdin) = self.child.stdin.take() {
            stdin.write_all(b"!").context("have user ids mapped")?;
        }
        let output = self.child.wait_with_output().context("have user ids mapped")?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}", said.trim().lines().collect::<Vec<_>>().join("; "))
    }
}

/// Acts as the mapper if this process was started as one. `arguments` begin with the program's name.
pub(crate) fn map_if_asked(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    if arguments.next()? != MARKER {
        return None;
    }
    let mut byte = [0];
    if !matches!(std::io::stdin().read(&mut byte), Ok(1)) {
        return Some(ExitCode::FAILURE);
    }
    let arguments: Vec<_> = arguments.collect();
    if let [first, pid, users, groups] = arguments.as_slice()
        && first == WRITE
    {
        return Some(write(&pid.to_string_lossy(), users, groups));
    }
    for program in arguments.split(|argument| argument == NEXT) {
        let Some((name, rest)) = program.split_first() else { continue };
        match Command::new(name).args(rest).stdin(Stdio::null()).status() {
            Ok(status) if status.success() => {}
            Ok(_) => return Some(ExitCode::FAILURE),
            Err(error) => {
                let name = name.to_string_lossy();
                Printer::new().note(format_args!("{name}: {error}"));
                return Some(ExitCode::FAILURE);
            }
        }
    }
    Some(ExitCode::SUCCESS)
}

/// Writes the maps of users and groups of a process.
fn write(pid: &str, users: &OsStr, groups: &OsStr) -> ExitCode {
    for (name, map) in [("uid_map", users), ("gid_map", groups)] {
        let path = format!("/proc/{pid}/{name}");
        if let Err(error) = std::fs::write(&path, map.as_bytes()) {
            Printer::new().note(format_args!("write {path}: {error}"));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

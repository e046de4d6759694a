//! The optional process 1 of a runtime's container.
//!
//! A runtime executes its program as process 1, so it gets a copy of kiln as the program. The copy
//! is in the container's `/dev`, belongs to that container only, and recognises its role by its
//! name. It splits like the sandbox's child ([`init`]).

#![expect(
    clippy::disallowed_methods,
    reason = "kiln gives this process its arguments, its environment and its file"
)]

use std::convert::Infallible;
use std::fs::Permissions;
use std::io::{IsTerminal, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::init::{self, Part};
use crate::program::{self, Image};
use crate::root::Root;
use crate::sources::open_inside;
use crate::sys;
use crate::wire::Failure;

/// The path of the copy in the container, which is also its `argv[0]`.
pub(crate) const PATH: &str = "/dev/kiln-init";

/// The exit status of a process 1 that fails to start.
const FAILED: i32 = 125;

/// Copies this program to `path` for the container with `root`.
pub(super) fn copy(path: &Path, root: &Root) -> Result<(), Failure> {
    const ITSELF: &str = "/proc/self/exe";
    let doing = |error| Failure::doing::<std::io::Error>("copy kiln for process 1")(error);
    std::fs::copy(ITSELF, path).map_err(doing)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o555)).map_err(doing)?;
    let program = std::fs::read(path).map_err(doing)?;
    if let Some(loader) = loader(&program)
        && open_inside(root.fd(), &loader, OFlags::PATH).is_err()
    {
        return Err(Failure::new(format!(
            "--init with an OCI runtime executes kiln in the container, which lacks {}: it takes a static kiln",
            loader.display()
        )));
    }
    Ok(())
}

/// Returns the path of an ELF program's loader. Returns `None` for a static program.
fn loader(program: &[u8]) -> Option<PathBuf> {
    const LOADER: u64 = 3;
    let number = |at: usize, bytes: usize| {
        let field = program.get(at..at.checked_add(bytes)?)?;
        let digits = field.iter().rev().map(|byte| u64::from(*byte));
        Some(digits.fold(0, |number, digit| number << 8 | digit))
    };
    let place = |at: usize| usize::try_from(number(at, 8)?).ok();
    let (first, count) = (place(32)?, number(56, 2)?);
    let headers = (0..count).map(|index| first + 56 * index as usize);
    let header = headers.into_iter().find(|at| number(*at, 4) == Some(LOADER))?;
    let (start, length) = (place(header + 8)?, place(header + 32)?);
    let name = program.get(start..start.checked_add(length)?)?;
    let name = name.strip_suffix(&[0]).unwrap_or(name);
    Some(std::ffi::OsString::from_vec(name.to_owned()).into())
}

/// Runs as process 1 and starts the program in the arguments.
#[expect(
    clippy::exit,
    reason = "process 1 is a process of its own, and has no caller to return to"
)]
pub(crate) fn begin() -> ! {
    let failure = match split() {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    // If the message can't be written, the exit status remains.
    let _ = writeln!(std::io::stderr(), "ERROR: {}", failure.message);
    std::process::exit(failure.code.unwrap_or(FAILED))
}

fn split() -> Result<Infallible, Failure> {
    sys::reset_signals();
    let text = |word: std::ffi::OsString| word.to_string_lossy().into_owned();
    let words: Vec<String> = std::env::args_os().skip(1).map(text).collect();
    let env: Vec<String> = std::env::vars_os()
        .map(|(name, value)| format!("{}={}", text(name), text(value)))
        .collect();
    let name = words.first().ok_or_else(|| Failure::new("no program to execute"))?;
    let image = Image::new(&program::find(name, &env)?, &words, &env)?;
    if let Part::Init { program } = init::split(std::io::stdin().is_terminal())? {
        init::run(program);
    }
    Err(image.execute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_of_a_program_is_found() {
        assert_eq!(loader(b"#!/bin/sh"), None);
        assert_eq!(loader(&std::fs::read("/bin/busybox").unwrap_or_default()), None);
        let own = std::fs::read("/proc/self/exe").unwrap();
        let found = loader(&own);
        assert!(found.is_none_or(|path| path.is_absolute() && path.exists()));
    }
}

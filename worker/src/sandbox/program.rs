//! Programs: kiln's own, sealed; the one that is run, found in its `PATH`.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType, MemfdFlags, SealFlags};
use rustix::io::Errno;

use super::wire::{Failure, describe};

const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

/// Copies this process's program into memory that nobody can write any more.
///
/// A program in the sandbox may get hold of what it was started by, through `/proc`; it must not
/// be the file that the user executes next time.
pub(super) fn sealed_copy() -> io::Result<OwnedFd> {
    let program = File::open("/proc/self/exe")?;
    let length = program.metadata()?.len();
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 don't know the flag, and need none.
    let copy = match rustix::fs::memfd_create("kiln", flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => rustix::fs::memfd_create("kiln", flags)?,
        other => other?,
    };
    let mut copied = 0;
    while copied < length {
        let rest = usize::try_from(length - copied).unwrap_or(usize::MAX);
        match rustix::fs::sendfile(&copy, &program, None, rest)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => copied += more as u64,
        }
    }
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    Ok(copy)
}

/// Finds a program as the container's user would, and Docker's messages where there is none.
pub(super) fn find(name: &str, env: &[String]) -> Result<PathBuf, Failure> {
    let failure = |problem: &str, code| Failure {
        message: format!("exec: {name:?}: {problem}"),
        code: Some(code),
    };
    if name.is_empty() {
        return Err(failure("no program to execute", NOT_FOUND));
    }
    if name.contains('/') {
        return match check(Path::new(name)) {
            Ok(()) => Ok(PathBuf::from(name)),
            Err(Errno::NOENT | Errno::NOTDIR) => {
                Err(failure(&format!("stat {name}: no such file or directory"), NOT_FOUND))
            }
            Err(Errno::ISDIR) => Err(failure("is a directory", NOT_EXECUTABLE)),
            Err(errno) => Err(failure(&describe(&errno.into()), NOT_EXECUTABLE)),
        };
    }
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    let mut denied = false;
    // An empty part would mean the working directory, which is never searched.
    for directory in path.split(':').filter(|directory| !directory.is_empty()) {
        let candidate = Path::new(directory).join(name);
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::ACCESS) => denied = true,
            Err(_) => {}
        }
    }
    if denied {
        return Err(failure("permission denied", NOT_EXECUTABLE));
    }
    Err(failure("executable file not found in $PATH", NOT_FOUND))
}

fn check(path: &Path) -> rustix::io::Result<()> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

/// What `execve` takes.
pub(super) struct Image {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Image {
    pub(super) fn new(path: &Path, args: &[String], env: &[String]) -> Result<Self, Failure> {
        use std::os::unix::ffi::OsStrExt;
        let strings = |list: &[String], what: &str| {
            list.iter()
                .map(|text| CString::new(text.as_str()))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| Failure::new(format!("{what} contains a zero byte")))
        };
        let path = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| Failure::new("the program's name contains a zero byte"))?;
        Ok(Self {
            path,
            args: strings(args, "an argument")?,
            env: strings(env, "an environment variable")?,
        })
    }

    /// Becomes the program; returns only where that fails.
    pub(super) fn execute(&self) -> Failure {
        let Err(errno) = nix::unistd::execve(&self.path, &self.args, &self.env);
        let code = match errno {
            nix::errno::Errno::ENOENT => NOT_FOUND,
            _ => NOT_EXECUTABLE,
        };
        let problem = describe(&errno.into());
        let path = self.path.to_string_lossy();
        Failure { message: format!("exec {path}: {problem}"), code: Some(code) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_up_in_the_given_path() {
        let env = |path: &str| vec![format!("PATH={path}")];
        assert_eq!(find("sh", &env("/nowhere:/bin")).unwrap(), Path::new("/bin/sh"));
        let missing = find("sh", &env("/nowhere")).unwrap_err();
        assert_eq!(missing.message, "exec: \"sh\": executable file not found in $PATH");
        assert_eq!(missing.code, Some(127));
        assert_eq!(find("sh", &[]).unwrap_err().code, Some(127));
        assert_eq!(find("/bin", &[]).unwrap_err().code, Some(126));
        assert_eq!(find("/etc/passwd", &[]).unwrap_err().code, Some(126));
        let missing = find("/no/such", &[]).unwrap_err();
        assert_eq!(missing.message, "exec: \"/no/such\": stat /no/such: no such file or directory");
    }

    #[test]
    fn the_copy_is_the_program_and_stays_it() {
        use std::io::Write;
        let copy = File::from(sealed_copy().unwrap());
        let length = std::fs::metadata("/proc/self/exe").unwrap().len();
        assert_eq!(copy.metadata().unwrap().len(), length);
        assert!((&copy).write_all(b"x").is_err());
        assert!(copy.set_len(0).is_err());
    }
}

//! Executable programs: kiln's own in unwritable form, and the container's, found in its `PATH`.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::ffi::CString;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kiln_oci::error::words_of;
use kiln_tree::Overlay;
use rustix::fs::{
    Access, AtFlags, CWD, FileType, MemfdFlags, Mode, OFlags, ResolveFlags, SealFlags, openat2,
};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::spec::Process;
use super::wire::Failure;

const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

/// A directory that is neither above nor below that of kiln's program.
const ELSEWHERE: &str = "/dev";

/// Opens this process's program for execution through a descriptor that can't be used to write to
/// it. `beside` is any other directory.
///
/// A program in the sandbox may reach the helper's executable through `/proc`. That must not be the
/// file that the user executes next time. So the helper is executed from a read-only overlay of the
/// program's directory and of another one, because an overlay requires two. If that isn't possible,
/// the program is copied into memory, and takes ten times as long to start.
pub(super) fn unwritable(beside: &Path) -> io::Result<OwnedFd> {
    // Neither directory may contain the other.
    let mounted = mounted(beside).or_else(|_| mounted(Path::new(ELSEWHERE)));
    mounted.or_else(|_| sealed_copy())
}

fn mounted(beside: &Path) -> io::Result<OwnedFd> {
    let path = std::fs::read_link("/proc/self/exe")?;
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let lowers = vec![directory.to_owned(), beside.to_owned()];
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    let root = Overlay { lowers, upper: None }.mount(attributes).map_err(io::Error::other)?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let program = File::from(openat2(root, name, flags, Mode::empty(), resolve)?);
    // The program may have been replaced since this process started.
    let (found, own) = (program.metadata()?, File::open("/proc/self/exe")?.metadata()?);
    let look = |file: &Metadata| (file.ino(), file.len(), file.mtime(), file.mtime_nsec());
    if look(&found) == look(&own) { Ok(program.into()) } else { Err(Errno::STALE.into()) }
}

/// Copies this process's program into sealed memory.
fn sealed_copy() -> io::Result<OwnedFd> {
    let program = File::open("/proc/self/exe")?;
    let length = program.metadata()?.len();
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 don't know the flag and don't need it.
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

/// Finds a program as the container's user. The errors are Docker's.
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
            Err(errno) => Err(failure(&words_of(&errno.into()), NOT_EXECUTABLE)),
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

/// The arguments of `execve`.
pub(super) struct Image {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Image {
    /// Finds the program of a process in the process's root, as its user. Without `HOME` in the
    /// environment, the variable is set to `home` or, without one, to `/`.
    pub(super) fn of(process: &Process, home: Option<&str>) -> Result<Self, Failure> {
        let name = process.args.first().ok_or_else(|| Failure::new("no program to execute"))?;
        let path = find(name, &process.env)?;
        let mut env = process.env.clone();
        if !env.iter().any(|entry| entry.starts_with("HOME=")) {
            env.push(format!("HOME={}", home.unwrap_or("/")));
        }
        Self::new(&path, &process.args, &env)
    }

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

    /// Executes the program. Returns only on failure.
    pub(super) fn execute(&self) -> Failure {
        let Err(errno) = nix::unistd::execve(&self.path, &self.args, &self.env);
        let code = match errno {
            nix::errno::Errno::ENOENT => NOT_FOUND,
            _ => NOT_EXECUTABLE,
        };
        let problem = words_of(&errno.into());
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
    fn the_program_can_be_written_neither_mounted_nor_copied() {
        use std::io::Write;
        let elsewhere = tempfile::tempdir().unwrap();
        let mut ways = vec![sealed_copy().unwrap(), unwritable(elsewhere.path()).unwrap()];
        if rustix::process::geteuid().is_root() {
            ways.push(mounted(elsewhere.path()).unwrap());
            ways.push(mounted(Path::new(ELSEWHERE)).unwrap());
        }
        let own = std::fs::metadata("/proc/self/exe").unwrap();
        for way in ways {
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&way));
            let file = File::from(way);
            assert_eq!(file.metadata().unwrap().len(), own.len());
            assert!((&file).write_all(b"x").is_err() && file.set_len(0).is_err());
            // Reopening the file for writing must fail too.
            let again = File::options().write(true).open(&path);
            assert!(again.and_then(|mut file| file.write_all(b"x")).is_err());
            let executable = std::fs::metadata(&path).unwrap().mode() & 0o111;
            assert_ne!(executable, 0);
        }
        let now = std::fs::metadata("/proc/self/exe").unwrap();
        assert_eq!((own.len(), own.mtime_nsec()), (now.len(), now.mtime_nsec()));
    }
}

//! Files that appear in one step.
//!
//! A destination that the user names may be any kind of file. A regular file is replaced in one
//! step and keeps its content until then. A pipe, a device, a terminal, or the target of
//! `/dev/stdout` is written in place. A symbolic link is followed and stays a link, even if its
//! target doesn't exist.

#![expect(clippy::disallowed_methods, reason = "the user names the destination")]

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The maximum number of links to follow, equal to the kernel's.
const MAX_LINKS: usize = 40;

/// A file that is written beside its destination and replaces it when it is complete.
#[derive(Debug)]
pub struct NewFile {
    target: PathBuf,
    /// The temporary path. `None` if the target is written in place.
    temporary: Option<PathBuf>,
    file: File,
}

/// The kind of file at a destination.
enum Place {
    /// A regular file or a missing one, with all links resolved.
    File(PathBuf, Option<fs::Metadata>),
    /// A file of another kind, which is written in place.
    Special,
}

impl NewFile {
    /// Creates a file for `dest`.
    ///
    /// # Errors
    /// Fails if `dest` is a directory or can't be written.
    pub fn create(dest: &Path) -> Result<Self> {
        let in_place = |target: &Path, is_file: bool| {
            // A shell's redirection to a file must keep the content before it.
            let mut options = OpenOptions::new();
            let options =
                if is_file { options.write(true).truncate(true) } else { options.append(true) };
            let file = options.open(target);
            let file = file.map_err(Error::io("open", target))?;
            Ok(Self { target: target.to_owned(), temporary: None, file })
        };
        let (target, there) = match place(dest)? {
            Place::Special => return in_place(dest, false),
            Place::File(target, there) => (target, there),
        };
        let mut number = 0_u32;
        loop {
            let temporary = beside(&target, number)?;
            match OpenOptions::new().read(true).write(true).create_new(true).open(&temporary) {
                Ok(file) => {
                    let new = Self { target, temporary: Some(temporary), file };
                    if let Some(there) = there {
                        // The new file keeps the permissions of the old one if possible.
                        let _ = new.file.set_permissions(there.permissions());
                    }
                    return Ok(new);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                // The user may write the file but not its directory.
                Err(_) if there.is_some() => return in_place(&target, true),
                Err(error) => return Err(Error::io("create", dest)(error)),
            }
        }
    }

    /// Gives the complete file its final name.
    ///
    /// # Errors
    /// Fails if the file can't be renamed or, in place of a mount point, copied. A failed rename
    /// leaves the destination unchanged.
    pub fn commit(mut self) -> Result<()> {
        self.file.flush().map_err(Error::io("write", &self.target))?;
        let Some(temporary) = &self.temporary else { return Ok(()) };
        match fs::rename(temporary, &self.target) {
            Ok(()) => self.temporary = None,
            // The target is a mount point: write into the mounted file.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                self.copy().map_err(Error::io("write", &self.target))?;
            }
            Err(error) => return Err(Error::io("rename", &self.target)(error)),
        }
        Ok(())
    }

    /// Copies the complete file into the existing one.
    fn copy(&mut self) -> io::Result<()> {
        let mut target = OpenOptions::new().write(true).truncate(true).open(&self.target)?;
        self.file.rewind()?;
        io::copy(&mut self.file, &mut target).map(drop)
    }

    /// Returns the open file.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Returns the final path, with links resolved unless the destination is written in place.
    pub fn target(&self) -> &Path {
        &self.target
    }
}

/// Writes a file at `dest` in one step.
///
/// # Errors
/// Fails if `dest` is a directory or can't be written.
pub fn write_file(dest: &Path, bytes: &[u8]) -> Result<()> {
    let mut new = NewFile::create(dest)?;
    new.file().write_all(bytes).map_err(Error::io("write", dest))?;
    new.commit()
}

/// Removes the regular file that an earlier command has written to `dest`. Empties the file if it
/// can't be removed.
///
/// # Errors
/// Fails if the file can be neither removed nor emptied.
pub fn remove_old(dest: &Path) -> Result<()> {
    let Place::File(target, Some(_)) = place(dest)? else { return Ok(()) };
    fs::remove_file(&target)
        .or_else(|_| OpenOptions::new().write(true).truncate(true).open(&target).map(drop))
        .map_err(Error::io("remove", &target))
}

fn place(dest: &Path) -> Result<Place> {
    let is_descriptor = ["/dev/fd", "/dev/stdout", "/dev/stderr", "/proc"];
    let is_descriptor = is_descriptor.iter().any(|known| dest.starts_with(known));
    match fs::metadata(dest) {
        Ok(there) if is_descriptor && !there.is_dir() => Ok(Place::Special),
        Ok(there) if there.is_dir() => {
            let source = io::Error::from(io::ErrorKind::IsADirectory);
            Err(Error::Io { action: "write", path: dest.to_owned(), source })
        }
        Ok(there) if there.is_file() => match fs::canonicalize(dest) {
            Ok(target) => Ok(Place::File(target, Some(there))),
            // An unlinked file behind `/dev/fd`.
            Err(_) => Ok(Place::Special),
        },
        Ok(_) => Ok(Place::Special),
        Err(_) => Ok(Place::File(behind_links(dest)?, None)),
    }
}

/// Follows the links of a path whose final target doesn't exist.
fn behind_links(dest: &Path) -> Result<PathBuf> {
    let mut path = dest.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            Err(_) => return Ok(path),
        }
    }
    let source = io::Error::from_raw_os_error(rustix::io::Errno::LOOP.raw_os_error());
    Err(Error::Io { action: "open", path: dest.to_owned(), source })
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = fs::remove_file(temporary);
        }
    }
}

fn beside(target: &Path, number: u32) -> Result<PathBuf> {
    let name = target.file_name().ok_or_else(|| {
        let source = io::Error::from(io::ErrorKind::InvalidInput);
        Error::Io { action: "create", path: target.to_owned(), source }
    })?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".kiln-{}-{number}", std::process::id()));
    Ok(target.with_file_name(hidden))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn files_appear_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.tar");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let mut new = NewFile::create(&path).unwrap();
        new.file().write_all(b"half").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        drop(new);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let link = dir.path().join("link");
        symlink("out.tar", &link).unwrap();
        write_file(&link, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(NewFile::create(dir.path()).is_err());
        assert!(NewFile::create(&dir.path().join("no/where")).is_err());
    }

    #[test]
    fn links_without_a_target_get_one() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("d")).unwrap();
        symlink("d/two", at("one")).unwrap();
        symlink("three", at("d/two")).unwrap();
        write_file(&at("one"), b"x").unwrap();
        assert_eq!(fs::read(at("d/three")).unwrap(), b"x");
        assert!(fs::symlink_metadata(at("d/two")).unwrap().is_symlink());
        remove_old(&at("one")).unwrap();
        assert!(!at("d/three").exists() && fs::symlink_metadata(at("one")).unwrap().is_symlink());
        symlink("loop", at("loop")).unwrap();
        assert!(write_file(&at("loop"), b"x").is_err());
    }

    #[test]
    fn what_is_no_file_stays_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let null = Path::new("/dev/null");
        write_file(null, b"x").unwrap();
        remove_old(null).unwrap();
        assert!(fs::metadata(null).unwrap().file_type().is_char_device());
        let link = dir.path().join("null");
        symlink(null, &link).unwrap();
        write_file(&link, b"x").unwrap();
        remove_old(&link).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        let reader = std::thread::spawn({
            let fifo = fifo.clone();
            move || fs::read(fifo).unwrap()
        });
        remove_old(&fifo).unwrap();
        write_file(&fifo, b"x").unwrap();
        assert_eq!(reader.join().unwrap(), b"x");
        assert!(fs::metadata(&fifo).unwrap().file_type().is_fifo());
        // A pipe behind /dev/fd, like a shell's `>(…)`.
        let (read, write) = io::pipe().unwrap();
        let path = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&write));
        write_file(Path::new(&path), b"y").unwrap();
        drop(write);
        assert_eq!(io::read_to_string(read).unwrap(), "y");
        // A file behind /dev/fd, like a shell's `>>`.
        let log = dir.path().join("log");
        fs::write(&log, "a").unwrap();
        let file = File::open(&log).unwrap();
        let path = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        remove_old(Path::new(&path)).unwrap();
        write_file(Path::new(&path), b"b").unwrap();
        assert_eq!(fs::read(&log).unwrap(), b"ab");
    }
}

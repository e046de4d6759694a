//! Files that appear whole.
//!
//! What a user names as a place for output may be anything. A regular file is replaced in one go, and
//! stays what it was until then; what isn't one (a pipe, a device, a terminal, what `/dev/stdout` leads
//! to) is written to as it is. A link is followed, and stays a link, whether its target is there or not.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// How many links may lead to a file, as many as the kernel follows.
const MAX_LINKS: usize = 40;

/// A file that is written beside its destination and takes its place when it is complete.
#[derive(Debug)]
pub struct NewFile {
    target: PathBuf,
    /// Where it is written meanwhile; `None` where that is the target itself.
    temporary: Option<PathBuf>,
    file: File,
}

/// What is at a destination.
enum Place {
    /// Nothing yet, or a regular file, behind all links.
    File(PathBuf, Option<fs::Metadata>),
    /// Something else that can be written.
    Special,
}

impl NewFile {
    /// Begins a file at `dest`.
    ///
    /// # Errors
    /// Fails where nothing can be written there.
    pub fn create(dest: &Path) -> Result<Self> {
        let in_place = |target: &Path, is_file: bool| {
            // What a shell has redirected to a file is written behind what is there.
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
                        // Who may read it is for its owner to say, as far as that is possible here.
                        let _ = new.file.set_permissions(there.permissions());
                    }
                    return Ok(new);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                // The file may be somebody's who can't change its directory.
                Err(_) if there.is_some() => return in_place(&target, true),
                Err(error) => return Err(Error::io("create", dest)(error)),
            }
        }
    }

    /// Gives the complete file its name.
    ///
    /// # Errors
    /// Fails where it can't have the name; then nothing has changed there.
    pub fn commit(mut self) -> Result<()> {
        self.file.flush().map_err(Error::io("write", &self.target))?;
        let Some(temporary) = &self.temporary else { return Ok(()) };
        match fs::rename(temporary, &self.target) {
            Ok(()) => self.temporary = None,
            // Something is mounted there, and that is what it is to be written to.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                self.copy().map_err(Error::io("write", &self.target))?;
            }
            Err(error) => return Err(Error::io("rename", &self.target)(error)),
        }
        Ok(())
    }

    /// Copies the complete file into the one that is there.
    fn copy(&mut self) -> io::Result<()> {
        let mut target = OpenOptions::new().write(true).truncate(true).open(&self.target)?;
        self.file.rewind()?;
        io::copy(&mut self.file, &mut target).map(drop)
    }

    /// Returns the file.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Returns the path as people know it.
    pub fn target(&self) -> &Path {
        &self.target
    }
}

/// Writes a file at `dest`, whole or not at all.
///
/// # Errors
/// Fails where nothing can be written there.
pub fn write_file(dest: &Path, bytes: &[u8]) -> Result<()> {
    let mut new = NewFile::create(dest)?;
    new.file().write_all(bytes).map_err(Error::io("write", dest))?;
    new.commit()
}

/// Removes what an earlier command has written to `dest`, where that is a regular file. Where it can't
/// be removed, it is emptied.
///
/// # Errors
/// Fails where it stays.
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
            // A file without a name, behind `/dev/fd`.
            Err(_) => Ok(Place::Special),
        },
        Ok(_) => Ok(Place::Special),
        Err(_) => Ok(Place::File(behind_links(dest)?, None)),
    }
}

/// Returns where a path leads whose last target isn't there.
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
        // A pipe behind /dev/fd, as a shell's `>(…)` is.
        let (read, write) = io::pipe().unwrap();
        let path = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&write));
        write_file(Path::new(&path), b"y").unwrap();
        drop(write);
        assert_eq!(io::read_to_string(read).unwrap(), "y");
        // And a file, as behind `>>`.
        let log = dir.path().join("log");
        fs::write(&log, "a").unwrap();
        let file = File::open(&log).unwrap();
        let path = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        remove_old(Path::new(&path)).unwrap();
        write_file(Path::new(&path), b"b").unwrap();
        assert_eq!(fs::read(&log).unwrap(), b"ab");
    }
}

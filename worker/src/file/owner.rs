//! Owners by number and by name.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use kiln_llb::op::{Chown, InputIndex, UserRef};
use kiln_tree::{Dir, Owner};
use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use super::Source;
use super::place::{open, resolve as resolve_place};
use crate::error::{Error, Result};

/// Most bytes of a file of users or groups.
const LIMIT: u64 = 10 << 20;

/// Checks an owner before anything runs.
pub(super) fn check(chown: &Chown) -> Result<()> {
    for user in [&chown.user, &chown.group].into_iter().flatten() {
        if let UserRef::Name { name, input: None } = user {
            return Err(Error::Invalid(format!("owner {name:?} is looked up in no input")));
        }
    }
    Ok(())
}

/// Returns an owner's numbers. A user that is found by its name brings its group, one by number is
/// its own group, and a group that is named counts more than either. A name that isn't found is
/// root, as BuildKit has it.
pub(super) fn resolve(
    chown: &Chown,
    source: impl Fn(InputIndex) -> Result<Source>,
) -> Result<Owner> {
    let mut owner = Owner::default();
    match &chown.user {
        Some(UserRef::Id(id)) => owner = Owner { uid: *id, gid: *id },
        Some(UserRef::Name { name, input }) => {
            let users = read(source(*input)?.view().dir, "/etc/passwd")?;
            if let Some((uid, gid)) = find(&users, name, (2, Some(3))) {
                owner = Owner { uid, gid };
            }
        }
        None => {}
    }
    match &chown.group {
        Some(UserRef::Id(id)) => owner.gid = *id,
        Some(UserRef::Name { name, input }) => {
            let groups = read(source(*input)?.view().dir, "/etc/group")?;
            if let Some((gid, _)) = find(&groups, name, (2, None)) {
                owner.gid = gid;
            }
        }
        None => {}
    }
    Ok(owner)
}

/// Returns the numbers in the columns of the line that begins with `name`.
fn find(text: &[u8], name: &str, columns: (usize, Option<usize>)) -> Option<(u32, u32)> {
    let lines = text.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    let numbers = lines.filter_map(|line| {
        let fields: Vec<&str> = line.trim_end_matches('\r').split(':').collect();
        if fields.first() != Some(&name) {
            return None;
        }
        let number = |column: usize| fields.get(column)?.parse::<u32>().ok();
        Some((number(columns.0)?, columns.1.map_or(Some(0), number)?))
    });
    { numbers }.next()
}

/// Reads a file of a tree that a hostile image may have replaced by anything. One that isn't there
/// is empty.
fn read(root: &Dir, path: &str) -> Result<Vec<u8>> {
    let failed = |errno: Errno| Error::path("read", Path::new(path))(errno);
    let resolved = resolve_place(root, Path::new(path))?;
    let (Some(parent), Some(name)) = (resolved.parent(), resolved.file_name()) else {
        return Ok(Vec::new());
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = open(root, parent).and_then(|parent| openat(parent, name, flags, Mode::empty()));
    let file = match opened {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
        opened => opened.map_err(failed)?,
    };
    let stat = fstat(&file).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::Invalid(format!("{path} is not a regular file")));
    }
    if stat.st_size as u64 > LIMIT {
        return Err(Error::Invalid(format!("{path} exceeds {LIMIT} bytes")));
    }
    let mut bytes = Vec::new();
    File::from(file)
        .take(LIMIT)
        .read_to_end(&mut bytes)
        .map_err(Error::path("read", Path::new(path)))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nbroken\nnobody:x:65534:65533:n:/:/x\n";

    fn root(passwd: &[u8]) -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("etc")).unwrap();
        std::fs::write(temp.path().join("etc/passwd"), passwd).unwrap();
        let dir = std::fs::File::open(temp.path()).unwrap();
        (temp, Dir::from_fd(dir.into()))
    }

    fn resolve_in(root: &Path, user: UserRef) -> Result<Owner> {
        let chown = Chown { user: Some(user), group: None };
        resolve(&chown, |_| {
            Ok(Source::Dir(Dir::from_fd(std::fs::File::open(root).unwrap().into())))
        })
    }

    #[test]
    fn names_are_looked_up() {
        let (temp, _) = root(PASSWD);
        let named = |name: &str| UserRef::Name { name: name.to_owned(), input: Some(0) };
        let owner = |user| resolve_in(temp.path(), user).unwrap();
        assert_eq!(owner(named("nobody")), Owner { uid: 65534, gid: 65533 });
        assert_eq!(owner(named("missing")), Owner::default());
        assert_eq!(owner(UserRef::Id(7)), Owner { uid: 7, gid: 7 });
    }

    #[test]
    fn hostile_files_are_refused() {
        let (temp, dir) = root(PASSWD);
        let passwd = temp.path().join("etc/passwd");
        std::fs::remove_file(&passwd).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &passwd).unwrap();
        assert!(read(&dir, "/etc/passwd").unwrap().is_empty(), "there is no /dev in the tree");
        std::fs::remove_file(&passwd).unwrap();
        std::fs::File::create(&passwd).unwrap().set_len(LIMIT + 1).unwrap();
        assert!(read(&dir, "/etc/passwd").is_err());
        std::fs::remove_file(&passwd).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &passwd,
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert!(read(&dir, "/etc/passwd").is_err());
    }
}

//! The users and groups of an image, from its `/etc/passwd` and `/etc/group`.
//!
//! The image's author controls the files. kiln opens them inside the image's root, reads regular
//! files only, and only up to [`MAX_FILE_BYTES`]. A FIFO, a device or a huge sparse file is an
//! error and never blocks. IDs above 2³¹−1 are an error in a `USER` and in a file, because the
//! kernel takes the largest ones as "unchanged", which would be root.
//!
//! A user specification means the same as in BuildKit and Docker: `user`, `uid`, `user:group` with
//! names or numbers on either side. A user in the file has its group, its home and the groups that
//! list it. A number without an entry is a valid user with group 0.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::PathBuf;

use kiln_tree::{Dir, FileKind, Owner, open_inspected};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// The maximum size of `/etc/passwd` and `/etc/group` in bytes.
pub const MAX_FILE_BYTES: u64 = 10 << 20;

const MAX_ID: u32 = i32::MAX as u32;

/// The reason why a user or group can't be resolved.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// The image has no user with this name.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// The image has no group with this name.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// The number is out of range for users and groups.
    #[error("uids and gids must be in range 0-{MAX_ID}, not {0}")]
    Range(String),
    /// The file can't be a user database.
    #[error("{path} is {problem}")]
    File {
        /// The path in the image.
        path: &'static str,
        /// The reason, such as `not a regular file`.
        problem: &'static str,
    },
    /// The file can't be read.
    #[error("read {path}")]
    Read {
        /// The path in the image.
        path: &'static str,
        /// The error of the operating system.
        source: std::io::Error,
    },
}

/// The user and groups of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedUser {
    /// The numeric user ID.
    pub uid: u32,
    /// The primary group ID.
    pub gid: u32,
    /// The IDs of all groups, `gid` first.
    pub groups: Vec<u32>,
}

/// The users and groups of an image.
#[derive(Clone, Debug, Default)]
pub struct UserDatabase {
    passwd: Vec<u8>,
    group: Vec<u8>,
}

/// The relevant fields of a line of `/etc/passwd`.
struct Account<'a> {
    name: &'a [u8],
    uid: &'a [u8],
    gid: &'a [u8],
    home: &'a [u8],
}

/// A line of `/etc/group`.
struct GroupLine<'a> {
    name: &'a [u8],
    gid: &'a [u8],
    members: &'a [u8],
}

impl UserDatabase {
    /// Creates a database from the contents of the two files.
    pub fn new(passwd: Vec<u8>, group: Vec<u8>) -> Self {
        Self { passwd, group }
    }

    /// Reads the files of the root file system `root`. A missing file counts as empty.
    ///
    /// # Errors
    /// Fails if a file isn't regular, is too large or can't be read.
    pub fn read(root: impl AsFd) -> Result<Self, UserError> {
        Ok(Self { passwd: read_file(&root, PASSWD)?, group: read_file(&root, GROUP)? })
    }

    /// Returns the ID of a group, given as a name or a number.
    ///
    /// # Errors
    /// Fails if the name is unknown or the number is out of range.
    pub fn group(&self, group: &str) -> Result<u32, UserError> {
        self.group_number(group)
    }

    /// Resolves a user in the format of `USER`. An empty one is root.
    ///
    /// # Errors
    /// Fails if a name is unknown or a number is out of range.
    pub fn resolve(&self, spec: &str) -> Result<ResolvedUser, UserError> {
        let (user, group) = spec.split_once(':').unwrap_or((spec, ""));
        let uid = number(user)?;
        let account = self.accounts().find(|account| match (user, uid) {
            ("", _) => account.uid == b"0",
            (_, Some(uid)) => file_number(account.uid) == Ok(uid),
            (name, None) => account.name == name.as_bytes(),
        });
        let (uid, mut gid) = match (&account, uid) {
            // `user:group` in numbers doesn't depend on the files.
            (_, Some(uid)) if !group.is_empty() => (uid, 0),
            (Some(account), _) => (file_number(account.uid)?, file_number(account.gid)?),
            (None, Some(uid)) => (uid, 0),
            (None, None) if user.is_empty() || user == "root" => (0, 0),
            (None, None) => return Err(UserError::NoUser(user.to_owned())),
        };
        let mut groups = Vec::new();
        if !group.is_empty() {
            gid = self.group_number(group)?;
        } else if let Some(account) = &account {
            groups = self.memberships(account.name)?;
        }
        if !groups.contains(&gid) {
            groups.insert(0, gid);
        }
        Ok(ResolvedUser { uid, gid, groups })
    }

    /// Returns the home directory of a user, if the file has one.
    pub fn home(&self, uid: u32) -> Option<PathBuf> {
        use std::os::unix::ffi::OsStrExt;
        let account = self.accounts().find(|account| file_number(account.uid) == Ok(uid))?;
        let home = std::ffi::OsStr::from_bytes(account.home);
        (!home.is_empty()).then(|| PathBuf::from(home))
    }

    /// Returns the user and group ID of the user with this name.
    ///
    /// # Errors
    /// Fails if the IDs in the file are out of range.
    pub fn user_by_name(&self, name: &str) -> Result<Option<Owner>, UserError> {
        let Some(account) = self.accounts().find(|account| account.name == name.as_bytes()) else {
            return Ok(None);
        };
        Ok(Some(Owner { uid: file_number(account.uid)?, gid: file_number(account.gid)? }))
    }

    /// Returns the ID of the group with this name.
    ///
    /// # Errors
    /// Fails if the ID in the file is out of range.
    pub fn group_by_name(&self, name: &str) -> Result<Option<u32>, UserError> {
        self.groups()
            .find(|group| group.name == name.as_bytes())
            .map(|group| file_number(group.gid).map_err(UserError::from))
            .transpose()
    }

    fn group_number(&self, group: &str) -> Result<u32, UserError> {
        if let Some(gid) = number(group)? {
            return Ok(gid);
        }
        match self.group_by_name(group)? {
            Some(gid) => Ok(gid),
            None if group == "root" => Ok(0),
            None => Err(UserError::NoGroup(group.to_owned())),
        }
    }

    fn memberships(&self, user: &[u8]) -> Result<Vec<u32>, UserError> {
        let mut gids = Vec::new();
        for group in self.groups() {
            if group.members.split(|byte| *byte == b',').any(|member| member == user) {
                gids.push(file_number(group.gid)?);
            }
        }
        Ok(gids)
    }

    fn accounts(&self) -> impl Iterator<Item = Account<'_>> {
        lines(&self.passwd).filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b':');
            let name = fields.next().filter(|name| !name.is_empty())?;
            let (uid, gid) = (fields.nth(1)?, fields.next()?);
            Some(Account { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
        })
    }

    fn groups(&self) -> impl Iterator<Item = GroupLine<'_>> {
        lines(&self.group).filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b':');
            let name = fields.next().filter(|name| !name.is_empty())?;
            let gid = fields.nth(1)?;
            Some(GroupLine { name, gid, members: fields.next().unwrap_or_default() })
        })
    }
}

/// Returns the user and group ID of the user with this name in the root file system `root`.
///
/// # Errors
/// Fails if `/etc/passwd` can't be read or has IDs out of range.
pub fn user_by_name(root: &Dir, name: &str) -> Result<Option<Owner>, UserError> {
    UserDatabase::new(read_file(root, PASSWD)?, Vec::new()).user_by_name(name)
}

/// Returns the ID of the group with this name in the root file system `root`.
///
/// # Errors
/// Fails if `/etc/group` can't be read or has an ID out of range.
pub fn group_by_name(root: &Dir, name: &str) -> Result<Option<u32>, UserError> {
    UserDatabase::new(Vec::new(), read_file(root, GROUP)?).group_by_name(name)
}

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

fn read_file(root: &impl AsFd, path: &'static str) -> Result<Vec<u8>, UserError> {
    let read_error = |source| UserError::Read { path, source };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let find = |flags| rustix::fs::openat2(root, path, flags, Mode::empty(), resolve);
    let file = loop {
        match open_inspected(OFlags::RDONLY, FileKind::is_file, find) {
            Ok(Some(file)) => break file,
            Ok(None) => return Err(UserError::File { path, problem: "not a regular file" }),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
            // Another process renamed a directory while the kernel resolved the path.
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(read_error(errno.into())),
        }
    };
    let stat = rustix::fs::fstat(&file).map_err(|errno| read_error(errno.into()))?;
    if stat.st_size as u64 > MAX_FILE_BYTES {
        return Err(UserError::File { path, problem: "larger than 10 MiB" });
    }
    let mut bytes = Vec::new();
    File::from(file).take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(read_error)?;
    Ok(bytes)
}

/// A field of a file that isn't a number in range.
#[derive(Debug, PartialEq, Eq)]
struct BadNumber(String);

impl From<BadNumber> for UserError {
    fn from(BadNumber(text): BadNumber) -> Self {
        Self::Range(text)
    }
}

fn file_number(field: &[u8]) -> Result<u32, BadNumber> {
    let text = String::from_utf8_lossy(field);
    match number(&text) {
        Ok(Some(number)) => Ok(number),
        Ok(None) | Err(_) => Err(BadNumber(text.into_owned())),
    }
}

/// Returns the number in `text`. Returns `None` if it isn't a number and can only be a name.
fn number(text: &str) -> Result<Option<u32>, UserError> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse() {
        // The parser accepts a plus sign, which no valid ID has.
        Ok(number) if number <= MAX_ID && !text.starts_with('+') => Ok(Some(number)),
        _ => Err(UserError::Range(text.to_owned())),
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::{Duration, Instant};

    use kiln_testkit::{Need, skip};
    use rustix::fs::FileType;

    use super::*;

    fn database() -> UserDatabase {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n\
                      bad:x:4294967295:0::/:/bin/sh\n\
                      alice:x:1000:1001:Alice:/home/alice:/bin/sh\n\
                      odd:x:nothing:0\n";
        let group = "root:x:0:\nstaff:x:50:bob,alice\nalice:x:1001:\nwheel:x:10:alice\n";
        UserDatabase::new(passwd.into(), group.into())
    }

    fn ids(spec: &str) -> (u32, u32, Vec<u32>) {
        let user = database().resolve(spec).unwrap();
        (user.uid, user.gid, user.groups)
    }

    #[test]
    fn names_and_numbers_are_resolved_as_docker_does() {
        assert_eq!(ids(""), (0, 0, vec![0]));
        assert_eq!(ids("root"), (0, 0, vec![0]));
        assert_eq!(ids("alice"), (1000, 1001, vec![1001, 50, 10]));
        assert_eq!(ids("1000"), (1000, 1001, vec![1001, 50, 10]));
        assert_eq!(ids("1000:7"), (1000, 7, vec![7]));
        assert_eq!(ids("alice:staff"), (1000, 50, vec![50]));
        assert_eq!(ids("4711"), (4711, 0, vec![0]));
        assert_eq!(ids("4711:wheel"), (4711, 10, vec![10]));
        assert_eq!(ids(":staff"), (0, 50, vec![50]));
    }

    #[test]
    fn root_needs_no_file() {
        let empty = UserDatabase::default();
        assert_eq!(empty.resolve("root:root").unwrap().uid, 0);
        assert_eq!(empty.resolve("").unwrap().groups, [0]);
        assert!(matches!(empty.resolve("alice"), Err(UserError::NoUser(_))));
        assert!(matches!(empty.resolve("1:alice"), Err(UserError::NoGroup(_))));
    }

    #[test]
    fn numbers_out_of_range_never_become_root() {
        let specs = [
            "2147483648",
            "4294967295",
            "4294967296",
            "-1",
            "99999999999",
            "0x0",
            "+0",
            "-0",
            "0:4294967295",
            "4294967295:0",
            "bad",
            "odd",
            " 0",
            "99999999999999999999999",
        ];
        for spec in specs {
            assert!(database().resolve(spec).is_err(), "{spec:?} is accepted");
        }
    }

    #[test]
    fn home_comes_from_the_file() {
        assert_eq!(database().home(1000), Some("/home/alice".into()));
        assert_eq!(database().home(5), None);
    }

    #[test]
    fn owners_are_found_by_name() {
        let owner = database().user_by_name("alice").unwrap();
        assert_eq!(owner, Some(Owner { uid: 1000, gid: 1001 }));
        assert_eq!(database().group_by_name("wheel").unwrap(), Some(10));
        assert_eq!(database().user_by_name("nobody").unwrap(), None);
    }

    fn root_with(make: impl FnOnce(&std::path::Path)) -> Result<UserDatabase, UserError> {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        make(&root.path().join("etc/passwd"));
        UserDatabase::read(File::open(root.path()).unwrap())
    }

    #[test]
    fn hostile_files_fail_fast() {
        let start = Instant::now();
        let fifo = root_with(|path| {
            rustix::fs::mkfifoat(rustix::fs::CWD, path, Mode::RUSR).unwrap();
        });
        assert!(matches!(fifo, Err(UserError::File { .. })));
        let sparse = root_with(|path| File::create(path).unwrap().set_len(4 << 30).unwrap());
        assert!(matches!(sparse, Err(UserError::File { .. })));
        let directory = root_with(|path| std::fs::create_dir(path).unwrap());
        assert!(matches!(directory, Err(UserError::File { .. })));
        assert!(start.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn devices_are_not_opened() {
        if skip("devices_are_not_opened", &[Need::Root]) {
            return;
        }
        // The device doesn't exist, so opening it would cause another error.
        let device = root_with(|path| {
            let (kind, number) = (FileType::CharacterDevice, rustix::fs::makedev(300, 1));
            rustix::fs::mknodat(rustix::fs::CWD, path, kind, Mode::RUSR, number).unwrap();
        });
        assert!(matches!(device, Err(UserError::File { .. })), "{device:?}");
    }

    #[test]
    fn links_stay_inside_the_root() {
        // Inside the root, /dev/zero and the host's files don't exist.
        let host = root_with(|path| symlink("/dev/zero", path).unwrap()).unwrap();
        assert!(host.passwd.is_empty());
        let up = root_with(|path| symlink("../../../../../../etc/hostname", path).unwrap());
        assert!(up.unwrap().passwd.is_empty());
    }
}

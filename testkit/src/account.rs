//! The users that run kiln in tests without root.

use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;
use std::process::Command;

/// A user of this machine, created by `testdata/tools/setup test`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    name: &'static str,
    uid: u32,
    gid: u32,
}

impl Account {
    /// The name of the user with subordinate IDs.
    pub(crate) const MANY_IDS: &str = "kiln-test";
    /// The name of the user without subordinate IDs.
    pub(crate) const SINGLE_ID: &str = "kiln-test-single";

    /// Returns the user called `name`, if it exists.
    pub(crate) fn find(name: &'static str) -> Option<Self> {
        let users = std::fs::read_to_string("/etc/passwd").ok()?;
        let mut fields = users.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == name).then_some(fields)
        })?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Self { name, uid, gid })
    }

    /// Returns the user ID.
    pub fn uid(self) -> u32 {
        self.uid
    }

    /// Returns a command that runs `program` as the user, without supplementary groups.
    pub fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", self.name, "--regid", self.name, "--clear-groups", "--"]);
        command.arg(program);
        command
    }

    /// Changes the owner of the files of root at `path` and below to the user, except for `except`
    /// and the files below it.
    pub fn hand_over(self, path: &Path, except: &Path) {
        // A file that was removed in the meantime needs no owner.
        let Ok(found) = path.symlink_metadata() else { return };
        if path == except {
            return;
        }
        if found.uid() == 0 && lchown(path, Some(self.uid), Some(self.gid)).is_ok() {
            let mode = found.permissions().mode();
            // Changing the owner clears these bits.
            if mode & 0o6000 != 0 && !found.is_symlink() {
                let _ = std::fs::set_permissions(path, found.permissions());
            }
        }
        if found.is_dir() {
            for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
                self.hand_over(&entry.path(), except);
            }
        }
    }
}

/// Returns `true` if every user can reach and read `path`.
pub(crate) fn is_public(path: &Path) -> bool {
    let allows = |path: &Path, bits| {
        path.metadata().is_ok_and(|found| found.permissions().mode() & bits == bits)
    };
    allows(path, 0o5) && path.ancestors().skip(1).all(|parent| allows(parent, 0o1))
}

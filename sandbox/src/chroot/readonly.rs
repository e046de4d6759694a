//! Calls that change files, which fail in read-only mounts and between mounts.
//!
//! A copy stands for such a mount, so a change would harm nothing. It fails nevertheless, as it does on
//! other rungs. The supervisor looks at the paths of these calls only if a program has read-only
//! mounts. A call with a descriptor instead of a path isn't refused.
//!
//! Links and moves between two mounts fail as on other rungs, although the mounts are parts of one file
//! system. Programs copy the file instead.

use std::os::fd::OwnedFd;

use rustix::fs::OFlags;

use super::kernel_files::joined;
use super::locate::{ProgramTree, names};
use crate::descriptors::path_of;
use crate::sources::open_inside;
use crate::spec::{Mount, MountKind};

/// The calls, each with the indexes of the arguments for the directory and for the path.
pub(super) const CHANGES: [(libc::c_long, Option<usize>, usize); 11] = [
    (libc::SYS_mkdirat, Some(0), 1),
    (libc::SYS_symlinkat, Some(1), 2),
    (libc::SYS_fchmodat, Some(0), 1),
    (libc::SYS_fchownat, Some(0), 1),
    (libc::SYS_utimensat, Some(0), 1),
    (libc::SYS_truncate, None, 0),
    (libc::SYS_setxattr, None, 0),
    (libc::SYS_lsetxattr, None, 0),
    (libc::SYS_removexattr, None, 0),
    (libc::SYS_lremovexattr, None, 0),
    // `fchmodat2`, which the C library doesn't name yet.
    (452, Some(0), 1),
];

/// The older calls, which newer architectures don't have.
#[cfg(target_arch = "x86_64")]
pub(super) const OLD_CHANGES: [(libc::c_long, Option<usize>, usize); 9] = [
    (libc::SYS_mkdir, None, 0),
    (libc::SYS_symlink, None, 1),
    (libc::SYS_chmod, None, 0),
    (libc::SYS_chown, None, 0),
    (libc::SYS_lchown, None, 0),
    (libc::SYS_utime, None, 0),
    (libc::SYS_utimes, None, 0),
    (libc::SYS_futimesat, Some(0), 1),
    (libc::SYS_creat, None, 0),
];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const OLD_CHANGES: [(libc::c_long, Option<usize>, usize); 0] = [];

/// The mounts of a program, by their real paths in the tree.
#[derive(Debug)]
pub(super) struct MountTable(Vec<(Vec<u8>, bool)>);

impl MountTable {
    /// Finds the mounts, all of which exist in the tree.
    pub(super) fn of(tree: &ProgramTree, mounts: &[Mount]) -> Self {
        let path = |mount: &Mount| {
            let place = open_inside(&tree.root, &mount.target, OFlags::PATH).ok()?;
            let path = path_of(&place).ok()?;
            Some((tree.inside(&path)?.to_vec(), is_read_only(&mount.kind)?))
        };
        let own = ["/dev", "/proc", "/sys"].map(|path| (path.into(), false));
        Self(own.into_iter().chain(mounts.iter().filter_map(path)).collect())
    }

    /// Returns `true` if two absolute paths lead to different mounts. The last names may be missing.
    pub(super) fn is_between(&self, tree: &ProgramTree, paths: [&[u8]; 2]) -> bool {
        let [one, other] = paths.map(|path| self.mount(tree, path, false));
        one != other
    }

    /// Returns `true` if a mount is read-only.
    pub(super) fn has_read_only(&self) -> bool {
        self.0.iter().any(|(_, is_read_only)| *is_read_only)
    }

    /// Returns `true` if an absolute path leads to a place in a read-only mount. The last name may be
    /// missing.
    pub(super) fn is_read_only(&self, tree: &ProgramTree, path: &[u8], follows: bool) -> bool {
        if !self.has_read_only() {
            return false;
        }
        let mount = self.mount(tree, path, follows);
        mount.is_some_and(|mount| self.0[mount].1)
    }

    /// Returns the index of the mount that an absolute path leads to. Returns `None` for the root file
    /// system.
    fn mount(&self, tree: &ProgramTree, path: &[u8], follows: bool) -> Option<usize> {
        let flags = if follows { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        let open = |path: &[u8]| open(tree, path, flags);
        let file = open(path).or_else(|| {
            let mut above: Vec<Vec<u8>> = names(path).map(<[u8]>::to_vec).collect();
            above.pop();
            open(&joined(b"/", &above))
        });
        let real = file.and_then(|file| path_of(file).ok())?;
        let real = tree.inside(&real)?;
        let contains = |mount: &[u8]| {
            let rest = real.strip_prefix(mount);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        let mounts = self.0.iter().enumerate().filter(|(_, (mount, _))| contains(mount));
        mounts.max_by_key(|(_, (mount, _))| mount.len()).map(|(index, _)| index)
    }
}

fn open(tree: &ProgramTree, path: &[u8], flags: OFlags) -> Option<OwnedFd> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path));
    open_inside(&tree.root, path, flags).ok()
}

/// Returns `true` for a read-only mount. Returns `None` for a file that the supervisor serves.
fn is_read_only(kind: &MountKind) -> Option<bool> {
    match kind {
        MountKind::Bind { readonly, .. } => Some(*readonly),
        MountKind::Tmpfs { options, .. } => Some(options.readonly),
        MountKind::Device(_) => Some(false),
        MountKind::File { .. } => None,
    }
}

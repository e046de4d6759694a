//! The read-only view of control groups that a program has below `/sys/fs/cgroup`: its own part of
//! each hierarchy.
//!
//! If the host has version 2 only, the view is one mount, and every program gets it. Version 1 has
//! about a dozen hierarchies. Build steps get none of them, as with BuildKit, and containers get
//! those in which they have groups of their own. The others would show the host's groups.

use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::MountAttrFlags;

use super::cgroup::HierarchyView;
use super::mount_handle::{MountHandle, restrict_attached};
use super::wire::Failure;
use crate::sys::MountAttributes;

const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;

/// The mounts of the view before they are attached.
pub(super) enum View {
    /// The hierarchy of version 2.
    Unified(MountHandle),
    /// Hierarchies of version 1, and possibly version 2, by directory.
    Several(Vec<(String, MountHandle)>),
}

impl View {
    /// Creates the mounts of the view. Returns `None` if the program gets none.
    pub(super) fn new(readonly: bool, shown: &[HierarchyView]) -> Option<Self> {
        let attributes = attributes(readonly);
        if has_version_2_alone() {
            // Without privileges, this mount may fail.
            return MountHandle::file_system("cgroup2", &[], attributes).ok().map(Self::Unified);
        }
        let mut several = Vec::new();
        for hierarchy in shown {
            let options: Vec<(&str, &str)> = hierarchy
                .controllers
                .iter()
                .map(|controller| controller.split_once('=').unwrap_or((controller.as_str(), "")))
                .collect();
            let mount = if hierarchy.unified {
                MountHandle::file_system("cgroup2", &[], attributes)
            } else {
                MountHandle::file_system("cgroup", &options, attributes)
            };
            // A hierarchy that can't be mounted is left out.
            if let Ok(mount) = mount {
                several.push((hierarchy.name.clone(), mount));
            }
        }
        (!several.is_empty()).then_some(Self::Several(several))
    }

    /// Attaches the view in `sys` if that has the directory `fs/cgroup`.
    pub(super) fn attach(&self, sys: &MountHandle, readonly: bool) -> Result<(), Failure> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(place) = rustix::fs::openat(sys, "fs/cgroup", flags, Mode::empty()) else {
            return Ok(());
        };
        let doing = |errno| Failure::doing::<rustix::io::Errno>("mount /sys/fs/cgroup")(errno);
        let several = match self {
            Self::Unified(mount) => return mount.attach(&place).map_err(doing),
            Self::Several(several) => several,
        };
        let directory = MountHandle::file_system("tmpfs", &[("mode", "755")], attributes(false))?;
        directory.attach(&place).map_err(doing)?;
        for (name, mount) in several {
            rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o755)).map_err(doing)?;
            let place =
                rustix::fs::openat(&directory, name, flags, Mode::empty()).map_err(doing)?;
            mount.attach(&place).map_err(doing)?;
        }
        if readonly {
            let attributes = MountAttributes { readonly: true, ..MountAttributes::default() };
            restrict_attached(&directory, attributes)?;
        }
        Ok(())
    }
}

fn attributes(readonly: bool) -> MountAttrFlags {
    let inert = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    if readonly { inert | MountAttrFlags::MOUNT_ATTR_RDONLY } else { inert }
}

/// Returns `true` if the host has only version 2 of control groups.
pub(super) fn has_version_2_alone() -> bool {
    rustix::fs::openat(CWD, Path::new("/sys/fs/cgroup"), OFlags::PATH, Mode::empty())
        .and_then(rustix::fs::fstatfs)
        .is_ok_and(|kind| kind.f_type as u64 == CGROUP2_SUPER_MAGIC)
}

//! The resource limits of all `RUN` steps of a build.

use kiln_llb::op::{Meta, Mount, MountKind, Ulimit};

use super::run_mount::Mounts;

/// The resource limits of all `RUN` steps of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessLimits {
    /// The size of `/dev/shm` in bytes (`--shm-size`); zero for the solver's default.
    pub shm_size: i64,
    /// The resource limits (`--ulimit`).
    pub ulimits: Vec<Ulimit>,
    /// The parent of the processes' control groups (`--cgroup-parent`); empty for the solver's
    /// default.
    pub cgroup_parent: String,
}

impl ProcessLimits {
    /// Applies the limits to a process: sets the fields of BuildKit's ops and adds a mount for
    /// `/dev/shm`.
    pub(super) fn apply(&self, meta: &mut Meta, mounts: &mut Mounts) {
        meta.ulimit.clone_from(&self.ulimits);
        meta.cgroup_parent.clone_from(&self.cgroup_parent);
        if self.shm_size > 0 {
            let kind = MountKind::Tmpfs { size: self.shm_size, explicit: true };
            mounts.add(Mount::new("/dev/shm", kind), None);
        }
    }
}

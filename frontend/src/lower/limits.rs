//! What processes may use: limits that a build gives all of its `RUN`s.

use kiln_llb::op::{Meta, MountKind, Ulimit};

use super::run_mount::{Mounts, empty_mount};

/// Limits of all processes of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessLimits {
    /// Bytes of `/dev/shm` (`--shm-size`); zero for what the solver gives.
    pub shm_size: i64,
    /// Resource limits (`--ulimit`).
    pub ulimits: Vec<Ulimit>,
    /// Parent of the processes' control groups (`--cgroup-parent`); empty for the solver's own.
    pub cgroup_parent: String,
}

impl ProcessLimits {
    /// Gives a process its limits: those that BuildKit's ops have a field for, and a mount.
    pub(super) fn apply(&self, meta: &mut Meta, mounts: &mut Mounts) {
        meta.ulimit.clone_from(&self.ulimits);
        meta.cgroup_parent.clone_from(&self.cgroup_parent);
        if self.shm_size > 0 {
            let kind = MountKind::Tmpfs { size: self.shm_size, explicit: true };
            mounts.add(empty_mount("/dev/shm", kind), None);
        }
    }
}

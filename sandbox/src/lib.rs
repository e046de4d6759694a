//! The sandbox: runs one program in a root file system of its own.
//!
//! # Processes
//!
//! ```text
//! kiln ──spawn──▶ helper ──clone3──▶ child ──execve──▶ the program
//!  ▲                │ waits            │ namespaces, mounts, limits
//!  └──control──────┴──────────────────┘
//! ```
//!
//! kiln has many threads, and such a process may call hardly any function between `fork` and
//! `execve`. So it executes its own binary once more: the *helper*, from a read-only mount, with
//! one thread and an empty environment ([`init_if_asked`]). kiln starts one helper, on first use or
//! ahead of it ([`Helper::start`]). kiln requests each program through the helper's *door*, a
//! socket. The helper starts a *child* with all its namespaces in one `clone3`, waits for it and
//! forwards signals. The child builds the program's environment, drops rights, and executes the
//! program as process 1 of its namespace. When the program ends, the kernel kills every process
//! that it started.
//!
//! For each program, one more socket, *control*, connects the three. kiln sends signals over it.
//! The reports go back over it: a setup error with its context, the created mount points, the
//! terminal, the exit status. The socket closes when kiln cancels the step or dies, and the helper
//! then kills the child. If the helper dies, the kernel kills the children. A program that shares
//! the host's processes isn't process 1: the helper inherits its orphans and kills them
//! (`orphans`). Its helper isn't process 1 either and has a `keeper`.
//!
//! Instead of executing the program, the child may execute another OCI runtime, such as runc, with
//! a configuration of the same content: `oci`.
//!
//! Without the privileges for namespaces and mounts, a supervisor answers some calls of the program
//! in their place: `supervisor`. With the isolation [`Chroot`](Isolation::Chroot) the program is
//! root in a changed root directory: `chroot`.
//!
//! # Invariants
//!
//! - The program never sees a descriptor, a path or an environment variable of the host. Even its
//!   input and output are pipes of its own. Its `/proc/self/exe` may lead to kiln's binary for a
//!   moment, but no process can write to the binary through that.
//! - A child closes the descriptors of other programs before it does anything else.
//! - `openat2` resolves paths from a Dockerfile or an image below the root that they belong to,
//!   never through links of `/proc`. Mounts are attached to the resolved descriptor, not to its
//!   name.
//! - Only the device nodes of the sandbox's own `/dev` can be opened, and harmless ones in the root
//!   if a control group filters devices. Every other mount is `nodev`.
//! - The mount points that the sandbox had to create (stubs) are removed from the upper directory
//!   afterwards.
//! - Processes that received descriptors of the program's kept files can't write to them later:
//!   `seal`.
//!
//! # Order in the child
//!
//! Private mounts; trees attached outside of the new root; root; `/proc`, `/dev`, `/sys`; the
//! specification's mounts; masks; `pivot_root`; host name, session, terminal; limits; the bounding
//! set; user and groups, with `CAP_SYS_ADMIN` kept; close-on-exec for all descriptors;
//! `no_new_privs` if requested; seccomp; the program's capabilities; `execve`.
//!
//! `no_new_privs` isn't set by default, so a setuid program may gain the rights of the sandbox's
//! root. Without `no_new_privs`, only a process with `CAP_SYS_ADMIN` can install a filter. The
//! child therefore drops that capability last. Setuid programs can't gain more than the bounding
//! set, and the filter applies to them as well.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests open the files that they create")
)]

mod capabilities;
pub mod cgroup;
mod cgroup_view;
mod change_root;
mod child;
mod chroot;
mod descendants;
mod descriptors;
mod devices;
mod emulation;
mod error;
mod helper;
mod identity;
mod init;
mod inner_namespace;
mod input;
mod insecure;
mod isolation;
mod joined;
mod keeper;
mod kernel;
mod masks;
mod mount_handle;
pub mod network;
mod oci;
mod orphans;
mod program;
mod root;
mod run;
mod seal;
mod seccomp;
mod server;
mod sources;
mod spec;
mod stubs;
mod supervisor;
mod sys;
mod sysfs;
mod tracee;
mod uname;
pub mod users;
mod wire;

pub use capabilities::Capabilities;
pub use error::SandboxError;
pub use helper::init_if_asked;
pub use isolation::{Isolation, Obstacle, ProbeError, is_confined, is_filtered, probe};
pub use kernel::{KernelFeature, features};
pub use mount_handle::mount_without_devices;
pub use run::{
    Ended, Exit, Gate, Input, Io, Joiner, OutputSink, OutputStream, Running, Sandbox, Signaller,
};
pub use seal::Seal;
pub use seccomp::SeccompProfile;
#[cfg(fuzzing)]
pub use seccomp::check_seccomp_profile;
pub use server::Helper;
pub use spec::{
    AccessTimes, CallFilter, DEFAULT_HOSTNAME, DEFAULT_SHM_SIZE, Mount, MountKind, Network,
    Privileges, Process, Propagation, Rlimit, Security, SharedNamespaces, Spec, Sysctl,
    TerminalSize, TmpfsOptions, Tree, User,
};
pub use sys::{
    limit_resources, passed_descriptor, return_free_memory, use_contained_name_services,
};

/// Resets all signals of this process to their default action and unblocks them.
pub fn reset_signals() {
    sys::reset_signals();
}

//! The sandbox: runs one program in a root file system of its own.
//!
//! # Who does what
//!
//! ```text
//! kiln ──spawn──▶ helper ──clone3──▶ child ──execve──▶ the program
//!  ▲                │ waits            │ namespaces, mounts, limits
//!  └──control──────┴──────────────────┘
//! ```
//!
//! kiln itself has many threads, and between `fork` and `execve` such a process may do next to
//! nothing. So it starts itself once more: the *helper* is the same binary, executed from a mount
//! that can't be written, with one thread and an empty environment ([`init_if_asked`]). It is
//! started once, by whoever needs it first or knows that it will be needed ([`Helper::start`]).
//! For each program that kiln asks for at its *door*, a socket, the helper starts a *child* with all
//! its namespaces in one `clone3`, waits for it, and passes signals on. The child builds what the
//! program is to see, gives up what the program may not have, and becomes it, as process 1 of its
//! namespace: when it ends, the kernel ends every process that it started.
//!
//! For each program one more socket, *control*, connects the three. Signals come by it, and reports
//! go back: a setup error with its context, the mount points that were made, the terminal, the exit
//! status. When it closes, because kiln cancels the step or dies, the helper kills the child; when
//! the helper dies, the kernel kills the children.
//! A program that shares the host's processes is no process 1: what it leaves behind becomes the helper's, which
//! kills it (`orphans`). Its helper is no first process either, and has a `keeper`.
//!
//! Instead of becoming the program, the child may become another runtime, as runc, which is told
//! the same in its own words: `oci`.
//!
//! # What has to hold
//!
//! - The program never sees a descriptor, a path or an environment variable of the host; even its
//!   input and output are pipes of its own. The binary that its `/proc/self/exe` may lead to for a
//!   moment can't be written through that, by whomever.
//! - A child has closed what belongs to other programs before it does anything else.
//! - Paths that come from a Dockerfile or an image are resolved by `openat2` below the root that
//!   they belong to, never through links of `/proc`, and what is mounted there is attached to the
//!   descriptor that was resolved, not to its name.
//! - No device node can be opened but those of the sandbox's own `/dev`, and where a control group
//!   vouches for it, harmless ones in the root: every other mount is `nodev`.
//! - What the sandbox had to make to mount on (stubs) is gone from the upper directory afterwards.
//! - What is kept of a program's files is closed to whoever was handed descriptors of them: `seal`.
//!
//! # Order in the child
//!
//! Mounts private; trees attached outside of the new root; root; `/proc`, `/dev`, `/sys`; the
//! specification's mounts; masks; `pivot_root`; host name, session, terminal; limits; the bounding
//! set; user and groups, with `CAP_SYS_ADMIN` kept; descriptors closed at exec; `no_new_privs` where
//! that is wanted; seccomp; the program's capabilities; `execve`.
//!
//! A setuid program may gain what root has in the sandbox: `no_new_privs` isn't set by default. So a
//! filter can only be installed by a process that has `CAP_SYS_ADMIN`, which is why the child gives that up
//! last. What setuid programs can't gain is gone from the bounding set, and for them as for others the
//! filter holds.

mod capabilities;
pub mod cgroup;
mod cgroup_view;
mod child;
mod devices;
mod error;
mod helper;
mod identity;
mod init;
mod input;
mod insecure;
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
mod sys;
mod sysfs;
pub mod users;
mod wire;

pub use capabilities::Capabilities;
pub use error::SandboxError;
pub use helper::init_if_asked;
pub use kernel::{KernelFeature, features};
pub use mount_handle::mount_without_devices;
pub use run::{
    Ended, Exit, Gate, Input, Io, OutputSink, OutputStream, Running, Sandbox, Signaller,
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
pub use sys::{limit_resources, use_contained_name_services};

/// Gives every signal its default effect on this process, and blocks none, as programs begin.
pub fn reset_signals() {
    sys::reset_signals();
}

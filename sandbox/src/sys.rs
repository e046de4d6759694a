//! The system calls that no crate wraps safely. All `unsafe` code is here.
#![expect(unsafe_code, reason = "this module is the place for it")]

mod devices;
mod heap;
mod landlock;
mod mount;
mod names;
mod net;
mod notify;
mod passed;
mod process;
mod seccomp;
mod status;
mod trace;
mod watch;

pub(crate) use devices::{Device, filter_devices};
pub use heap::return_free_memory;
pub(crate) use landlock::confine_to;
pub(crate) use mount::{MountAttributes, set_mount_attributes};
pub use names::use_contained_name_services;
pub(crate) use net::raise_loopback;
pub(crate) use notify::{
    Answer, Notification, TOKEN, add_descriptor, install_listener, is_valid, random_number,
    receive, send, send_descriptor, wake_synchronously,
};
pub use passed::passed_descriptor;
pub use process::limit_resources;
pub(crate) use process::{
    CloneResult, Fork, Namespaces, clone, close_all, close_on_exec_above, close_standard,
    end_with_thread, fork, fork_watched, has_clone3, has_close_range, reset_signals,
};
pub(crate) use seccomp::{FilterInstruction, install_filter};
pub(crate) use status::{extended_status, status};
pub(crate) use trace::{
    STATX_SIZE, Stopped, carried_number, carry_number, file_limit, request_stop, statfs, statx,
};
pub(crate) use watch::watch;

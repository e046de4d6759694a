//! The calls that the supervisor answers, each with its handler.

use rustix::io::Errno;

use super::{Emulation, Reply, Request};
use super::{attributes, entries, execute, extended, identity, open, sockets, system};
use crate::seccomp::{self, When};
use crate::sys;

/// The handler of a call.
type Handler = fn(&mut Emulation, &Request<'_>) -> Result<Reply, Errno>;

/// A call: its number, when the filter asks about it, and its handler.
type Entry = (libc::c_long, When, Handler);

/// The number of the newest calls, which the C library's crate may not know.
const FCHMODAT2: libc::c_long = 452;

/// The numbers of the calls that set, get, list and remove extended attributes below a directory.
const XATTRAT: [libc::c_long; 4] = [463, 464, 465, 466];

/// Returns the handler of a call.
pub(super) fn handler(call: i32) -> Option<Handler> {
    let call = libc::c_long::from(call);
    let all = [COMMON, PLAIN].into_iter().flatten();
    all.copied().find(|(number, ..)| *number == call).map(|(.., handler)| handler)
}

/// Returns the calls that the filter asks about. It lets a message with `token` pass: see
/// `supervisor::hand_over`.
pub(super) fn asked(token: u64) -> Vec<(libc::c_long, When)> {
    let all = [COMMON, PLAIN].into_iter().flatten();
    all.map(|(number, when, _)| match *number {
        libc::SYS_sendmsg => (*number, When::Unless(sys::TOKEN, token)),
        number => (number, *when),
    })
    .collect()
}

const COMMON: &[Entry] = &[
    (libc::SYS_openat, When::Always, open::openat_call),
    (libc::SYS_openat2, When::Always, system::missing),
    (libc::SYS_mkdirat, When::Always, entries::mkdirat_call),
    (libc::SYS_mknodat, When::Always, entries::mknodat_call),
    (libc::SYS_symlinkat, When::Always, entries::symlinkat_call),
    (libc::SYS_unlinkat, When::Always, entries::unlinkat_call),
    (libc::SYS_renameat, When::Always, entries::renameat),
    (libc::SYS_renameat2, When::Always, entries::renameat2),
    (libc::SYS_linkat, When::Always, entries::linkat_call),
    (libc::SYS_newfstatat, When::Always, attributes::newfstatat),
    (libc::SYS_fstat, When::Always, attributes::fstat),
    (libc::SYS_statx, When::Always, attributes::statx),
    (libc::SYS_statfs, When::Always, attributes::statfs),
    (libc::SYS_faccessat, When::Always, attributes::faccessat),
    (libc::SYS_faccessat2, When::Always, attributes::faccessat2),
    (libc::SYS_readlinkat, When::Always, attributes::readlinkat_call),
    (libc::SYS_fchmodat, When::Always, attributes::fchmodat),
    (FCHMODAT2, When::Always, attributes::fchmodat2),
    (libc::SYS_fchmod, When::Always, attributes::fchmod),
    (libc::SYS_fchownat, When::Always, attributes::fchownat),
    (libc::SYS_fchown, When::Always, attributes::fchown),
    (libc::SYS_utimensat, When::Always, attributes::utimensat_call),
    (libc::SYS_truncate, When::Always, attributes::truncate),
    (libc::SYS_setxattr, When::Always, extended::setxattr),
    (libc::SYS_lsetxattr, When::Always, extended::lsetxattr),
    (libc::SYS_fsetxattr, When::Always, extended::fsetxattr),
    (libc::SYS_getxattr, When::Always, extended::getxattr),
    (libc::SYS_lgetxattr, When::Always, extended::lgetxattr),
    (libc::SYS_fgetxattr, When::Always, extended::fgetxattr),
    (libc::SYS_listxattr, When::Always, extended::listxattr),
    (libc::SYS_llistxattr, When::Always, extended::llistxattr),
    (libc::SYS_flistxattr, When::Always, extended::flistxattr),
    (libc::SYS_removexattr, When::Always, extended::removexattr),
    (libc::SYS_lremovexattr, When::Always, extended::lremovexattr),
    (libc::SYS_fremovexattr, When::Always, extended::fremovexattr),
    (XATTRAT[0], When::Always, system::missing),
    (XATTRAT[1], When::Always, system::missing),
    (XATTRAT[2], When::Always, system::missing),
    (XATTRAT[3], When::Always, system::missing),
    (libc::SYS_name_to_handle_at, When::Always, system::not_supported),
    (libc::SYS_fanotify_mark, When::Always, system::not_permitted),
    (libc::SYS_inotify_add_watch, When::Always, sockets::inotify_add_watch),
    (libc::SYS_execve, When::Always, execute::execve),
    (libc::SYS_execveat, When::Always, execute::execveat),
    (libc::SYS_chdir, When::Always, identity::chdir),
    (libc::SYS_fchdir, When::Always, identity::fchdir),
    (libc::SYS_chroot, When::Always, identity::chroot),
    (libc::SYS_getcwd, When::Always, identity::getcwd),
    (libc::SYS_umask, When::Always, identity::umask),
    (libc::SYS_setuid, When::Always, identity::setuid),
    (libc::SYS_setgid, When::Always, identity::setgid),
    (libc::SYS_setreuid, When::Always, identity::setreuid),
    (libc::SYS_setregid, When::Always, identity::setregid),
    (libc::SYS_setresuid, When::Always, identity::setresuid),
    (libc::SYS_setresgid, When::Always, identity::setresgid),
    (libc::SYS_setfsuid, When::Always, identity::setfsuid),
    (libc::SYS_setfsgid, When::Always, identity::setfsgid),
    (libc::SYS_getuid, When::Always, identity::getuid),
    (libc::SYS_geteuid, When::Always, identity::geteuid),
    (libc::SYS_getgid, When::Always, identity::getgid),
    (libc::SYS_getegid, When::Always, identity::getegid),
    (libc::SYS_getresuid, When::Always, identity::getresuid),
    (libc::SYS_getresgid, When::Always, identity::getresgid),
    (libc::SYS_getgroups, When::Always, identity::getgroups),
    (libc::SYS_setgroups, When::Always, identity::setgroups),
    (libc::SYS_capget, When::Always, identity::capget),
    (libc::SYS_capset, When::Always, identity::capset),
    (libc::SYS_prctl, When::Among(0, &identity::PRCTL, &[]), identity::prctl),
    (libc::SYS_uname, When::Always, system::uname),
    (libc::SYS_kill, When::Always, system::kill),
    (libc::SYS_tkill, When::Always, system::of_first),
    (libc::SYS_tgkill, When::Always, system::of_thread),
    (libc::SYS_rt_sigqueueinfo, When::Always, system::of_first),
    (libc::SYS_rt_tgsigqueueinfo, When::Always, system::of_thread),
    (libc::SYS_getpid, When::Always, system::getpid),
    (libc::SYS_gettid, When::Always, system::gettid),
    (libc::SYS_getppid, When::Always, system::getppid),
    (libc::SYS_getpgid, When::Always, system::getpgid),
    (libc::SYS_setpgid, When::Always, system::setpgid),
    (libc::SYS_getsid, When::Always, system::getsid),
    (libc::SYS_pidfd_open, When::Always, system::of_first),
    (libc::SYS_ptrace, When::Unless(1, 0), system::of_second),
    (libc::SYS_process_vm_readv, When::Always, system::of_first),
    (libc::SYS_process_vm_writev, When::Always, system::of_first),
    (libc::SYS_kcmp, When::Always, system::not_permitted),
    (libc::SYS_migrate_pages, When::Always, system::of_first),
    (libc::SYS_move_pages, When::Unless(0, 0), system::of_first),
    (libc::SYS_sched_setaffinity, When::Unless(0, 0), system::of_first),
    (libc::SYS_sched_setscheduler, When::Unless(0, 0), system::of_first),
    (libc::SYS_sched_setparam, When::Unless(0, 0), system::of_first),
    (libc::SYS_sched_setattr, When::Unless(0, 0), system::of_first),
    (libc::SYS_setpriority, When::Unless(1, 0), system::priority),
    (libc::SYS_ioprio_set, When::Unless(1, 0), system::priority),
    (libc::SYS_fcntl, seccomp::SIGNALS_OF_FILE, system::fcntl),
    (libc::SYS_ioctl, seccomp::SIGNALS_OF_SOCKET, system::not_permitted),
    (libc::SYS_prlimit64, When::Always, system::prlimit64),
    (libc::SYS_getrlimit, When::Always, system::getrlimit),
    (libc::SYS_setrlimit, When::Always, system::setrlimit),
    (libc::SYS_bind, When::Always, sockets::bind),
    (libc::SYS_connect, When::Always, sockets::connect),
    (libc::SYS_sendto, When::Unless(4, 0), sockets::sendto),
    (libc::SYS_sendmsg, When::Always, sockets::sendmsg),
    (libc::SYS_sendmmsg, When::Always, system::missing),
    (libc::SYS_io_uring_setup, When::Always, system::missing),
];

#[cfg(not(target_arch = "x86_64"))]
const PLAIN: &[Entry] = &[];

/// The calls without a directory.
#[cfg(target_arch = "x86_64")]
const PLAIN: &[Entry] = &[
    (libc::SYS_getpgrp, When::Always, system::getpgrp),
    (libc::SYS_open, When::Always, open::open_call),
    (libc::SYS_creat, When::Always, open::creat),
    (libc::SYS_mkdir, When::Always, entries::plain::mkdir),
    (libc::SYS_mknod, When::Always, entries::plain::mknod),
    (libc::SYS_symlink, When::Always, entries::plain::symlink),
    (libc::SYS_unlink, When::Always, entries::plain::unlink),
    (libc::SYS_rmdir, When::Always, entries::plain::rmdir),
    (libc::SYS_rename, When::Always, entries::plain::rename),
    (libc::SYS_link, When::Always, entries::plain::link),
    (libc::SYS_stat, When::Always, attributes::plain::stat),
    (libc::SYS_lstat, When::Always, attributes::plain::lstat),
    (libc::SYS_access, When::Always, attributes::plain::access),
    (libc::SYS_readlink, When::Always, attributes::plain::readlink),
    (libc::SYS_chmod, When::Always, attributes::plain::chmod),
    (libc::SYS_chown, When::Always, attributes::plain::chown),
    (libc::SYS_lchown, When::Always, attributes::plain::lchown),
    (libc::SYS_utime, When::Always, attributes::plain::utime),
    (libc::SYS_utimes, When::Always, attributes::plain::utimes),
    (libc::SYS_futimesat, When::Always, attributes::plain::futimesat),
];

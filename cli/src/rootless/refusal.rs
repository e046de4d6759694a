//! Explanations of why a machine allows no user namespaces.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::io;

use anyhow::Error;
use kiln_sandbox::{Capabilities, Isolation, Obstacle, ProbeError};

/// The kernel's settings, each with the value that forbids user namespaces and one that allows
/// them.
const SWITCHES: [(&str, &str, &str); 3] = [
    ("user.max_user_namespaces", "0", "10000"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    (APPARMOR, "1", "0"),
];

/// The step of a trial in which the kernel refuses a map of IDs.
const MAP_IDS: &str = "map ids";

/// AppArmor's setting, which Ubuntu turns on.
const APPARMOR: &str = "kernel.apparmor_restrict_unprivileged_userns";

/// Returns the obstacle of a rung whose trial has failed.
pub(super) fn obstacle(isolation: Isolation, error: &ProbeError) -> Obstacle {
    let reason = error.to_string();
    let (ProbeError::Refused { error, .. }, Isolation::UserNamespace) = (error, isolation) else {
        return Obstacle { isolation, cause: reason.clone(), reason };
    };
    let cause = if reason.starts_with(MAP_IDS) && lacks_setfcap() {
        // Since Linux 5.12, mapping root takes this capability.
        "no CAP_SETFCAP".to_owned()
    } else {
        cause(error, kiln_sandbox::is_filtered(), setting)
    };
    let reason = if reason.ends_with(')') { reason } else { format!("{reason} ({cause})") };
    Obstacle { isolation, reason, cause }
}

/// Returns `true` if this process is root without the capability to set file capabilities.
fn lacks_setfcap() -> bool {
    let has = |capability| Capabilities::effective().is_ok_and(|own| own.contain(capability));
    rustix::process::geteuid().is_root() && !Capabilities::named("SETFCAP").is_some_and(has)
}

/// Adds an explanation to the kernel's error for a user namespace.
pub(super) fn explain(action: &'static str, error: io::Error) -> Error {
    let reason = reason(&error, setting);
    Error::new(error).context(action).context(format!(
        "kiln hasn't root's privileges, and can't become root of a user namespace: {reason}"
    ))
}

/// Returns the value of a setting of the kernel.
fn setting(name: &str) -> Option<String> {
    std::fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()
}

/// Returns the setting that forbids user namespaces, with its value.
fn forbidding(
    value: impl Fn(&str) -> Option<String>,
) -> Option<(&'static str, &'static str, &'static str)> {
    SWITCHES
        .into_iter()
        .find(|(switch, forbids, _)| value(switch).is_some_and(|value| value.trim() == *forbids))
}

/// Returns the cause of a refusal in a word or two.
fn cause(error: &io::Error, is_filtered: bool, value: impl Fn(&str) -> Option<String>) -> String {
    let is_filters = is_filtered && error.raw_os_error() == Some(nix::libc::EPERM);
    // AppArmor doesn't return this error.
    let value = |name: &str| value(name).filter(|_| !(is_filters && name == APPARMOR));
    if let Some((switch, forbids, _)) = forbidding(value) {
        return format!("{switch} is {forbids}");
    }
    match error.raw_os_error() {
        Some(nix::libc::ENOSPC | nix::libc::EUSERS) => "user.max_user_namespaces",
        Some(nix::libc::EINVAL | nix::libc::ENOSYS) => "the kernel has none",
        _ if is_filtered => "seccomp",
        _ => "a security module or a chroot",
    }
    .to_owned()
}

fn reason(error: &io::Error, value: impl Fn(&str) -> Option<String>) -> String {
    if let Some((switch, forbids, allows)) = forbidding(value) {
        let also = match switch {
            APPARMOR => {
                "load the AppArmor profile /etc/apparmor.d/kiln of kiln's Debian package, for \
                 /usr/bin/kiln; or "
            }
            _ => "",
        };
        return format!(
            "{switch} is {forbids} ({also}as root: sysctl -w {switch}={allows}, or run kiln as root)"
        );
    }
    match error.raw_os_error() {
        Some(nix::libc::ENOSPC | nix::libc::EUSERS) => {
            "there are as many of them as there may be, or as deep in each other (sysctl \
             user.max_user_namespaces)"
                .to_owned()
        }
        Some(nix::libc::EINVAL | nix::libc::ENOSYS) => {
            "this kernel has none (CONFIG_USER_NS)".to_owned()
        }
        _ => "a container's seccomp profile, a chroot or a security module forbids it (in Docker: \
              --security-opt seccomp=unconfined, or run kiln as root)"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switch_that_forbids_is_named() {
        let refused = io::Error::from_raw_os_error(nix::libc::EPERM);
        for (switch, value) in [
            ("user.max_user_namespaces", "0\n"),
            ("kernel.unprivileged_userns_clone", "0\n"),
            ("kernel.apparmor_restrict_unprivileged_userns", "1\n"),
        ] {
            let text = reason(&refused, |asked| (asked == switch).then(|| value.to_owned()));
            assert!(text.starts_with(&format!("{switch} is ")), "{text}");
            assert!(text.contains(&format!("sysctl -w {switch}=")), "{text}");
        }
        let full = io::Error::from_raw_os_error(nix::libc::ENOSPC);
        assert!(reason(&full, |_| None).contains("user.max_user_namespaces"));
        assert!(reason(&refused, |_| Some("7".to_owned())).contains("seccomp"));
    }

    #[test]
    fn causes_are_short() {
        let refused = io::Error::from_raw_os_error(nix::libc::EPERM);
        let none = |_: &str| None;
        assert_eq!(cause(&refused, true, none), "seccomp");
        assert_eq!(cause(&refused, false, none), "a security module or a chroot");
        let forbidden = |name: &str| (name == SWITCHES[0].0).then(|| "0\n".to_owned());
        assert_eq!(cause(&refused, true, forbidden), "user.max_user_namespaces is 0");
        let restricted = |name: &str| (name == APPARMOR).then(|| "1\n".to_owned());
        assert_eq!(cause(&refused, true, restricted), "seccomp");
        let denied = io::Error::from_raw_os_error(nix::libc::EACCES);
        assert_eq!(cause(&denied, true, restricted), format!("{APPARMOR} is 1"));
        assert!(reason(&denied, restricted).contains("/etc/apparmor.d/kiln"));
        let error = ProbeError::Refused { action: "unshare", error: refused };
        let found = obstacle(Isolation::UserNamespace, &error);
        assert!(found.reason.starts_with("unshare: operation not permitted ("), "{found:?}");
        let found = obstacle(Isolation::Root, &ProbeError::NotRoot);
        assert_eq!((found.reason.as_str(), found.cause.as_str()), ("needs root", "needs root"));
    }
}

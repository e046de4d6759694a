//! Explanations of why a machine allows no user namespaces.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::io;

use anyhow::Error;

/// The kernel's settings, each with the value that forbids user namespaces and one that allows
/// them.
const SWITCHES: [(&str, &str, &str); 3] = [
    ("user.max_user_namespaces", "0", "10000"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
];

/// Adds an explanation to the kernel's error for a user namespace.
pub(super) fn explain(error: io::Error) -> Error {
    let reason = reason(&error, |switch| {
        let path = format!("/proc/sys/{}", switch.replace('.', "/"));
        std::fs::read_to_string(path).ok()
    });
    Error::new(error).context(format!(
        "kiln hasn't root's privileges, and can't become root of a user namespace: {reason}"
    ))
}

fn reason(error: &io::Error, value: impl Fn(&str) -> Option<String>) -> String {
    for (switch, forbids, allows) in SWITCHES {
        if value(switch).is_some_and(|value| value.trim() == forbids) {
            return format!(
                "{switch} is {forbids} (as root: sysctl -w {switch}={allows}, or run kiln as root)"
            );
        }
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
}

//! What helps against an error.

use kiln_worker::Error;

/// Returns what helps against an error of the worker, where something is known to.
pub(crate) fn hint(error: &Error) -> Option<String> {
    match error {
        Error::NotAllowed(right) => {
            Some(format!("--allow {right} lets the steps of this build do it"))
        }
        Error::NoAgent(id) => Some(format!("--ssh {id}[=SOCKET] lends an agent to this build")),
        Error::NoEmulator { platform, .. } if platform.starts_with("linux/") => {
            let architecture = platform.trim_start_matches("linux/");
            let architecture = architecture.split('/').next().unwrap_or(architecture);
            Some(format!(
                "\"apt-get install qemu-user-static\" brings emulators; they are registered by \
                 \"systemctl restart systemd-binfmt\", without systemd by \"apt-get install \
                 binfmt-support\" and \"update-binfmts --enable\", or on any machine with docker by \
                 \"docker run --privileged --rm tonistiigi/binfmt --install {architecture}\""
            ))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emulators_are_named_as_they_are_installed() {
        let error = |platform: &str| Error::NoEmulator {
            platform: platform.to_owned(),
            problem: String::new(),
        };
        let shown = hint(&error("linux/arm/v7")).unwrap_or_default();
        assert!(shown.ends_with("--install arm\""), "{shown}");
        assert_eq!(hint(&error("windows/amd64")), None);
    }
}

//! `--security-opt`.

#![expect(
    clippy::disallowed_methods,
    reason = "the files are the kernel's, or the user names them"
)]

use std::path::Path;

use anyhow::{Context, Result, bail};
use kiln_sandbox::{CallFilter, Capabilities, Privileges, SeccompProfile};

use crate::arguments::flags::truth;

/// Applies a value of `--security-opt` to privileges. A seccomp profile depends on the container's
/// `capabilities`.
pub(super) fn set(
    privileges: &mut Privileges,
    option: &str,
    capabilities: Capabilities,
) -> Result<()> {
    let split = option.split_once('=').or_else(|| option.split_once(':'));
    match split.unwrap_or((option, "")) {
        ("no-new-privileges", "") => privileges.no_new_privileges = true,
        ("no-new-privileges", value) => {
            privileges.no_new_privileges = truth(value).map_err(anyhow::Error::msg)?;
        }
        ("seccomp", "") => bail!("expected a file, unconfined or builtin"),
        ("seccomp", "unconfined") => privileges.calls = CallFilter::Unconfined,
        ("seccomp", "builtin") => privileges.calls = CallFilter::Builtin,
        ("seccomp", path) => {
            privileges.calls = CallFilter::Profile(profile(Path::new(path), capabilities)?);
        }
        ("apparmor", "unconfined") => privileges.apparmor = None,
        // kiln never sets an SELinux label.
        ("label", "disable") => {}
        ("apparmor", "") => bail!("expected the name of a profile, or unconfined"),
        ("apparmor", profile) => privileges.apparmor = Some(apparmor(profile)?),
        ("label", _) => bail!("kiln sets no SELinux label: label=disable says so"),
        ("systempaths", "unconfined") => privileges.hides_system = false,
        ("systempaths", _) => bail!("expected systempaths=unconfined"),
        _ => {
            bail!("expected no-new-privileges, seccomp=FILE, seccomp=unconfined or seccomp=builtin")
        }
    }
    Ok(())
}

/// Returns the name of an AppArmor profile. Fails if the kernel doesn't enforce such profiles.
fn apparmor(profile: &str) -> Result<String> {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    if !enabled.is_ok_and(|enabled| enabled.trim() == "Y") {
        bail!("this machine has no AppArmor");
    }
    if profile.contains(['\n', '\0']) {
        bail!("invalid name of a profile");
    }
    Ok(profile.to_owned())
}

/// Reads a seccomp profile in docker's format.
fn profile(path: &Path, capabilities: Capabilities) -> Result<SeccompProfile> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("read the seccomp profile {}", path.display()))?;
    // The error names the line and the expected contents.
    SeccompProfile::read(&text, capabilities)
        .with_context(|| format!("understand the seccomp profile {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(option: &str) -> Result<Privileges> {
        let mut privileges = Privileges::default();
        set(&mut privileges, option, Capabilities::DEFAULT).map(|()| privileges)
    }

    #[test]
    fn options_are_dockers() {
        for set in ["no-new-privileges", "no-new-privileges:true", "no-new-privileges=1"] {
            assert!(read(set).unwrap().no_new_privileges);
        }
        assert!(!read("no-new-privileges=false").unwrap().no_new_privileges);
        assert!(!read("systempaths=unconfined").unwrap().hides_system);
        assert_eq!(read("seccomp=unconfined").unwrap().calls, CallFilter::Unconfined);
        for accepted in ["seccomp=builtin", "apparmor=unconfined", "label:disable"] {
            assert_eq!(read(accepted).unwrap(), Privileges::default());
        }
        for refused in [
            "seccomp=",
            "systempaths=x",
            "apparmor=",
            "apparmor=a\nb",
            "label=type:x",
            "x",
            "no-new-privileges=x",
        ] {
            assert!(read(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_profile_is_read_and_what_is_wrong_with_it_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("profile.json");
        let option = format!("seccomp={}", path.display());
        let missing = format!("{:#}", read(&option).unwrap_err());
        assert!(missing.contains("profile.json: No such file"), "{missing}");
        std::fs::write(&path, "{ \"defaultAction\": \"SCMP_ACT_ALLOW\" }").unwrap();
        assert!(matches!(read(&option).unwrap().calls, CallFilter::Profile(_)));
        std::fs::write(&path, "{\n\"defaultAction\": \"DENY\" }").unwrap();
        let wrong = format!("{:#}", read(&option).unwrap_err());
        for part in ["profile.json: ", "`DENY`, expected one of `SCMP_ACT_KILL`", "at line 2"] {
            assert!(wrong.contains(part), "{wrong}");
        }
    }
}

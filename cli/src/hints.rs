//! Hints that help the user against an error.

use std::error::Error as StdError;

use kiln_frontend::suggest::{Case, nearest};
use kiln_sandbox::network::NetworkError;
use kiln_worker::Error;

/// Returns the hint for an error or for one of its causes.
pub(crate) fn of(error: &(dyn StdError + 'static)) -> Option<String> {
    std::iter::successors(Some(error), |&error| error.source()).find_map(of_one)
}

fn of_one(error: &(dyn StdError + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref() {
        return of_worker(error);
    }
    if let Some(error) = error.downcast_ref() {
        return of_images(error);
    }
    if let Some(error) = error.downcast_ref::<NetworkError>() {
        return error.hint().map(str::to_owned);
    }
    // An error that only wraps a registry's doesn't have it as its source.
    if let Some(kiln_exporter::Error::Registry(error)) = error.downcast_ref() {
        return error.hint();
    }
    error.downcast_ref::<kiln_registry::Error>().and_then(kiln_registry::Error::hint)
}

fn of_images(error: &kiln_images::Error) -> Option<String> {
    match error {
        kiln_images::Error::Registry(error) => error.hint(),
        kiln_images::Error::Cached { source, .. } => of_images(source),
        _ => None,
    }
}

fn of_worker(error: &Error) -> Option<String> {
    match error {
        Error::Registry(error) => error.hint(),
        Error::Images(error) => of_images(error),
        Error::NotAllowed(right) => {
            Some(format!("--allow {right} lets the steps of this build do it"))
        }
        Error::Missing { path, is_excluded: true, .. } => {
            Some(format!("{} is there, but an ignore file excludes it", path.display()))
        }
        Error::Missing { path, siblings, .. } => {
            let name = path.file_name()?.to_str()?;
            let names = || siblings.iter().map(String::as_str);
            let same = names().find(|known| known.eq_ignore_ascii_case(name)).map(str::to_owned);
            let near = same.or_else(|| nearest(name, names(), Case::Insensitive))?;
            let near = names().find(|known| known.eq_ignore_ascii_case(&near))?;
            Some(format!("did you mean {}?", path.with_file_name(near).display()))
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
    fn near_names_are_suggested() {
        let hint = |path: &str, siblings: &[&str], is_excluded| {
            let siblings = siblings.iter().map(ToString::to_string).collect();
            let source = kiln_tree::Error::NotFound { path: path.into() };
            of(&Error::Missing { source, path: path.into(), siblings, is_excluded })
        };
        let names = ["main.go", "Makefile", "main.go.bak"];
        let meant = Some("did you mean /src/main.go?".to_owned());
        assert_eq!(hint("/src/Main.go", &names, false), meant);
        assert_eq!(hint("/src/mian.go", &names, false), meant);
        assert_eq!(hint("/src/other", &names, false), None);
        let excluded = Some("/main.go is there, but an ignore file excludes it".to_owned());
        assert_eq!(hint("/main.go", &names, true), excluded);
    }

    #[test]
    fn emulators_are_named_as_they_are_installed() {
        let error = |platform: &str| Error::NoEmulator {
            platform: platform.to_owned(),
            problem: String::new(),
        };
        let shown = of(&error("linux/arm/v7")).unwrap_or_default();
        assert!(shown.ends_with("--install arm\""), "{shown}");
        assert_eq!(of(&error("windows/amd64")), None);
    }
}

//! An OCI runtime in place of the sandbox: `--oci-runtime`.

#![expect(clippy::disallowed_methods, reason = "the user names the files")]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::arguments::runtime::RuntimeArguments;

/// Finds the runtime by its path or by the name of a program.
pub(crate) fn find(arguments: &RuntimeArguments) -> Result<Option<PathBuf>> {
    let asked = arguments.oci_runtime.as_deref().filter(|name| !name.is_empty());
    let Some(asked) = asked else { return Ok(None) };
    if kiln_tree::Ids::current().has_records() {
        bail!("--oci-runtime takes root: run kiln as root, or leave it out for kiln's own sandbox");
    }
    let search = super::search_path();
    let directories = std::env::split_paths(&search).chain(["/usr/sbin".into(), "/sbin".into()]);
    find_in(Path::new(asked), directories).map(Some)
}

fn find_in(asked: &Path, mut directories: impl Iterator<Item = PathBuf>) -> Result<PathBuf> {
    let found = if asked.components().count() > 1 {
        Some(asked.to_owned())
    } else {
        directories.find(|directory| directory.join(asked).is_file()).map(|dir| dir.join(asked))
    };
    let found = found.with_context(|| {
        format!("there is no OCI runtime {} on the path; install it", asked.display())
    })?;
    let found = found
        .canonicalize()
        .with_context(|| format!("find the OCI runtime {}", asked.display()))?;
    if !found.is_file() {
        bail!("the OCI runtime {} is no program", asked.display());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_found_by_name_and_by_path() {
        let find = |asked: &str| {
            let directories = ["/nowhere", "/bin"].map(PathBuf::from);
            find_in(Path::new(asked), directories.into_iter())
        };
        let shell = std::fs::canonicalize("/bin/sh").unwrap();
        assert_eq!(find("sh").unwrap(), shell);
        assert_eq!(find("/bin/sh").unwrap(), shell);
        for (asked, problem) in [
            ("no-such-runtime", "there is no OCI runtime no-such-runtime on the path; install it"),
            ("/bin/no-such", "find the OCI runtime /bin/no-such"),
            ("/bin/../bin", "the OCI runtime /bin/../bin is no program"),
        ] {
            assert_eq!(find(asked).unwrap_err().to_string(), problem);
        }
    }
}

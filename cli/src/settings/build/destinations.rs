//! Checks of the outputs' destinations before the build begins.

#![expect(
    clippy::disallowed_methods,
    reason = "the user names the files, and the command line reads the environment"
)]

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kiln_exporter::{Destination, Output};

use crate::arguments::build::LOCAL_DELETE;

/// Checks all outputs. `may_delete` permits an output to remove files outside the working
/// directory.
pub(super) fn check(outputs: &[Output], may_delete: bool) -> Result<()> {
    let streams = outputs.iter().filter(|output| output.is_stdout()).count();
    if streams > 1 {
        bail!("multiple outputs configured to write to stdout");
    }
    if streams == 1 && std::io::stdout().is_terminal() {
        bail!("an archive is nothing for a terminal: name a file as dest, or redirect it");
    }
    for output in outputs {
        let form = output.form();
        let Some(dest) = form.destination else { continue };
        check_place(&dest)?;
        if let Destination::Directory(dest) = &dest
            && form.removes_others
            && !may_delete
        {
            check_deletion(dest)?;
        }
    }
    Ok(())
}

/// Rejects a directory in place of a file, and a file in place of a directory.
fn check_place(dest: &Destination) -> Result<()> {
    let (path, is_directory) = match dest {
        Destination::Path(path) => (path, false),
        Destination::Directory(path) => (path, true),
        Destination::Stdout => return Ok(()),
    };
    match std::fs::metadata(path) {
        Ok(found) if is_directory && !found.is_dir() => {
            bail!("destination directory {} is a file", path.display())
        }
        Ok(found) if !is_directory && found.is_dir() => {
            bail!("destination file {} is a directory", path.display())
        }
        _ => Ok(()),
    }
}

/// Refuses to remove files outside the working directory.
fn check_deletion(dest: &Path) -> Result<()> {
    let working = std::env::current_dir().and_then(std::fs::canonicalize);
    let working = working.context("find the working directory")?;
    let found = real(dest)?;
    if found.is_none_or(|found| found == working || !found.starts_with(&working)) {
        bail!(
            "local output mode=delete for destination {:?} requires --allow={LOCAL_DELETE}",
            dest.display().to_string()
        );
    }
    Ok(())
}

/// Resolves a path whose last components may not exist; returns `None` if `..` follows a component
/// that doesn't exist.
fn real(path: &Path) -> Result<Option<PathBuf>> {
    let mut there = std::path::absolute(path).context("resolve the destination")?;
    let mut rest = PathBuf::new();
    loop {
        if let Ok(found) = std::fs::canonicalize(&there) {
            return Ok(Some(found.join(rest)));
        }
        let Some(name) = there.file_name() else { return Ok(None) };
        rest = if rest.as_os_str().is_empty() { name.into() } else { Path::new(name).join(rest) };
        there.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_where_the_kernel_would_lead() {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(dir.path()).unwrap();
        std::os::unix::fs::symlink("/usr", root.join("link")).unwrap();
        let lead = |path: &str| real(&root.join(path)).unwrap();
        assert_eq!(lead("."), Some(root.clone()));
        assert_eq!(lead("new/deep"), Some(root.join("new/deep")));
        assert_eq!(lead("link/new"), Some("/usr/new".into()));
        assert_eq!(lead("link/.."), Some("/".into()));
        assert_eq!(lead("new/../.."), None);
        assert_eq!(lead("new/../../etc"), None);
    }

    #[test]
    fn places_of_the_wrong_kind_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (file, directory) = (dir.path().join("file"), dir.path().join("directory"));
        std::fs::write(&file, "").unwrap();
        std::fs::create_dir(&directory).unwrap();
        let checked = |text: &str, place: &Path| {
            let text = format!("{text},dest={}", place.display());
            check(&[Output::parse(&text).unwrap()], false).map_err(|error| error.to_string())
        };
        for kind in ["type=oci", "type=docker", "type=tar"] {
            checked(kind, &file).unwrap();
            assert!(checked(kind, &directory).unwrap_err().ends_with("is a directory"), "{kind}");
        }
        for kind in ["type=local", "type=oci,tar=false", "type=docker,tar=false"] {
            checked(kind, &directory).unwrap();
            assert!(checked(kind, &file).unwrap_err().ends_with("is a file"), "{kind}");
        }
        let stream = || Output::parse("type=oci,dest=-").unwrap();
        let error = check(&[stream(), stream()], false).unwrap_err().to_string();
        assert_eq!(error, "multiple outputs configured to write to stdout");
    }
}

//! Propagation of later mounts between the host and a container.
//!
//! The kernel propagates mounts between linked mounts only. If the host's mount of a path isn't
//! linked itself, no mount would ever propagate, and kiln refuses to start the container, as docker
//! does.

#![expect(clippy::disallowed_methods, reason = "the user names the files")]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kiln_sandbox::{Mount, MountKind, Propagation};

/// Parses a mode such as `rshared`; returns `None` for other texts.
pub fn read(mode: &str) -> Option<Propagation> {
    match mode {
        "private" | "rprivate" => Some(Propagation::Private),
        "slave" | "rslave" => Some(Propagation::Slave),
        "shared" | "rshared" => Some(Propagation::Shared),
        _ => None,
    }
}

/// Checks that mounts below a host path can propagate to or from a container.
pub fn check(path: &Path, propagation: Propagation) -> Result<()> {
    if propagation == Propagation::Private {
        return Ok(());
    }
    let table = std::fs::read("/proc/self/mountinfo").context("look at the mounts")?;
    let real = path.canonicalize().with_context(|| format!("look at {}", path.display()))?;
    check_in(&String::from_utf8_lossy(&table), path, &real, propagation)
}

fn check_in(table: &str, path: &Path, real: &Path, propagation: Propagation) -> Result<()> {
    // If several mounts share a mount point, the last one is visible.
    let rows = table.lines().filter_map(Row::of).filter(|row| real.starts_with(&row.place));
    let Some(row) = rows.max_by_key(|row| row.place.components().count()) else {
        bail!("{} is mounted nowhere", path.display());
    };
    let (is_met, expected) = match propagation {
        Propagation::Shared => (row.is_shared, "a shared"),
        Propagation::Slave => (row.is_shared || row.is_slave, "a shared or slave"),
        Propagation::Private => (true, ""),
    };
    if !is_met {
        let (path, place) = (path.display(), row.place.display());
        bail!("path {path} is mounted on {place} but it is not {expected} mount");
    }
    Ok(())
}

/// Rejects mounts inside a directory with shared propagation: they would appear on the host and
/// remain there.
pub fn check_nested(mounts: &[Mount]) -> Result<()> {
    let is_shared = |mount: &&Mount| {
        matches!(mount.kind, MountKind::Bind { propagation: Propagation::Shared, .. })
    };
    for above in mounts.iter().filter(is_shared) {
        let is_below = |mount: &&Mount| {
            mount.target != above.target && mount.target.starts_with(&above.target)
        };
        if let Some(below) = mounts.iter().find(is_below) {
            bail!(
                "{} lies in {}, whose mounts are shared: it would be mounted on the host, too",
                below.target.display(),
                above.target.display()
            );
        }
    }
    Ok(())
}

/// A line of `/proc/self/mountinfo`.
struct Row {
    place: PathBuf,
    is_shared: bool,
    is_slave: bool,
}

impl Row {
    fn of(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let place = PathBuf::from(unescape(words.nth(4)?));
        let options: Vec<&str> = words.skip(1).take_while(|word| *word != "-").collect();
        let has = |name: &str| options.iter().any(|option| option.starts_with(name));
        Some(Self { place, is_shared: has("shared:"), is_slave: has("master:") })
    }
}

/// Reverts the kernel's escapes of spaces, tabs, line breaks and backslashes.
fn unescape(text: &str) -> String {
    let codes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    codes.into_iter().fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_linked_is_refused() {
        let table = "1 0 8:1 / / rw - ext4 /dev/sda rw\n\
                     2 1 8:2 / /s rw,relatime shared:5 - ext4 /dev/sdb rw\n\
                     3 2 8:3 / /s/m rw master:5 - ext4 /dev/sdc rw\n\
                     4 1 8:4 / /with\\040blank rw shared:9 master:1 - ext4 /dev/sdd rw\n";
        let check = |path: &str, propagation| {
            check_in(table, Path::new(path), Path::new(path), propagation)
                .map_err(|error| error.to_string())
        };
        assert_eq!(check("/s/x", Propagation::Shared), Ok(()));
        assert_eq!(check("/s/m/x", Propagation::Slave), Ok(()));
        assert_eq!(check("/with blank/x", Propagation::Shared), Ok(()));
        let problem = "path /s/m/x is mounted on /s/m but it is not a shared mount";
        assert_eq!(check("/s/m/x", Propagation::Shared), Err(problem.to_owned()));
        let problem = "path /sx is mounted on / but it is not a shared or slave mount";
        assert_eq!(check("/sx", Propagation::Slave), Err(problem.to_owned()));
    }

    #[test]
    fn nothing_is_mounted_in_what_is_shared() {
        let mount = |target: &str, propagation| Mount {
            target: target.into(),
            kind: MountKind::Bind {
                tree: kiln_sandbox::Tree::Directory("/h".into()),
                selector: PathBuf::new(),
                readonly: false,
                recursive: true,
                propagation,
            },
        };
        let below = mount("/d/e", Propagation::Private);
        let beside = mount("/de", Propagation::Private);
        check_nested(&[below.clone(), mount("/d", Propagation::Slave)]).unwrap();
        check_nested(&[beside, mount("/d", Propagation::Shared)]).unwrap();
        let problem = check_nested(&[below, mount("/d", Propagation::Shared)]).unwrap_err();
        assert!(problem.to_string().starts_with("/d/e lies in /d, whose mounts are shared"));
    }
}

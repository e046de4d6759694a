//! Volumes and directories of the host in a container.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kiln_store::{Growing, Store, VolumeGuard};
use kiln_worker::container::{ContainerImage, Containers};
use kiln_worker::sandbox::Mount;

use super::{bind, container_path};

/// What is mounted into a container, by target: the host's path, and whether it can't be written.
///
/// Containers aren't kept, and so neither are anonymous volumes: they lie in the process's part of
/// the store's `tmp/`, which goes with the process however it ends.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    mounts: BTreeMap<PathBuf, (PathBuf, bool)>,
    /// Volumes are held as long as the container runs.
    held: Vec<VolumeGuard>,
}

impl Volumes {
    /// Prepares what was asked for, and an anonymous volume for every path that the image declares
    /// and nothing else is mounted on.
    pub(super) fn prepare(
        containers: &Containers,
        image: &ContainerImage,
        store: &Store,
        typed: &[String],
    ) -> Result<Self> {
        let mut volumes = Self::default();
        let fill =
            |target: &Path, directory: &Path| containers.fill_volume(image, target, directory);
        let anonymous = |target: &Path| -> Result<PathBuf> {
            let directory = store.temp_dir().context("make a volume")?;
            std::fs::set_permissions(&directory, Permissions::from_mode(0o755))
                .context("make a volume")?;
            fill(target, &directory)
                .with_context(|| format!("fill the volume on {}", target.display()))?;
            Ok(directory)
        };
        for text in typed {
            match Volume::parse(text)? {
                Volume::Anonymous(target) => {
                    let directory = anonymous(&target)?;
                    volumes.add(target, directory, false)?;
                }
                Volume::Named { name, target, readonly } => {
                    let directory = loop {
                        let (directory, _) = store
                            .volumes()
                            .filled(&name, |directory| fill(&target, directory))
                            .with_context(|| format!("prepare the volume {name}"))?;
                        // One that was given up just now is made anew.
                        if let Some(guard) = store.volumes().hold(&name)? {
                            volumes.held.push(guard);
                            break directory;
                        }
                    };
                    volumes.add(target, directory, readonly)?;
                }
                Volume::Host { path, target, readonly } => {
                    if !path.exists() {
                        std::fs::create_dir_all(&path)
                            .with_context(|| format!("make the directory {}", path.display()))?;
                    }
                    volumes.add(target, path, readonly)?;
                }
            }
        }
        for target in image.config.config.volumes.keys() {
            let target = container_path(target)?;
            if !volumes.mounts.contains_key(&target) {
                let directory = anonymous(&target)?;
                volumes.add(target, directory, false)?;
            }
        }
        Ok(volumes)
    }

    /// Returns the volumes as something that grows.
    pub(super) fn growing(&self) -> impl Iterator<Item = Growing> {
        self.held.iter().map(VolumeGuard::growing)
    }

    /// Returns the mounts, those that others lie in first.
    pub(super) fn mounts(&self) -> impl Iterator<Item = Mount> {
        self.mounts.iter().map(|(target, (path, readonly))| Mount {
            target: target.clone(),
            kind: bind(path.clone(), *readonly),
        })
    }

    fn add(&mut self, target: PathBuf, path: PathBuf, readonly: bool) -> Result<()> {
        if self.mounts.contains_key(&target) {
            bail!("duplicate mount point: {}", target.display());
        }
        self.mounts.insert(target, (path, readonly));
        Ok(())
    }
}

/// What `-v` asks for.
#[derive(Debug, PartialEq, Eq)]
enum Volume {
    /// `DST`.
    Anonymous(PathBuf),
    /// `NAME:DST`.
    Named {
        /// The volume.
        name: String,
        /// Where.
        target: PathBuf,
        /// Whether it can't be written.
        readonly: bool,
    },
    /// `PATH:DST`.
    Host {
        /// The host's path, absolute.
        path: PathBuf,
        /// Where.
        target: PathBuf,
        /// Whether it can't be written.
        readonly: bool,
    },
}

impl Volume {
    fn parse(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, options) = match *parts.as_slice() {
            [target] => return Ok(Self::Anonymous(container_path(target)?)),
            [source, target] => (source, target, ""),
            [source, target, options] => (source, target, options),
            _ => bail!("invalid volume {text:?}: expected SRC:DST[:ro]"),
        };
        let readonly = match options {
            "" | "rw" => false,
            "ro" => true,
            _ => bail!("invalid volume {text:?}: unknown option {options:?}, expected ro or rw"),
        };
        if source.is_empty() {
            bail!("invalid volume {text:?}: no source");
        }
        let target = container_path(target)?;
        if source.starts_with(['/', '.', '~']) {
            let path = std::path::absolute(source)?;
            return Ok(Self::Host { path, target, readonly });
        }
        if !source.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
            bail!("invalid volume {text:?}: {source:?} is neither a path nor a volume's name");
        }
        Ok(Self::Named { name: source.to_owned(), target, readonly })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_told_apart() {
        let target = || PathBuf::from("/d");
        assert_eq!(Volume::parse("/d").unwrap(), Volume::Anonymous(target()));
        let host = Volume::Host { path: "/h".into(), target: target(), readonly: true };
        assert_eq!(Volume::parse("/h:/d:ro").unwrap(), host);
        let named = Volume::Named { name: "n".into(), target: target(), readonly: false };
        assert_eq!(Volume::parse("n:/d").unwrap(), named);
        for text in ["", "d", "n:d", "/h:/d:xx", "a:b:c:d", ":/d", "a/b:/d", "..x:"] {
            assert!(Volume::parse(text).is_err(), "{text}");
        }
    }
}

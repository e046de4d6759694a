//! Volumes and host directories in a container.

#![expect(clippy::disallowed_methods, reason = "the user names the files")]

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kiln_sandbox::{Mount, MountKind, Propagation, Tree};
use kiln_store::{Store, VolumeGuard, WatchedDirectory};
use kiln_worker::container::{ContainerImage, Containers};

use super::propagation;

/// The mounts of a container, by target.
///
/// kiln doesn't keep containers, so it doesn't keep anonymous volumes either. They are in the
/// process's directory in the store's `tmp/`, which is removed after the process has ended in any
/// way.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    mounts: BTreeMap<PathBuf, MountKind>,
    /// Guards that keep the volumes from being removed while the container runs.
    held: Vec<VolumeGuard>,
}

/// The source of the files of new volumes.
struct Filler<'a> {
    containers: &'a Containers,
    image: &'a ContainerImage,
    store: &'a Store,
}

impl Filler<'_> {
    /// Creates a volume that is removed with this process.
    fn anonymous(&self, volume: &Volume) -> Result<PathBuf> {
        let directory = self.store.temp_dir().context("make a volume")?;
        std::fs::set_permissions(&directory, Permissions::from_mode(0o755))
            .context("make a volume")?;
        self.fill(volume, &directory)
            .with_context(|| format!("fill the volume on {}", volume.target.display()))?;
        Ok(directory)
    }

    /// Returns a named volume and a guard that keeps it.
    fn named(&self, name: &str, volume: &Volume) -> Result<(PathBuf, VolumeGuard)> {
        loop {
            let (directory, _) = self
                .store
                .volumes()
                .filled(name, |directory| self.fill(volume, directory))
                .with_context(|| format!("prepare the volume {name}"))?;
            // If the volume was removed just before the guard was taken, create it again.
            if let Some(guard) = self.store.volumes().hold(name)? {
                return Ok((directory, guard));
            }
        }
    }

    fn fill(&self, volume: &Volume, directory: &Path) -> kiln_worker::Result<()> {
        if volume.is_empty {
            return Ok(());
        }
        self.containers.fill_volume(self.image, &volume.target, directory)
    }
}

impl Volumes {
    /// Prepares the requested volumes. Adds an anonymous volume for each path that the image
    /// declares, unless another mount covers it.
    pub(super) fn prepare(
        containers: &Containers,
        image: &ContainerImage,
        store: &Store,
        asked: &[Volume],
    ) -> Result<Self> {
        let mut volumes = Self::default();
        let filler = Filler { containers, image, store };
        for volume in asked {
            let path = match &volume.source {
                Source::Anonymous => filler.anonymous(volume)?,
                Source::Named(name) => {
                    let (directory, guard) = filler.named(name, volume)?;
                    volumes.held.push(guard);
                    directory
                }
                Source::Host { path, is_made } => {
                    host_path(path, *is_made)?;
                    propagation::check(path, volume.propagation)?;
                    path.clone()
                }
                Source::Memory(kind) => {
                    volumes.add(&volume.target, kind.clone())?;
                    continue;
                }
            };
            volumes.add(&volume.target, volume.bind(path))?;
        }
        for target in image.config.config.volumes.keys() {
            // Like docker, kiln resolves a relative path against the root directory.
            let volume = Volume::anonymous(Path::new("/").join(target));
            if !volumes.mounts.contains_key(&volume.target) {
                let directory = filler.anonymous(&volume)?;
                volumes.add(&volume.target, volume.bind(directory))?;
            }
        }
        Ok(volumes)
    }

    /// Returns the named volumes for the watch of the store's size.
    pub(super) fn growing(&self) -> impl Iterator<Item = WatchedDirectory> {
        self.held.iter().map(VolumeGuard::growing)
    }

    /// Returns the mounts, sorted so that a directory comes before the mounts inside it.
    pub(super) fn mounts(&self) -> impl Iterator<Item = Mount> {
        self.mounts
            .iter()
            .map(|(target, kind)| Mount { target: target.clone(), kind: kind.clone() })
    }

    fn add(&mut self, target: &Path, kind: MountKind) -> Result<()> {
        if self.mounts.contains_key(target) {
            bail!("duplicate mount point: {}", target.display());
        }
        self.mounts.insert(target.to_owned(), kind);
        Ok(())
    }
}

/// Checks that a host path exists. Creates a directory there if `is_made`.
fn host_path(path: &Path, is_made: bool) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    if !is_made {
        bail!("{} isn't there: -v makes directories, --mount doesn't", path.display());
    }
    std::fs::create_dir_all(path).with_context(|| format!("make the directory {}", path.display()))
}

/// A requested volume, directory of the host, or directory in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The absolute path in the container.
    pub target: PathBuf,
    /// The files to mount.
    pub source: Source,
    /// `true` for a read-only mount.
    pub readonly: bool,
    /// `true` if mounts below the source are mounted, too.
    pub recursive: bool,
    /// `true` if a new volume stays empty; otherwise the image's files are copied into it.
    pub is_empty: bool,
    /// The subdirectory of the source to mount; empty for all of it.
    pub part: PathBuf,
    /// The propagation of later mounts.
    pub propagation: Propagation,
}

/// The files to mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A volume that is removed with the container.
    Anonymous,
    /// A volume that is kept, by its name.
    Named(String),
    /// A path of the host.
    Host {
        /// The absolute path.
        path: PathBuf,
        /// `true` if a directory is created when the path doesn't exist.
        is_made: bool,
    },
    /// A tmpfs.
    Memory(MountKind),
}

impl Volume {
    /// Returns a volume that is removed with the container.
    pub fn anonymous(target: PathBuf) -> Self {
        Self {
            target,
            source: Source::Anonymous,
            readonly: false,
            recursive: true,
            is_empty: false,
            part: PathBuf::new(),
            propagation: Propagation::Private,
        }
    }

    fn bind(&self, path: PathBuf) -> MountKind {
        MountKind::Bind {
            tree: Tree::Directory(path),
            selector: self.part.clone(),
            readonly: self.readonly,
            recursive: self.recursive,
            propagation: self.propagation,
        }
    }
}

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

use super::{container_path, mount_flag, propagation};

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

/// A mount that `-v` or `--mount` requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Volume {
    /// The absolute path in the container.
    pub(super) target: PathBuf,
    /// The files to mount.
    pub(super) source: Source,
    /// `true` for a read-only mount.
    pub(super) readonly: bool,
    /// `true` if mounts below the source are mounted, too.
    pub(super) recursive: bool,
    /// `true` if a new volume stays empty; otherwise the image's files are copied into it.
    pub(super) is_empty: bool,
    /// The subdirectory of the source to mount; empty for all of it.
    pub(super) part: PathBuf,
    /// The propagation of later mounts.
    pub(super) propagation: Propagation,
}

/// The files to mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
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

/// Parses the values of `-v` and `--mount`.
///
/// # Errors
/// Fails if a value is invalid. No volume is created then.
pub(super) fn asked(volumes: &[String], mounts: &[String]) -> Result<Vec<Volume>> {
    let volumes = volumes.iter().map(|text| Volume::parse(text));
    let mounts = mounts.iter().map(|text| mount_flag::parse(text));
    volumes.chain(mounts).collect()
}

impl Volume {
    /// Returns a volume that is removed with the container.
    pub(super) fn anonymous(target: PathBuf) -> Self {
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

    fn parse(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, options) = match *parts.as_slice() {
            [target] => return Ok(Self::anonymous(container_path(target)?)),
            [source, target] => (source, target, None),
            [source, target, options] => (source, target, Some(options)),
            _ => bail!("invalid volume {text:?}: expected SRC:DST[:ro]"),
        };
        if source.is_empty() {
            bail!("invalid volume {text:?}: no source");
        }
        let mut volume = Self::anonymous(container_path(target)?);
        volume.source = if source.starts_with(['/', '.', '~']) {
            Source::Host { path: std::path::absolute(source)?, is_made: true }
        } else {
            Source::Named(name(source).with_context(|| format!("invalid volume {text:?}"))?)
        };
        if let Some(options) = options {
            volume.set_all(options).with_context(|| format!("invalid volume {text:?}"))?;
        }
        Ok(volume)
    }

    /// Applies options. Each kind of option may occur once.
    fn set_all(&mut self, options: &str) -> Result<()> {
        let mut seen: Vec<Setting> = Vec::new();
        for option in options.split(',') {
            let setting = Setting::of(option)?;
            if seen.contains(&setting) {
                bail!("{option:?} and another option contradict or repeat each other");
            }
            self.set(setting, option);
            seen.push(setting);
        }
        let is_host = matches!(self.source, Source::Host { .. });
        match (seen.contains(&Setting::Copy), seen.contains(&Setting::Propagation)) {
            (true, _) if is_host => {
                bail!("nocopy is for volumes: nothing is copied into a directory of the host")
            }
            (_, true) if !is_host => bail!("only directories of the host have a propagation"),
            _ => Ok(()),
        }
    }

    fn set(&mut self, setting: Setting, option: &str) {
        match setting {
            Setting::Write => self.readonly = option != "rw",
            Setting::Copy => self.is_empty = true,
            Setting::Propagation => {
                self.propagation = propagation::read(option).unwrap_or_default();
            }
            // These have no effect: the container uses the host's files directly, and kiln sets no
            // SELinux labels.
            Setting::Consistency | Setting::Label => {}
        }
    }
}

/// A kind of option.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Setting {
    Write,
    Copy,
    Consistency,
    Label,
    Propagation,
}

impl Setting {
    fn of(option: &str) -> Result<Self> {
        Ok(match option {
            "rw" | "ro" | "readonly" => Self::Write,
            "nocopy" => Self::Copy,
            "cached" | "delegated" | "consistent" | "default" => Self::Consistency,
            "z" | "Z" => Self::Label,
            other if propagation::read(other).is_some() => Self::Propagation,
            other => bail!("unknown option {other:?}"),
        })
    }
}

/// Checks the name of a volume.
pub(super) fn name(text: &str) -> Result<String> {
    let is_first = text.starts_with(|first: char| first.is_ascii_alphanumeric());
    if !is_first || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
        bail!("{text:?} is neither a path nor a volume's name");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(path: &str) -> Source {
        Source::Host { path: path.into(), is_made: true }
    }

    #[test]
    fn volumes_are_told_apart() {
        let plain = Volume::anonymous("/d".into());
        assert_eq!(Volume::parse("/d").unwrap(), plain);
        let readonly = Volume { source: host("/h"), readonly: true, ..plain.clone() };
        assert_eq!(Volume::parse("/h:/d:ro").unwrap(), readonly);
        assert_eq!(Volume::parse("/h:/d:z,ro,rprivate,consistent").unwrap(), readonly);
        let named = Volume { source: Source::Named("n".to_owned()), ..plain };
        assert_eq!(Volume::parse("n:/d").unwrap(), named);
        assert_eq!(Volume::parse("n:/d:rw,Z").unwrap(), named);
        let empty = Volume { is_empty: true, ..named };
        assert_eq!(Volume::parse("n:/d:nocopy").unwrap(), empty);
        for text in ["", "d", "n:d", "/h:/d:xx", "a:b:c:d", ":/d", "a/b:/d", "..x:", "_a:/d"] {
            assert!(Volume::parse(text).is_err(), "{text}");
        }
        for options in
            ["", "ro,rw", "ro,ro", "z,Z", "cached,delegated", "shared,slave", "nocopy", ","]
        {
            assert!(Volume::parse(&format!("/h:/d:{options}")).is_err(), "{options}");
        }
        assert!(Volume::parse("n:/d:rshared").is_err());
    }

    #[test]
    fn directories_of_the_host_are_linked() {
        let linked = |mode: &str| Volume::parse(&format!("/h:/d:ro,{mode}")).unwrap().propagation;
        for (modes, expected) in [
            (["shared", "rshared"], Propagation::Shared),
            (["slave", "rslave"], Propagation::Slave),
            (["private", "rprivate"], Propagation::Private),
        ] {
            assert_eq!(modes.map(linked), [expected; 2]);
        }
    }
}

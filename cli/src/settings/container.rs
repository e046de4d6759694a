//! The specification of a container, from the arguments of `kiln run`.

mod confinement;
mod devices;
mod environment;
mod mount_flag;
mod names;
mod namespaces;
mod network;
mod resources;
mod security;
mod tmpfs;
mod volumes;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use kiln::container::{ContainerSpec, ProcessOptions};
use kiln_images::PullPolicy;
use kiln_sandbox::{DEFAULT_SHM_SIZE, Rlimit};

use super::limits::{self, Ulimit};
use super::runtime;
use crate::arguments::run::{Pull, RunArguments};

/// Parses the arguments, before the first side effect. Warnings go to `warn`.
pub(crate) fn spec(arguments: &RunArguments, warn: &dyn Fn(&str)) -> Result<ContainerSpec> {
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let confinement = confinement::confinement(arguments)?;
    let volumes = volumes::asked(&arguments.volumes, &arguments.mounts)?;
    let limits = resources::limits(arguments)?;
    let runtime = runtime::find(&arguments.runtime)?;
    let network = network::network(arguments, warn)?;
    Ok(ContainerSpec {
        process: ProcessOptions {
            entrypoint: arguments.entrypoint.clone(),
            command: arguments.command().to_vec(),
            env: environment::resolve(arguments)?,
            workdir: arguments.workdir.clone().filter(|path| !path.as_os_str().is_empty()),
            user: arguments.user.clone(),
            rlimits: limits::ulimits(&arguments.ulimits)?.into_iter().map(rlimit).collect(),
            terminal: None,
            has_term: arguments.tty,
        },
        read_only: arguments.read_only,
        volumes,
        tmpfs: arguments.tmpfs.iter().map(|text| tmpfs::parse(text)).collect::<Result<_>>()?,
        shm_size: arguments.shm_size.as_deref().map(shm_size).transpose()?,
        hostname: text(&arguments.hostname),
        domainname: text(&arguments.domainname),
        network,
        confinement,
        limits,
        cgroup_parent: arguments.resources.cgroup_parent.clone(),
        runtime,
    })
}

impl From<Pull> for PullPolicy {
    fn from(pull: Pull) -> Self {
        match pull {
            Pull::Missing => Self::Missing,
            Pull::Always => Self::Always,
            Pull::Never => Self::Never,
        }
    }
}

fn rlimit(limit: Ulimit) -> Rlimit {
    // -1 means no limit.
    let value = |value: i64| u64::try_from(value).ok();
    Rlimit { name: limit.name, soft: value(limit.soft), hard: value(limit.hard) }
}

/// Parses the size of `/dev/shm` in bytes. As in docker, 0 means the default.
fn shm_size(text: &str) -> Result<u64> {
    let size = limits::size_limit(text).context("invalid --shm-size")?;
    Ok(size.unwrap_or(DEFAULT_SHM_SIZE))
}

/// Parses an absolute path in the container.
fn container_path(text: &str) -> Result<PathBuf> {
    let path = PathBuf::from(text);
    if !path.is_absolute() {
        bail!("{text:?} is no absolute path in the container");
    }
    Ok(path)
}

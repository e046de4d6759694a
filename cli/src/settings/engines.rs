//! The engines that run images on this machine: `--load`.
//!
//! kiln loads an image into the first available engine: the Docker engine that docker's own client
//! would use, podman, or containerd. Without any, the image stays in kiln's own store, for `kiln
//! run`. An engine that the user names must be available.

#![expect(
    clippy::disallowed_methods,
    reason = "the user names the files, and the command line reads the environment"
)]

mod docker_host;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use kiln_exporter::{DockerEngine, Engine, EngineChoice};
use kiln_oci::error::chain;
use kiln_registry::Warnings;
use kiln_tree::Ids;

use docker_host::DockerHost;

/// containerd's default socket and namespace.
const CONTAINERD: (&str, &str) = ("/run/containerd/containerd.sock", "default");

/// The destination of a loaded image.
#[derive(Debug)]
pub(crate) enum LoadTarget {
    /// An engine on this machine.
    Engine(Engine),
    /// kiln's own store. The text is the reason, unless the user chose the store.
    Store(Option<String>),
}

/// Finds the destination of loaded images.
///
/// # Errors
/// Fails if the user names an engine that isn't available.
pub(crate) async fn find(choice: &EngineChoice, warnings: &Warnings) -> Result<LoadTarget> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let host = || docker_host::find(choice.context.as_deref(), &variable, warnings);
    match choice.engine.as_deref() {
        Some("docker") => docker(&host()?).await.map(LoadTarget::Engine),
        Some("podman") => podman().map(LoadTarget::Engine),
        Some("containerd") => containerd(&variable).map(LoadTarget::Engine),
        Some("kiln") => Ok(LoadTarget::Store(None)),
        _ => any(&host()?, &variable).await,
    }
}

/// Returns the first available engine, or kiln's store.
async fn any(
    host: &DockerHost,
    variable: &impl Fn(&str) -> Option<OsString>,
) -> Result<LoadTarget> {
    let mut reason = "no Docker engine, podman or containerd was found".to_owned();
    match docker(host).await {
        Ok(engine) => return Ok(LoadTarget::Engine(engine)),
        Err(error) if host.is_named => return Err(error),
        Err(error) if host.is_there() => reason = chain(error.as_ref()),
        Err(_) => {}
    }
    if let Ok(engine) = podman().or_else(|_| containerd(variable)) {
        return Ok(LoadTarget::Engine(engine));
    }
    Ok(LoadTarget::Store(Some(reason)))
}

async fn docker(host: &DockerHost) -> Result<Engine> {
    let address = host.address.clone();
    let failed = || format!("speak to the Docker engine at {address}");
    let engine = DockerEngine::connect(address.clone()).await.with_context(failed)?;
    Ok(Engine::Docker(engine))
}

fn podman() -> Result<Engine> {
    own_program("podman").map(|program| Engine::Podman { program })
}

fn containerd(variable: &impl Fn(&str) -> Option<OsString>) -> Result<Engine> {
    let address = variable("CONTAINERD_ADDRESS").map_or_else(|| CONTAINERD.0.into(), PathBuf::from);
    let namespace = variable("CONTAINERD_NAMESPACE").unwrap_or_else(|| CONTAINERD.1.into());
    let no_text = |_| anyhow!("CONTAINERD_NAMESPACE is no text");
    let namespace = namespace.into_string().map_err(no_text)?;
    let program = own_program("ctr")?;
    if !address.exists() {
        bail!("containerd does not listen at {}", address.display());
    }
    Ok(Engine::Containerd { program, address, namespace })
}

/// Finds a program that stores images per user.
fn own_program(name: &str) -> Result<PathBuf> {
    let ids = Ids::current();
    if ids.is_namespace() && !ids.is_unprivileged() {
        bail!(
            "{name} would take kiln's root for its own user: run kiln as root, or save the image"
        );
    }
    let search = super::search_path();
    let directories = std::env::split_paths(&search).chain(["/usr/sbin".into(), "/sbin".into()]);
    find_in(name, directories).with_context(|| format!("there is no {name} on the path"))
}

fn find_in(name: &str, directories: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    directories
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(Path::new(name)))
        .find(|program| program.is_file())
}

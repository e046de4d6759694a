//! The meaning of the arguments, the environment and the configuration files: the settings of all
//! commands, and the requests to the library.
//!
//! Nothing here prints. Warnings go to a receiver that the caller passes.

pub(crate) mod bake;
pub(crate) mod build;
pub(crate) mod container;
pub(crate) mod engines;
pub(crate) mod filter;
pub(crate) mod log;
pub(crate) mod platforms;
pub(crate) mod prune;
pub(crate) mod serve;
pub(crate) mod until;

mod archive_limits;
mod config;
mod hosts;
pub(crate) mod limits;
mod once;
mod registries;
mod resources;
mod rung;
mod runtime;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use kiln::{Engine, Options};
use kiln_registry::{MinimumSpeed, Warnings};
use kiln_sandbox::{Isolation, Obstacle};
use kiln_server::ImageFrontends;
use kiln_store::{Snapshotter, Store};
use kiln_tree::ArchiveLimits;
use kiln_worker::GitEnvironment;

use crate::arguments::{GlobalArguments, IsolationChoice};
use config::Config;
use registries::Registries;

pub(crate) use platforms::platform as parse_platform;
pub(crate) use rung::Rung;

/// The settings of all commands.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The store's root directory.
    pub(crate) root: PathBuf,
    /// `true` if the user chooses the root directory.
    pub(crate) has_root: bool,
    /// The number of processors that kiln may use.
    pub(crate) threads: usize,
    /// The limits for unpacking archives.
    pub(crate) archive_limits: ArchiveLimits,
    /// The configuration of registries.
    pub(crate) registries: Registries,
    /// The most bytes that the store may occupy on the disk; `None` for no limit.
    max_storage: Option<u64>,
    /// The snapshotter that the user chooses; `None` for the best one that works.
    snapshotter: Option<Snapshotter>,
    /// The way to isolate programs that the user chooses.
    pub(crate) isolation: IsolationChoice,
    /// The rung that the command has chosen; `None` if it reads no trees.
    pub(crate) rung: Option<Rung>,
    /// `true` if kiln logs its actions.
    pub(crate) debug: bool,
}

impl Settings {
    /// Combines the arguments with the environment and the configuration files. Warnings about
    /// other programs' files go to `warnings`.
    pub(crate) fn resolve(arguments: &GlobalArguments, warnings: Warnings) -> Result<Self> {
        let root = match &arguments.root {
            Some(root) => std::path::absolute(root)
                .with_context(|| format!("resolve the store's directory {}", root.display()))?,
            None => default_root()?,
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let archive_limits = archive_limits::parse(&arguments.archive_limits)?;
        let mut registries =
            Registries::of_environment(arguments.registries_config.clone(), warnings)?;
        let speed = limits::size_limit(&arguments.min_download_speed)
            .context("invalid --min-download-speed")?;
        registries.pace = speed.and_then(MinimumSpeed::of_speed);
        // Read the file even if the argument overrides it, so that the user learns of mistakes in
        // it.
        let config = Config::of_environment()?;
        let max_storage = match &arguments.max_storage {
            Some(size) => limits::size_limit(size).context("invalid --max-storage")?,
            None => config.max_storage,
        };
        Ok(Self {
            root,
            has_root: arguments.root.is_some(),
            threads,
            archive_limits,
            registries,
            max_storage,
            snapshotter: arguments.snapshotter,
            isolation: arguments.isolation.or(config.isolation).unwrap_or_default(),
            rung: None,
            debug: arguments.debug,
        })
    }

    /// Opens the engine with the store in the root directory; creates the store if it is missing.
    pub(crate) fn engine(&self) -> Result<Engine> {
        Engine::open(self.options())
    }

    /// Returns the options of the engine.
    pub(crate) fn options(&self) -> Options {
        let isolation = self.rung.as_ref().map_or(Isolation::None, |rung| rung.isolation);
        Options {
            isolation,
            obstacles: self.obstacles().to_vec(),
            has_trees: self.rung.is_some(),
            max_storage: self.max_storage,
            snapshotter: self.snapshotter,
            registries: self.registries.client(),
            archive_limits: self.archive_limits,
            search_path: search_path(),
            git: GitEnvironment {
                variables: git_variables(),
                known_hosts: absolute("HOME").map(|home| home.join(".ssh/known_hosts")),
            },
            frontends: Some(Arc::new(ImageFrontends)),
            ssh_agent: variable("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(PathBuf::from),
            ..Options::new(&self.root)
        }
    }

    /// Returns the reasons why stronger rungs can't be used.
    pub(crate) fn obstacles(&self) -> &[Obstacle] {
        self.rung.as_ref().map(|rung| rung.obstacles.as_slice()).unwrap_or_default()
    }

    /// Opens the store in the root directory; creates it if it is missing.
    pub(crate) fn store(&self) -> Result<Store> {
        Ok(self.engine()?.store().clone())
    }
}

/// Returns the value of an environment variable.
#[expect(clippy::disallowed_methods, reason = "the command line reads the environment")]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Returns the value of an environment variable if it is text.
#[expect(clippy::disallowed_methods, reason = "the command line reads the environment")]
fn text_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Returns the directories of programs, as `PATH` lists them.
pub(crate) fn search_path() -> OsString {
    variable("PATH").unwrap_or_default()
}

/// Returns the user's name in the environment.
pub(crate) fn user_name() -> Option<String> {
    text_variable("USER")
}

/// Returns the environment variables for the host's git: the program path, proxies and
/// certificates.
fn git_variables() -> Vec<(OsString, OsString)> {
    let proxies = ["http_proxy", "https_proxy", "no_proxy", "all_proxy"];
    let upper = proxies.map(str::to_uppercase);
    let names = ["PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().chain(proxies);
    names
        .chain(upper.iter().map(String::as_str))
        .filter_map(|name| Some((name.into(), variable(name)?)))
        .collect()
}

/// Returns the absolute directory in an environment variable.
fn absolute(name: &str) -> Option<PathBuf> {
    variable(name).map(PathBuf::from).filter(|directory| directory.is_absolute())
}

fn default_root() -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/kiln"));
    }
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("kiln"))
        .context("no directory for the store: set --root, $KILN_ROOT, $XDG_DATA_HOME or $HOME")
}

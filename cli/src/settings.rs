//! The settings of all commands, from the arguments and the environment.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::{Context, Result};
use kiln_images::ImageResolverOptions;
use kiln_registry::MinimumSpeed;
use kiln_sandbox::network::{Bridge, BridgeOptions};
use kiln_store::{Snapshotter, Store, StoreOptions};
use kiln_tree::{ArchiveLimits, Ids};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::archive_limits;
use crate::arguments::GlobalArguments;
use crate::config::Config;
use crate::limits;
use crate::printer::Printer;
use crate::registries::Registries;
use crate::rootless;

/// The settings of all commands.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The store's root directory.
    pub(crate) root: PathBuf,
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
    /// `true` if kiln logs its actions.
    pub(crate) debug: bool,
}

impl Settings {
    /// Combines the arguments with the environment and the configuration files.
    pub(crate) fn resolve(arguments: &GlobalArguments, printer: &Printer) -> Result<Self> {
        let root = match &arguments.root {
            Some(root) => std::path::absolute(root)
                .with_context(|| format!("resolve the store's directory {}", root.display()))?,
            None => default_root()?,
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let archive_limits = archive_limits::parse(&arguments.archive_limits)?;
        let mut registries =
            Registries::of_environment(arguments.registries_config.clone(), printer)?;
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
        let (snapshotter, debug) = (arguments.snapshotter, arguments.debug);
        Ok(Self { root, threads, archive_limits, registries, max_storage, snapshotter, debug })
    }

    /// Returns the default number of steps that run at once. It exceeds the number of processors
    /// because many steps wait.
    pub(crate) fn jobs(&self) -> usize {
        (self.threads * 2).max(8)
    }

    /// Returns the contents of `/etc/resolv.conf` for steps: this machine's file, or nothing
    /// without one.
    #[expect(clippy::unused_self, reason = "settings may name other resolvers")]
    pub(crate) fn resolv_conf(&self) -> Result<Vec<u8>> {
        match std::fs::read("/etc/resolv.conf") {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other.context("read /etc/resolv.conf"),
        }
    }

    /// Returns the bridge that connects steps and containers.
    pub(crate) fn bridge(&self) -> Result<Bridge> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Ok(Bridge::new(BridgeOptions { resolv_conf: self.resolv_conf()?, path }))
    }

    /// Returns the environment variables for the host's git: the program path, proxies and
    /// certificates.
    #[expect(clippy::unused_self, reason = "settings may name other proxies")]
    pub(crate) fn git_environment(&self) -> Vec<(OsString, OsString)> {
        let proxies = ["http_proxy", "https_proxy", "no_proxy", "all_proxy"];
        let upper = proxies.map(str::to_uppercase);
        let names = ["PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().chain(proxies);
        names
            .chain(upper.iter().map(String::as_str))
            .filter_map(|name| Some((name.into(), std::env::var_os(name)?)))
            .collect()
    }

    /// Returns the socket of the user's SSH agent.
    #[expect(clippy::unused_self, reason = "settings may name another agent")]
    pub(crate) fn ssh_agent(&self) -> Option<PathBuf> {
        std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(PathBuf::from)
    }

    /// Returns the path of the user's `known_hosts` file for SSH.
    #[expect(clippy::unused_self, reason = "settings may name another file")]
    pub(crate) fn known_hosts(&self) -> Option<PathBuf> {
        absolute("HOME").map(|home| home.join(".ssh/known_hosts"))
    }

    /// Returns the options for images of a store, with the registries and limits of the settings.
    pub(crate) fn images(&self, store: &Store) -> ImageResolverOptions {
        ImageResolverOptions {
            archive_limits: self.archive_limits,
            ..ImageResolverOptions::new(store.clone(), self.registries.client())
        }
    }

    /// Opens the store in the root directory; creates it if it is missing.
    pub(crate) fn store(&self) -> Result<Store> {
        tracing::debug!(root = %self.root.display(), "opening the store");
        let open = || {
            let (max_bytes, snapshotter) = (self.max_storage, self.snapshotter);
            let options = StoreOptions { max_bytes, snapshotter };
            let store = Store::open_with(&self.root, &options)?;
            // Without privileges, only names and blobs are accessible, and trees aren't.
            if rootless::is_privileged() {
                store.use_ids(Ids::current())?;
            }
            Ok::<_, kiln_store::Error>(store)
        };
        open().with_context(|| format!("open the store {}", self.root.display()))
    }
}

/// Returns the absolute directory in an environment variable.
fn absolute(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).filter(|directory| directory.is_absolute())
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

/// Writes the log to standard error: all messages of kiln's crates with `debug`, else none.
/// `$KILN_LOG` overrides both. There, `kiln` stands for all of kiln's crates, since their names
/// begin with it.
pub(crate) fn init_tracing(debug: bool, printer: &Printer) {
    let default = if debug { "kiln=debug" } else { "off" };
    let filter = std::env::var("KILN_LOG").unwrap_or_else(|_| default.to_owned());
    if filter == "off" {
        return;
    }
    let filter: Targets = match filter.parse() {
        Ok(filter) => filter,
        Err(error) => {
            printer.note(format_args!("WARNING: KILN_LOG={filter} is ignored: {error}"));
            return;
        }
    };
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let format = tracing_subscriber::fmt::layer().with_ansi(colours);
    let format = format.with_writer(std::io::stderr).with_filter(filter);
    tracing_subscriber::registry().with(format).init();
}

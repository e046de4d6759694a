//! What was meant: the arguments with the environment's say.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::{Context, Result};
use kiln_registry::Pace;
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

/// What every command goes by.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The store's root directory.
    pub(crate) root: PathBuf,
    /// How many processors there are.
    pub(crate) threads: usize,
    /// How much an archive may become.
    pub(crate) archive_limits: ArchiveLimits,
    /// What is said about registries.
    pub(crate) registries: Registries,
    /// The most that the store may take on the disk, in bytes.
    max_storage: Option<u64>,
    /// How layers are laid one on top of the other, where that was asked for.
    snapshotter: Option<Snapshotter>,
    /// Whether it is logged what kiln does.
    pub(crate) debug: bool,
}

impl Settings {
    /// Combines arguments and environment.
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
        registries.pace = speed.and_then(Pace::of_speed);
        // It is read in any case: a mistake in it is told, whether it matters now or not.
        let config = Config::of_environment()?;
        let max_storage = match &arguments.max_storage {
            Some(size) => limits::size_limit(size).context("invalid --max-storage")?,
            None => config.max_storage,
        };
        let (snapshotter, debug) = (arguments.snapshotter, arguments.debug);
        Ok(Self { root, threads, archive_limits, registries, max_storage, snapshotter, debug })
    }

    /// Returns how many steps may run at once: more than there are processors, because many wait.
    pub(crate) fn jobs(&self) -> usize {
        (self.threads * 2).max(8)
    }

    /// Returns what steps see as `/etc/resolv.conf`: what this machine has.
    #[expect(clippy::unused_self, reason = "settings may name other resolvers")]
    pub(crate) fn resolv_conf(&self) -> Result<Vec<u8>> {
        match std::fs::read("/etc/resolv.conf") {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other.context("read /etc/resolv.conf"),
        }
    }

    /// Returns the bridge that steps and containers are connected to.
    pub(crate) fn bridge(&self) -> Result<Bridge> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Ok(Bridge::new(BridgeOptions { resolv_conf: self.resolv_conf()?, path }))
    }

    /// Returns the environment of the host's git: where programs are, proxies and certificates.
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

    /// Returns the file of the hosts that the user's ssh knows.
    #[expect(clippy::unused_self, reason = "settings may name another file")]
    pub(crate) fn known_hosts(&self) -> Option<PathBuf> {
        absolute("HOME").map(|home| home.join(".ssh/known_hosts"))
    }

    /// Opens the store.
    pub(crate) fn store(&self) -> Result<Store> {
        tracing::debug!(root = %self.root.display(), "opening the store");
        let open = || {
            let (max_bytes, snapshotter) = (self.max_storage, self.snapshotter);
            let options = StoreOptions { max_bytes, snapshotter };
            let store = Store::open_with(&self.root, &options)?;
            // Without privileges names and blobs are looked at, and no trees.
            if rootless::is_privileged() {
                store.use_ids(Ids::current())?;
            }
            Ok::<_, kiln_store::Error>(store)
        };
        open().with_context(|| format!("open the store {}", self.root.display()))
    }
}

/// Returns the directory that a variable names.
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

/// Sends what is logged to standard error: everything of ours with `debug`, else nothing; `$KILN_LOG`
/// overrides both. `kiln` in there stands for all of our crates, whose names begin with it.
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

//! The options of `kiln serve`, from its arguments and from a `buildkitd.toml`.

#![expect(clippy::disallowed_methods, reason = "the user names the file")]

mod address;
mod buildkitd;
mod document;
mod environment;
mod keys;
mod log;
mod machine;
pub(crate) mod systemd;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kiln_server::{Certificates, GcPolicy, HistoryLimits, Options, Space, total_space};
use kiln_worker::{DEVICE, NETWORK_HOST, SECURITY_INSECURE};
use tokio::sync::Semaphore;

use super::{Settings, absolute};
use crate::arguments::serve::ServeArguments;
pub(crate) use address::{Address, check, resolve};
use document::Document;
pub(crate) use log::LogChoice;

/// The options of a server, its addresses, and warnings about what has no effect.
#[derive(Debug)]
pub(crate) struct Serving {
    /// The options of the server.
    pub(crate) options: Options,
    /// The addresses to listen on.
    pub(crate) addresses: Vec<Address>,
    /// The server's identity for TCP; `None` without TLS.
    pub(crate) certificates: Option<Certificates>,
    /// The owner of the sockets, if it isn't kiln's user.
    pub(crate) user: Option<u32>,
    /// The number of the group that may use the sockets.
    pub(crate) group: Option<u32>,
    /// The time without connections and builds after which kiln ends.
    pub(crate) idle_exit: Option<Duration>,
    /// The log that the configuration describes.
    pub(crate) log: LogChoice,
    /// The warnings.
    pub(crate) warnings: Vec<String>,
}

impl Serving {
    /// Combines arguments and configuration.
    ///
    /// # Errors
    /// Fails if an argument or the configuration is invalid.
    pub(crate) fn new(arguments: &ServeArguments, settings: &Settings) -> Result<Self> {
        let document = arguments.document()?;
        let mut registries = settings.registries.clone();
        if let (Some(text), Some(path)) = (&document.registries, arguments.config()) {
            registries.configure(&path, text);
        }
        registries.transfers = document.transfers;
        let mut engine = kiln::Options {
            registries: registries.client(),
            ssh_agent: None,
            cdi: document.cdi.clone(),
            dns: document.dns.clone(),
            network: document.network,
            ..settings.options()
        };
        engine.snapshotter = engine.snapshotter.or(document.snapshotter);
        if let (Some(root), false) = (&document.root, settings.has_root) {
            engine.root = std::path::absolute(root).context("resolve root of the configuration")?;
        } else if arguments.is_buildkitd && !settings.has_root {
            engine.root = buildkitd::root();
        }
        let parallelism = arguments.max_parallelism.or(document.parallelism);
        engine.steps = parallelism.map(|steps| Arc::new(Semaphore::new(steps)));
        let mut labels = document.labels.clone();
        for text in &arguments.label {
            let (name, value) = label(text)?;
            labels.insert(name, value);
        }
        Ok(Self {
            options: Options {
                gc: if arguments.no_gc { Vec::new() } else { rules(&document, &engine) },
                engine,
                registries: registries.options(),
                entitlements: entitlements(arguments, &document)?,
                labels,
                history: history(&document),
                max_builds: arguments.max_builds.filter(|most| *most > 0).or(document.builds),
                frontends: document.frontends.clone(),
                platforms: document.platforms.clone(),
                environment: match &arguments.config {
                    Some(_) => environment::read(document.environment.as_deref())?,
                    None => serde_json::Map::new(),
                },
            },
            addresses: addresses(arguments, &document)?,
            certificates: certificates(arguments, &document)?,
            user: document.uid,
            group: arguments.group.as_deref().map(group).transpose()?.or(document.gid),
            idle_exit: arguments.idle_exit.as_deref().map(idle_time).transpose()?,
            warnings: document.warnings,
            log: document.log,
        })
    }
}

impl ServeArguments {
    /// Reads the configuration file.
    fn document(&self) -> Result<Document> {
        let Some(path) = self.config() else { return Ok(Document::default()) };
        let about = || format!("read {}", path.display());
        let text = std::fs::read_to_string(&path).with_context(about)?;
        Document::parse(&text).with_context(about)
    }

    /// Returns the path of the configuration. buildkitd has a default one.
    fn config(&self) -> Option<PathBuf> {
        let default = || Some(buildkitd::config()).filter(|path| path.exists());
        self.config.clone().or_else(|| default().filter(|_| self.is_buildkitd))
    }
}

fn entitlements(arguments: &ServeArguments, document: &Document) -> Result<Vec<String>> {
    let mut entitlements = [&arguments.allow[..], &document.entitlements].concat();
    // Devices have a configuration of their own.
    entitlements.retain(|right| right != DEVICE);
    for right in &entitlements {
        if ![NETWORK_HOST, SECURITY_INSECURE].contains(&right.as_str()) {
            bail!("no right {right:?}: {NETWORK_HOST} or {SECURITY_INSECURE}");
        }
    }
    Ok(entitlements)
}

/// Returns the rules of garbage collection. `--max-storage` is the limit of the default ones, unless
/// the configuration has limits.
fn rules(document: &Document, engine: &kiln::Options) -> Vec<GcPolicy> {
    if document.has_gc == Some(false) {
        return Vec::new();
    }
    if !document.rules.is_empty() {
        return document.rules.clone();
    }
    let mut limits = document.limits.clone();
    if limits == GcPolicy::default() {
        limits.max_used = engine.max_storage.map(Space::Bytes);
    }
    GcPolicy::defaults(&limits, total_space(&engine.root))
}

fn history(document: &Document) -> HistoryLimits {
    let limits = HistoryLimits::default();
    HistoryLimits {
        entries: document.history_entries.unwrap_or(limits.entries),
        age: document.history_age.unwrap_or(limits.age),
    }
}

fn addresses(arguments: &ServeArguments, document: &Document) -> Result<Vec<Address>> {
    let texts = if arguments.addr.is_empty() { &document.addresses } else { &arguments.addr };
    if texts.is_empty() {
        let is_buildkitd = arguments.is_buildkitd;
        let socket = if is_buildkitd { buildkitd::socket() } else { default_socket()? };
        return Ok(vec![Address::Unix(socket)]);
    }
    texts.iter().map(|text| Address::parse(text)).collect()
}

/// Reads the certificates of the server.
fn certificates(arguments: &ServeArguments, document: &Document) -> Result<Option<Certificates>> {
    let authority = arguments.tlscacert.as_ref().or(document.authority.as_ref());
    let certificate = arguments.tlscert.as_ref().or(document.certificate.as_ref());
    let key = arguments.tlskey.as_ref().or(document.key.as_ref());
    let read =
        |path: &Path| std::fs::read(path).with_context(|| format!("read {}", path.display()));
    match (authority, certificate, key) {
        (None, None, None) => Ok(None),
        (Some(authority), Some(certificate), Some(key)) => Ok(Some(Certificates {
            authorities: Some(read(authority)?),
            chain: read(certificate)?,
            key: read(key)?,
        })),
        _ => bail!("TLS needs all of --tlscacert, --tlscert and --tlskey"),
    }
}

fn idle_time(text: &str) -> Result<Duration> {
    let nanoseconds = kiln_frontend::parser::duration::parse(text).map_err(anyhow::Error::msg);
    let nanoseconds = nanoseconds.context("invalid --idle-exit")?;
    let nanoseconds = u64::try_from(nanoseconds).ok().filter(|time| *time > 0);
    Ok(Duration::from_nanos(nanoseconds.context("invalid --idle-exit: it isn't positive")?))
}

fn default_socket() -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/run/kiln/serve.sock"));
    }
    let run = absolute("XDG_RUNTIME_DIR").context("no directory for the socket: set --addr")?;
    Ok(run.join("kiln/serve.sock"))
}

fn label(text: &str) -> Result<(String, String)> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if name.is_empty() {
        bail!("invalid label {text:?}: NAME=VALUE");
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn group(name: &str) -> Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let found = nix::unistd::Group::from_name(name).context("look up a group")?;
    Ok(found.with_context(|| format!("there is no group {name}"))?.gid.as_raw())
}

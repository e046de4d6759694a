//! The command line of `buildctl`, for programs that start it.
//!
//! Called by that name, kiln has the commands by which drivers reach a server in a container
//! (`dial-stdio`, `debug workers`), and those that look after its cache. All of them work with any
//! server of BuildKit's API.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use kiln_frontend::parser::duration;

use super::buildkitd::ADDRESS;

/// The name of BuildKit's client.
pub(super) const NAME: &str = "buildctl";

/// Ask a server of BuildKit's API
#[derive(Debug, Args)]
#[command(disable_version_flag = true)]
pub(crate) struct BuildctlArguments {
    /// Address of the server: `unix:///path/to/socket` or `tcp://HOST:PORT`
    #[arg(
        long,
        global = true,
        env = "BUILDKIT_HOST",
        value_name = "ADDRESS",
        default_value = ADDRESS,
        hide_env_values = true
    )]
    pub(crate) addr: String,
    /// Name in the server's certificate [default: the host of the address]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) tlsservername: Option<String>,
    /// Authority that signs the server's certificate
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) tlscacert: Option<PathBuf>,
    /// Certificate of the client
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) tlscert: Option<PathBuf>,
    /// Key of the client's certificate
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) tlskey: Option<PathBuf>,
    /// Directory of ca.pem, cert.pem and key.pem, or of ca.crt, tls.crt and tls.key
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) tlsdir: Option<PathBuf>,
    /// Seconds until an attempt to connect ends; 0 for no limit
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 5)]
    pub(crate) timeout: u64,
    /// Wait until the server answers
    #[arg(long, global = true)]
    pub(crate) wait: bool,
    #[command(subcommand)]
    pub(crate) command: BuildctlCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BuildctlCommand {
    /// Show the disk usage of the cache
    Du(ListArguments),
    /// Remove parts of the cache
    Prune(PruneArguments),
    /// Look into a server
    Debug(DebugArguments),
    /// Connect standard input and output with the server
    #[command(hide = true)]
    DialStdio,
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

#[derive(Debug, Args)]
pub(crate) struct DebugArguments {
    #[command(subcommand)]
    pub(crate) command: DebugCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DebugCommand {
    /// Show the server's version
    Info(FormatArguments),
    /// List workers
    Workers(ListArguments),
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

#[derive(Debug, Args)]
pub(crate) struct FormatArguments {
    /// The format of the output: json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

impl FormatArguments {
    /// Returns the format, unless it is empty.
    pub(crate) fn get(&self) -> Option<&str> {
        self.format.as_deref().filter(|format| !format.is_empty())
    }
}

#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Filter in containerd's syntax; an item has to pass one of several
    #[arg(short, long, value_name = "FILTER")]
    pub(crate) filter: Vec<String>,
    /// Show everything about each item
    #[arg(short, long)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) format: FormatArguments,
}

#[derive(Debug, Args)]
pub(crate) struct PruneArguments {
    /// Time since their last use in which parts stay, as 24h
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    pub(crate) keep_duration: Duration,
    /// Megabytes that the cache may have at most
    #[arg(long, value_name = "MB", default_value_t = 0.0)]
    pub(crate) keep_storage: f64,
    /// Megabytes that the cache may have in any case
    #[arg(long, value_name = "MB", default_value_t = 0.0)]
    pub(crate) keep_storage_min: f64,
    /// Megabytes of the disk that stay free
    #[arg(long, value_name = "MB", default_value_t = 0.0)]
    pub(crate) free_storage: f64,
    /// Include what frontends and the server itself use
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) list: ListArguments,
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let nanoseconds = duration::parse(text)?;
    let nanoseconds = u64::try_from(nanoseconds).map_err(|_| "it is negative".to_owned())?;
    Ok(Duration::from_nanos(nanoseconds))
}

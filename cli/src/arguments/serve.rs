//! The arguments of `kiln serve`.

use std::path::PathBuf;

use clap::Args;

/// Serve BuildKit's API, for buildctl, docker buildx and whatever else drives BuildKit
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kiln serve --addr unix:///run/kiln/serve.sock
  buildctl --addr unix:///run/kiln/serve.sock build --frontend dockerfile.v0 --local context=. --local dockerfile=.
  docker buildx create --driver remote --name kiln unix:///run/kiln/serve.sock")]
pub(crate) struct ServeArguments {
    /// Address to listen on: `unix:///path/to/socket`, `tcp://HOST:PORT`, or `fd://` and `fd://NAME`
    /// for sockets that systemd passes; several are possible [default: `unix:///run/kiln/serve.sock`,
    /// without root `$XDG_RUNTIME_DIR/kiln/serve.sock`]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) addr: Vec<String>,
    /// Authority that signs the certificates of clients, for TCP
    #[arg(long, value_name = "FILE")]
    pub(crate) tlscacert: Option<PathBuf>,
    /// Certificate of the server
    #[arg(long, value_name = "FILE")]
    pub(crate) tlscert: Option<PathBuf>,
    /// Key of the server's certificate
    #[arg(long, value_name = "FILE")]
    pub(crate) tlskey: Option<PathBuf>,
    /// Allow TCP without TLS on a loopback address
    #[arg(long)]
    pub(crate) insecure_tcp: bool,
    /// End after this time without connections and builds, as 10m
    #[arg(long, value_name = "TIME")]
    pub(crate) idle_exit: Option<String>,
    /// Never remove parts of the cache in the background
    #[arg(long)]
    pub(crate) no_gc: bool,
    /// Most builds at once; others wait in their order [default: no limit]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_builds: Option<usize>,
    /// Most programs and file operations at once in all builds together [default: no limit]
    #[arg(long, value_name = "NUMBER", value_parser = parse_positive)]
    pub(crate) max_parallelism: Option<usize>,
    /// Group that may use the sockets, a name or a number
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// Configuration in the format of BuildKit's buildkitd.toml
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Right that clients may ask for: network.host or security.insecure
    #[arg(long, value_name = "RIGHT")]
    pub(crate) allow: Vec<String>,
    /// Label of this machine as a worker
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) label: Vec<String>,
    /// `true` for the places of buildkitd, if the user names no others.
    #[arg(skip)]
    pub(crate) is_buildkitd: bool,
}

fn parse_positive(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "it isn't a positive number".to_owned())
}

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
    /// Address to listen on, as `unix:///path/to/socket`; several are possible [default:
    /// `unix:///run/kiln/serve.sock`, without root `$XDG_RUNTIME_DIR/kiln/serve.sock`]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) addr: Vec<String>,
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
}

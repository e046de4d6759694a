//! The arguments of `kiln logout`.

use clap::Args;

/// Log out from a registry
///
/// Forgets what `kiln login` or `docker login` has kept for it. Without a server, logs out from
/// Docker Hub.
#[derive(Debug, Args)]
pub(crate) struct LogoutArguments {
    /// The registry's host, with its port where it has one
    #[arg(value_name = "SERVER")]
    pub(crate) server: Option<String>,
}

//! The arguments of `kiln login`.

use clap::Args;

/// Log in to a registry
///
/// Checks name and password against the registry and keeps them: with the credential helper that
/// docker's configuration names, else in that configuration itself. Without a server, logs in to
/// Docker Hub.
#[derive(Debug, Args)]
pub(crate) struct LoginArguments {
    /// The registry's host, with its port where it has one
    #[arg(value_name = "SERVER")]
    pub(crate) server: Option<String>,
    /// Name
    #[arg(short, long, value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// Password or token; others can read it in the list of processes
    #[arg(short, long, value_name = "PASSWORD")]
    pub(crate) password: Option<String>,
    /// Take the password from standard input
    #[arg(long)]
    pub(crate) password_stdin: bool,
}

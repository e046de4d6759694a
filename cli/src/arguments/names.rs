//! A container's name resolution: `--dns`, `--dns-search`, `--dns-option`.

use clap::Args;

/// The options that set the name resolution.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct NameArguments {
    /// Address of a name server, in place of the host's
    #[arg(long = "dns", value_name = "IP")]
    pub(crate) servers: Vec<String>,
    /// Domain to look names up in, in place of the host's; a dot alone for none
    #[arg(long = "dns-search", value_name = "DOMAIN")]
    pub(crate) search: Vec<String>,
    /// Option of the resolver, as ndots:2, in place of the host's
    #[arg(long = "dns-option", visible_alias = "dns-opt", value_name = "OPTION")]
    pub(crate) options: Vec<String>,
}

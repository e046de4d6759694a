//! The arguments of `kiln run`.

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgAction, Args, ValueEnum};

use super::confinement::ConfinementArguments;
use super::flags::truth;
use super::names::NameArguments;
use super::resources::ResourceArguments;
use super::runtime::RuntimeArguments;

/// Run a command in a new container
///
/// Prepares the image's files with a fresh layer on top, and runs the image's entrypoint and
/// command, or COMMAND, with its environment, user and working directory. The container and its
/// anonymous volumes are gone when the command ends; the exit status is the command's, 125 where
/// kiln itself fails, 126 and 127 where the command can't be executed or isn't there.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[command(disable_help_flag = true)]
#[command(override_usage = "kiln run [OPTIONS] IMAGE [COMMAND] [ARG...]")]
pub(crate) struct RunArguments {
    /// Print help; -h is the host name, as with docker
    #[arg(long, action = clap::ArgAction::Help)]
    pub(crate) help: Option<bool>,
    /// Remove the container at its end. Containers are never kept: this is for the habit's sake
    #[arg(long)]
    pub(crate) rm: bool,
    /// Pass standard input to the command
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set an environment variable; NAME alone takes it from the environment
    #[arg(short, long = "env", value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Read environment variables from a file, a line each; --env comes before it
    #[arg(long = "env-file", value_name = "FILE")]
    pub(crate) env_files: Vec<PathBuf>,
    /// Mount a directory or file of the host, or a named volume
    #[arg(short, long = "volume", value_name = "SRC:DST[:ro]")]
    pub(crate) volumes: Vec<String>,
    /// Mount a volume, a path of the host or a directory in memory, as type=bind,src=/a,dst=/b,ro
    #[arg(long = "mount", value_name = "KEY=VALUE,…")]
    pub(crate) mounts: Vec<String>,
    /// Mount an empty directory in memory; options are as size=64m, mode=700, exec
    #[arg(long = "tmpfs", value_name = "DST[:OPTIONS]")]
    pub(crate) tmpfs: Vec<String>,
    /// Make the container's files read-only, but for what is mounted
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Size of /dev/shm, as 64m
    #[arg(long, value_name = "SIZE")]
    pub(crate) shm_size: Option<String>,
    /// The privileges of the container
    #[command(flatten)]
    pub(crate) confinement: ConfinementArguments,
    /// The name servers of the container
    #[command(flatten)]
    pub(crate) names: NameArguments,
    /// Memory that is the last to be taken from the container where memory is short, as 64m
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_reservation: Option<String>,
    /// The readiness to swap memory of the container, from 0 to 100
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) memory_swappiness: Option<i64>,
    /// Have processes wait where the container's memory is used up, in place of killing one
    #[arg(long)]
    pub(crate) oom_kill_disable: bool,
    /// Pass on these alone of stdin, stdout and stderr
    #[arg(short, long, value_name = "STREAM")]
    pub(crate) attach: Vec<String>,
    /// Write the container's ID to a file that isn't there yet
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    /// Pass signals on to the command; with =false, they have their usual effect on kiln
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1)]
    #[arg(require_equals = true, default_value = "true", default_missing_value = "true")]
    #[arg(value_parser = truth, hide_default_value = true)]
    pub(crate) sig_proxy: bool,
    /// Expose a port in addition to the image's: --publish-all publishes it
    #[arg(long, value_name = "PORT[/udp]")]
    pub(crate) expose: Vec<String>,
    /// The resource limits of the container
    #[command(flatten)]
    pub(crate) resources: ResourceArguments,
    /// The runtime of the container
    #[command(flatten)]
    pub(crate) runtime: RuntimeArguments,
    /// Most processors' time, as 1.5
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpus: Option<f64>,
    /// Most processes and threads; -1 for no limit
    #[arg(long, value_name = "NUMBER")]
    pub(crate) pids_limit: Option<i64>,
    /// Resource limit, as `nofile=1024:2048`; -1 for none
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimits: Vec<String>,
    /// Add a line to /etc/hosts, as `name:address`; the address host-gateway is this machine's
    #[arg(long = "add-host", value_name = "HOST:IP")]
    pub(crate) add_hosts: Vec<String>,
    /// Working directory of the command
    #[arg(short, long, value_name = "DIR")]
    #[arg(value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub(crate) workdir: Option<PathBuf>,
    /// User, and group, of the command: names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Program to run in place of the image's entrypoint; the image's command is dropped with it
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Network of the container [default: bridge, or the host's where that can't be had]
    #[arg(long, value_enum)]
    pub(crate) network: Option<RunNetwork>,
    /// Publish a port of the container on the host; a range as 8000-8010. Without HOST, any port is
    /// taken, and said
    #[arg(short, long, value_name = "[[IP:][HOST]:]CONTAINER[/udp]")]
    pub(crate) publish: Vec<String>,
    /// Publish all ports that the image exposes on any ports of the host, which are said
    #[arg(short = 'P', long)]
    pub(crate) publish_all: bool,
    /// Host name of the container [default: its ID]
    #[arg(short = 'h', short_alias = 'H', long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Show nothing of how the image is pulled
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// NIS domain name of the container, which names in /etc/hosts get, too
    #[arg(long, value_name = "NAME")]
    pub(crate) domainname: Option<String>,
    /// The cases in which kiln asks the registry for the image
    #[arg(long, value_enum, default_value = "missing")]
    pub(crate) pull: Pull,
    /// Run the image for this platform [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", env = "DOCKER_DEFAULT_PLATFORM")]
    pub(crate) platform: Option<String>,
    /// Name or ID of the image, one that the store hasn't got is pulled; behind it the command in
    /// place of the image's command, with its arguments, none of which are for kiln
    #[arg(value_names = ["IMAGE", "COMMAND"], required = true, trailing_var_arg = true)]
    pub(crate) words: Vec<String>,
}

impl RunArguments {
    /// Returns the image's name or ID.
    pub(crate) fn image(&self) -> &str {
        self.words.first().map(String::as_str).unwrap_or_default()
    }

    /// Returns the command and its arguments; empty for the image's default command.
    pub(crate) fn command(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }
}

/// The network of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RunNetwork {
    /// One of its own, on a bridge with NAT
    #[value(alias = "default")]
    Bridge,
    /// The host's
    Host,
    /// A loopback device alone
    None,
}

/// The policy for pulling the image from its registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pull {
    /// If the store hasn't got it
    Missing,
    /// In any case
    Always,
    /// Not at all
    Never,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use crate::arguments::Arguments;

    #[test]
    fn every_option_is_described() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/run.md");
        let text = std::fs::read_to_string(path).unwrap();
        let words: Vec<&str> =
            text.split(|it: char| !(it.is_ascii_alphanumeric() || it == '-')).collect();
        let command = Arguments::command();
        let run = command.find_subcommand("run").unwrap();
        let options = run.get_arguments().filter(|option| !option.is_hide_set());
        let names = options.filter_map(clap::Arg::get_long).filter(|name| *name != "help");
        let missing: Vec<String> = names
            .map(|name| format!("--{name}"))
            .filter(|name| !words.contains(&name.as_str()))
            .collect();
        assert_eq!(
            missing, [""; 0],
            "docs/reference/run.md doesn't name all options of `kiln run`"
        );
    }
}

//! `--network`, `--publish` and `--expose`.

use anyhow::Result;
use kiln::container::ports;
use kiln::container::{NetworkKind, NetworkOptions};

use crate::arguments::run::{RunArguments, RunNetwork};
use crate::settings::hosts::parse_host;

/// Parses the arguments. Warns if they publish ports of a network that has none.
pub(super) fn network(arguments: &RunArguments, warn: &dyn Fn(&str)) -> Result<NetworkOptions> {
    let mut ports = Vec::new();
    for text in &arguments.publish {
        ports.extend(ports::parse(text)?);
    }
    let mut exposed = Vec::new();
    for text in &arguments.expose {
        exposed.extend(ports::expose(text)?);
    }
    let names = arguments.names.resolve()?;
    let hosts = arguments.add_hosts.iter().map(|text| parse_host(text));
    let hosts = hosts.collect::<Result<_>>()?;
    let publishes = !ports.is_empty() || arguments.publish_all;
    let discard = |name: &str| {
        if publishes {
            warn(&format!("published ports are discarded with --network={name}"));
        }
    };
    let kind = match arguments.network {
        Some(RunNetwork::Host) => {
            discard("host");
            NetworkKind::Host
        }
        Some(RunNetwork::None) => {
            discard("none");
            NetworkKind::None
        }
        asked => NetworkKind::Bridge { is_required: asked.is_some() || publishes },
    };
    let publish_all = arguments.publish_all;
    Ok(NetworkOptions { kind, ports, publish_all, exposed, hosts, names })
}

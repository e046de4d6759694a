//! The network of a container: `--network`, `--publish`, and the files in `/etc` that describe it.

#![expect(clippy::disallowed_methods, reason = "the file is the system's")]

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use kiln_llb::op::HOST_GATEWAY;
use kiln_oci::ContainerConfig;
use kiln_sandbox::network::{Bridge, NetworkNamespace, Port, Published};
use kiln_sandbox::{Mount, MountKind, Network};

use super::names::NameArguments;
use super::ports;
use crate::build::parse_host;
use crate::commands::run::{RunArguments, RunNetwork};
use crate::printer::Printer;
use crate::settings::Settings;

/// The requested network, ports and names.
pub(super) struct Plan {
    kind: Kind,
    ports: Vec<Port>,
    publish_all: bool,
    /// The ports of `--expose`, in addition to the image's.
    exposed: Vec<Port>,
    hosts: Vec<(String, String)>,
    resolv_conf: Vec<u8>,
    names: NameArguments,
}

enum Kind {
    Host,
    None,
    Bridge {
        bridge: Bridge,
        /// `true` if the run fails without a bridge; otherwise the container falls back to the
        /// host's network.
        required: bool,
    },
}

impl Plan {
    /// Checks the arguments and starts to prepare a bridge if the container needs one.
    pub(super) fn new(
        arguments: &RunArguments,
        settings: &Settings,
        printer: &Printer,
    ) -> Result<Self> {
        let mut ports = Vec::new();
        for text in &arguments.publish {
            ports.extend(ports::parse(text)?);
        }
        let mut exposed = Vec::new();
        for text in &arguments.expose {
            exposed.extend(ports::expose(text)?);
        }
        arguments.names.check()?;
        let hosts = arguments.add_hosts.iter().map(|text| parse_host(text));
        let publishes = !ports.is_empty() || arguments.publish_all;
        let discard = |name: &str| {
            if publishes {
                printer.note(format_args!(
                    "WARNING: published ports are discarded with --network={name}"
                ));
            }
        };
        let kind = match arguments.network {
            Some(RunNetwork::Host) => {
                discard("host");
                Kind::Host
            }
            Some(RunNetwork::None) => {
                discard("none");
                Kind::None
            }
            asked => {
                let bridge = settings.bridge()?;
                bridge.expect_step();
                bridge.prepare();
                Kind::Bridge { bridge, required: asked.is_some() || publishes }
            }
        };
        Ok(Self {
            kind,
            ports,
            publish_all: arguments.publish_all,
            exposed,
            names: arguments.names.clone(),
            hosts: hosts.collect::<Result<_>>()?,
            resolv_conf: settings.resolv_conf()?,
        })
    }

    /// Creates the network and publishes the ports.
    pub(super) async fn connect(
        mut self,
        image: &ContainerConfig,
        printer: &Printer,
    ) -> Result<Connected> {
        let connected = Connected {
            kind: Network::Host,
            namespace: None,
            _published: None,
            hosts: std::mem::take(&mut self.hosts),
            resolv_conf: self.names.apply(&self.resolv_conf),
        };
        let (bridge, required) = match &self.kind {
            Kind::Host => return Ok(connected),
            Kind::None => return Ok(Connected { kind: Network::None, ..connected }),
            Kind::Bridge { bridge, required } => (bridge, *required),
        };
        let namespace = match bridge.namespace_soon().await {
            Ok(namespace) => namespace,
            Err(error) if required => return Err(anyhow!(error).context("no bridge network")),
            Err(error) => {
                printer.note(format_args!(
                    "WARNING: the container uses the host's network: no bridge: {error}"
                ));
                return Ok(connected);
            }
        };
        if self.publish_all {
            self.exposed.extend(ports::exposed(image.exposed_ports.keys())?);
            for port in self.exposed {
                let is_same = |other: &Port| {
                    other.container == port.container && other.protocol == port.protocol
                };
                if !self.ports.iter().any(is_same) {
                    self.ports.push(port);
                }
            }
        }
        let mut published_ports = None;
        if !self.ports.is_empty() {
            let published = bridge.publish(&namespace, &self.ports).await?;
            for (port, endpoint) in self.ports.iter().zip(published.endpoints()) {
                if port.is_any() || port.host.len() > 1 {
                    printer.note(endpoint);
                }
            }
            published_ports = Some(published);
        }
        Ok(Connected {
            kind: Network::Namespace,
            resolv_conf: self.names.apply(namespace.resolv_conf()),
            namespace: Some(namespace),
            _published: published_ports,
            hosts: connected.hosts,
        })
    }
}

/// The network of a container. It must outlive the container.
pub(super) struct Connected {
    kind: Network,
    namespace: Option<NetworkNamespace>,
    _published: Option<Published>,
    hosts: Vec<(String, String)>,
    resolv_conf: Vec<u8>,
}

impl Connected {
    /// Returns the type of network for the specification.
    pub(super) fn kind(&self) -> Network {
        self.kind
    }

    /// Waits until the container can use the network.
    pub(super) async fn ready(&mut self) -> Result<()> {
        let Some(namespace) = &mut self.namespace else { return Ok(()) };
        namespace.ready().await.context("no bridge network")
    }

    /// Returns the network namespace for the sandbox; `None` without a bridge.
    pub(super) fn namespace(&self) -> Result<Option<OwnedFd>> {
        let namespace = self.namespace.as_ref();
        let fd = namespace.map(|namespace| namespace.fd().try_clone_to_owned()).transpose();
        fd.context("pass the network namespace on")
    }

    /// Returns `/etc/resolv.conf`, `/etc/hosts` and `/etc/hostname` as files that belong to the
    /// container.
    pub(super) fn files(&self, hostname: &str, domain: Option<&str>) -> Vec<Mount> {
        let files = [
            ("resolv.conf", self.resolv_conf.clone()),
            ("hosts", self.hosts_file(hostname, domain).into_bytes()),
            ("hostname", format!("{hostname}\n").into_bytes()),
        ];
        let mount = |(name, contents): (&str, Vec<u8>)| {
            let target = PathBuf::from("/etc").join(name);
            let kind = MountKind::File { contents, mode: 0o644, uid: 0, gid: 0, readonly: false };
            Mount { target, kind }
        };
        files.into_iter().map(mount).collect()
    }

    fn hosts_file(&self, hostname: &str, domain: Option<&str>) -> String {
        let own = self.namespace.as_ref();
        // On the host's network, the container knows the names of the host's file.
        let mut text = match own {
            None => std::fs::read_to_string("/etc/hosts").unwrap_or_default(),
            Some(_) => String::new(),
        };
        if !text.contains("localhost") {
            text.push_str("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        }
        let address = own.map_or(Ipv4Addr::LOCALHOST, NetworkNamespace::address);
        let domain = domain.filter(|domain| !domain.is_empty());
        let long = domain.map(|domain| format!("{hostname}.{domain} ")).unwrap_or_default();
        let mut text = format!("{}\n{address}\t{long}{hostname}\n", text.trim_end());
        for (name, address) in &self.hosts {
            let gateway = match own {
                _ if address != HOST_GATEWAY => address.clone(),
                Some(namespace) => namespace.gateway().to_string(),
                None if self.kind == Network::Host => Ipv4Addr::LOCALHOST.to_string(),
                // Without a network, the container can't reach the host.
                None => continue,
            };
            // Writing to a string can't fail.
            let _ = writeln!(text, "{gateway}\t{name}");
        }
        text
    }
}

//! The network of a container, and the files in `/etc` that describe it.

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

use super::spec::{NetworkKind, NetworkOptions};
use super::{Notice, ports};
use crate::engine::Options;

/// The network of a container before its image is known.
#[derive(Debug)]
pub(super) struct Plan {
    options: NetworkOptions,
    /// The bridge, if the container needs one.
    bridge: Option<Bridge>,
    resolv_conf: Vec<u8>,
}

impl Plan {
    /// Starts to prepare a bridge if the container needs one.
    pub(super) fn new(options: &NetworkOptions, engine: &Options) -> Result<Self> {
        let bridge = match options.kind {
            NetworkKind::Host | NetworkKind::None => None,
            NetworkKind::Bridge { .. } => {
                let bridge = engine.bridge()?;
                bridge.expect_step();
                bridge.prepare();
                Some(bridge)
            }
        };
        Ok(Self { options: options.clone(), bridge, resolv_conf: engine.resolv_conf()? })
    }

    /// Creates the network and publishes the ports.
    pub(super) async fn connect(
        self,
        image: &ContainerConfig,
        notices: &mut Vec<Notice>,
    ) -> Result<Connected> {
        let NetworkOptions { kind, mut ports, publish_all, mut exposed, hosts, names } =
            self.options;
        let connected = Connected {
            kind: Network::Host,
            namespace: None,
            _published: None,
            hosts,
            resolv_conf: names.apply(&self.resolv_conf),
        };
        let (bridge, required) = match (kind, &self.bridge) {
            (NetworkKind::Bridge { is_required }, Some(bridge)) => (bridge, is_required),
            (NetworkKind::None, _) => return Ok(Connected { kind: Network::None, ..connected }),
            _ => return Ok(connected),
        };
        let namespace = match bridge.namespace_soon().await {
            Ok(namespace) => namespace,
            Err(error) if required => return Err(anyhow!(error).context("no bridge network")),
            Err(error) => {
                let text = format!("the container uses the host's network: no bridge: {error}");
                notices.push(Notice::Warning(text));
                return Ok(connected);
            }
        };
        if publish_all {
            exposed.extend(ports::exposed(image.exposed_ports.keys())?);
            for port in exposed {
                let is_same = |other: &Port| {
                    other.container == port.container && other.protocol == port.protocol
                };
                if !ports.iter().any(is_same) {
                    ports.push(port);
                }
            }
        }
        let mut published_ports = None;
        if !ports.is_empty() {
            let published = bridge.publish(&namespace, &ports).await?;
            for (port, endpoint) in ports.iter().zip(published.endpoints()) {
                if port.is_any() || port.host.len() > 1 {
                    notices.push(Notice::Published(*endpoint));
                }
            }
            published_ports = Some(published);
        }
        Ok(Connected {
            kind: Network::Namespace,
            resolv_conf: names.apply(namespace.resolv_conf()),
            namespace: Some(namespace),
            _published: published_ports,
            hosts: connected.hosts,
        })
    }
}

/// The network of a container. It must outlive the container.
#[derive(Debug)]
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

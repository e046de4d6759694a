//! The networks of steps.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_event::{Event, Reporter};
use kiln_llb::op::NetMode;
use kiln_sandbox::Network;
use kiln_sandbox::network::{Bridge, NetworkNamespace};

use crate::error::{Error, Result};
use crate::worker::DefaultNetwork;

/// The provider of steps' networks. Cloning is cheap.
#[derive(Clone, Debug)]
pub(super) struct Networks {
    default: DefaultNetwork,
    /// The content of the host's `/etc/resolv.conf`.
    resolv_conf: Arc<[u8]>,
    /// `true` after the warning that there is no bridge.
    told: Arc<AtomicBool>,
}

/// The network of one step. It must live until the step ends.
#[derive(Debug)]
pub(super) enum StepNetwork {
    /// The host's network. The value is the content of `/etc/resolv.conf`.
    Host(Arc<[u8]>),
    /// No network. The value is the content of `/etc/resolv.conf`, which is the same as with the
    /// host's network.
    None(Arc<[u8]>),
    /// A network namespace of the step's own.
    Namespace(NetworkNamespace),
}

impl StepNetwork {
    /// Returns the kind of network for the sandbox's specification.
    pub(super) fn kind(&self) -> Network {
        match self {
            Self::Host(_) => Network::Host,
            Self::None(_) => Network::None,
            Self::Namespace(_) => Network::Namespace,
        }
    }

    /// Returns a descriptor of the network namespace for the sandbox.
    pub(super) fn fd(&self) -> Result<Option<OwnedFd>> {
        let Self::Namespace(namespace) = self else { return Ok(None) };
        let fd = namespace.fd().try_clone_to_owned();
        fd.map(Some).map_err(Error::kernel("pass on", "a network namespace"))
    }

    /// Returns the content of the step's `/etc/resolv.conf`.
    pub(super) fn resolv_conf(&self) -> &[u8] {
        match self {
            Self::Host(text) | Self::None(text) => text,
            Self::Namespace(namespace) => namespace.resolv_conf(),
        }
    }

    /// Returns the address under which the step reaches the host.
    pub(super) fn gateway(&self) -> Option<Ipv4Addr> {
        match self {
            Self::Host(_) => Some(Ipv4Addr::LOCALHOST),
            Self::None(_) => None,
            Self::Namespace(namespace) => Some(namespace.gateway()),
        }
    }
}

impl Networks {
    pub(super) fn new(default: DefaultNetwork, resolv_conf: Vec<u8>) -> Self {
        Self { default, resolv_conf: resolv_conf.into(), told: Arc::default() }
    }

    /// Announces a step that may run later.
    pub(super) fn expect(&self, mode: NetMode) {
        if let Some(bridge) = self.bridge(mode) {
            bridge.expect_step();
        }
    }

    /// Starts to prepare the network of a step that will run soon.
    pub(super) fn prepare(&self, mode: NetMode) {
        if let Some(bridge) = self.bridge(mode) {
            bridge.prepare();
        }
    }

    /// Returns the network of a step. If the bridge isn't available, the step gets the host's
    /// network, and the first such step sends a warning.
    pub(super) async fn get(&self, mode: NetMode, reporter: &Reporter) -> Result<StepNetwork> {
        let host = || StepNetwork::Host(Arc::clone(&self.resolv_conf));
        let bridge = match (mode, &self.default) {
            (NetMode::None, _) | (NetMode::Unset, DefaultNetwork::None) => {
                return Ok(StepNetwork::None(Arc::clone(&self.resolv_conf)));
            }
            (NetMode::Host, _) | (NetMode::Unset, DefaultNetwork::Host) => return Ok(host()),
            (NetMode::Unset, DefaultNetwork::Bridge(bridge)) => bridge,
        };
        let error = match bridge.namespace().await {
            Ok(namespace) => return Ok(StepNetwork::Namespace(namespace)),
            Err(error) => error,
        };
        if bridge.has_worked() {
            // A bridge has worked in this build, so steps may rely on isolation from the host.
            return Err(Error::Network(error));
        }
        if !self.told.swap(true, Ordering::Relaxed) {
            let message = format!("steps use the host's network: no bridge: {error}");
            reporter.events.send(Event::Warning { id: None, message, cause: None });
        }
        Ok(host())
    }

    fn bridge(&self, mode: NetMode) -> Option<&Bridge> {
        match (&self.default, mode) {
            (DefaultNetwork::Bridge(bridge), NetMode::Unset) => Some(bridge),
            _ => None,
        }
    }
}

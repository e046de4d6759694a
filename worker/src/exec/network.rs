//! The networks of steps.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_llb::op::NetMode;
use kiln_sandbox::Network;
use kiln_sandbox::network::{Bridge, NetworkNamespace};
use kiln_solver::{Event, StepContext};

use crate::error::{Error, Result};
use crate::worker::DefaultNetwork;

/// Gives steps their networks. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Networks {
    default: DefaultNetwork,
    /// The host's `/etc/resolv.conf`.
    resolv_conf: Arc<[u8]>,
    /// Whether it has been said that there is no bridge.
    told: Arc<AtomicBool>,
}

/// The network of one step; it has to live as long as the step runs.
#[derive(Debug)]
pub(super) enum StepNetwork {
    /// The host's, with its `/etc/resolv.conf`.
    Host(Arc<[u8]>),
    /// None; the file is what it would be otherwise.
    None(Arc<[u8]>),
    /// One of its own.
    Namespace(NetworkNamespace),
}

impl StepNetwork {
    /// Returns what the sandbox is told.
    pub(super) fn kind(&self) -> Network {
        match self {
            Self::Host(_) => Network::Host,
            Self::None(_) => Network::None,
            Self::Namespace(_) => Network::Namespace,
        }
    }

    /// Returns what the sandbox is given.
    pub(super) fn fd(&self) -> Result<Option<OwnedFd>> {
        let Self::Namespace(namespace) = self else { return Ok(None) };
        let fd = namespace.fd().try_clone_to_owned();
        fd.map(Some).map_err(Error::kernel("pass on", "a network namespace"))
    }

    /// Returns `/etc/resolv.conf`.
    pub(super) fn resolv_conf(&self) -> &[u8] {
        match self {
            Self::Host(text) | Self::None(text) => text,
            Self::Namespace(namespace) => namespace.resolv_conf(),
        }
    }

    /// Returns the host's address, seen from the step.
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

    /// Announces a step that may run.
    pub(super) fn expect(&self, mode: NetMode) {
        if let Some(bridge) = self.bridge(mode) {
            bridge.expect_step();
        }
    }

    /// Begins to prepare the network of a step that is about to run.
    pub(super) fn prepare(&self, mode: NetMode) {
        if let Some(bridge) = self.bridge(mode) {
            bridge.prepare();
        }
    }

    /// Returns the network of a step. Where the bridge can't be had, that is the host's, and said
    /// once.
    pub(super) async fn get(&self, mode: NetMode, context: &StepContext) -> Result<StepNetwork> {
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
            // A step that counts on being apart from the host isn't moved there.
            return Err(Error::Network(error));
        }
        if !self.told.swap(true, Ordering::Relaxed) {
            let message = format!("steps use the host's network: no bridge: {error}");
            context.events.send(Event::Warning { id: None, message });
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

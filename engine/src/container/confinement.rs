//! The privileges of a container, the namespaces that it shares with the host, and its devices.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use kiln_sandbox::cgroup::{DeviceAccess, DeviceRule, Membership};
use kiln_sandbox::{Mount, Network, Privileges, Security, SharedNamespaces, Spec, Sysctl};

/// The privileges, namespaces and devices of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// The sandbox's confinement, or none of it.
    pub security: Security,
    /// Capabilities, system calls and security modules.
    pub privileges: Privileges,
    /// The namespaces that the container shares with the host.
    pub shared: SharedNamespaces,
    /// Kernel parameters of the container's namespaces.
    pub sysctls: Vec<Sysctl>,
    /// Additional groups of the user: names or numbers.
    pub groups: Vec<String>,
    /// The priority at which the kernel kills the container if memory is short, from -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// `true` if a process beside the command passes signals on and reaps orphans.
    pub has_init: bool,
    /// Devices of the host.
    pub devices: Devices,
    /// `true` if the container has a `/dev/shm`.
    pub has_shared_memory: bool,
    /// Annotations for an OCI runtime.
    pub annotations: BTreeMap<String, String>,
}

impl Default for Confinement {
    fn default() -> Self {
        Self {
            security: Security::Sandbox,
            privileges: Privileges::default(),
            shared: SharedNamespaces::default(),
            sysctls: Vec::new(),
            groups: Vec::new(),
            oom_score_adj: None,
            has_init: false,
            devices: Devices::default(),
            has_shared_memory: true,
            annotations: BTreeMap::new(),
        }
    }
}

impl Confinement {
    /// Rejects network parameters for a container on the host's network. A container gets that
    /// network, too, if no bridge can be created.
    pub(super) fn check_network(&self, network: Network) -> Result<()> {
        let of_network = self.sysctls.iter().find(|sysctl| sysctl.name.starts_with("net."));
        match of_network {
            Some(Sysctl { name, .. }) if network == Network::Host => {
                bail!("--sysctl {name} takes a network of the container's own")
            }
            _ => Ok(()),
        }
    }

    /// Returns the devices that control groups let the container open.
    pub(super) fn device_access(&self) -> DeviceAccess {
        if self.security == Security::Privileged {
            DeviceAccess::Any
        } else {
            self.devices.access()
        }
    }

    /// Checks that control groups can enforce the device rules.
    pub(super) fn check_groups(&self, groups: &Membership) -> Result<()> {
        if self.security == Security::Privileged { Ok(()) } else { self.devices.check(groups) }
    }

    /// Applies the confinement to a specification.
    pub(super) fn apply(self, spec: &mut Spec) {
        spec.security = self.security;
        spec.privileges = self.privileges;
        spec.shared = self.shared;
        spec.sysctls = self.sysctls;
        spec.process.groups = self.groups;
        spec.process.oom_score_adj = self.oom_score_adj;
        spec.process.has_init = self.has_init;
        spec.mounts.extend(self.devices.mounts);
        spec.devices = self.devices.rules;
        if !self.has_shared_memory {
            spec.shm_size = None;
        }
        spec.annotations = self.annotations;
    }
}

/// The devices of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// Mounts of device nodes.
    pub mounts: Vec<Mount>,
    /// The devices that the container may open, with their permissions.
    pub rules: Vec<DeviceRule>,
    /// A flag that has no effect unless control groups enforce the rules.
    pub enforced: Option<String>,
}

impl Devices {
    /// Returns the device rules for control groups.
    fn access(&self) -> DeviceAccess {
        if self.rules.is_empty() {
            DeviceAccess::Harmless
        } else {
            DeviceAccess::Also(self.rules.clone())
        }
    }

    /// Fails if a flag needs control groups to enforce the rules, and they can't.
    ///
    /// # Errors
    /// Fails in that case. The error names the flag.
    pub fn check(&self, groups: &Membership) -> Result<()> {
        match &self.enforced {
            Some(flag) if !groups.filters_devices => bail!(
                "{flag} can't be enforced: it takes the devices controller of control groups version 1, or \
                 version 2 and the right to load a program for it, and this system lets kiln have neither"
            ),
            _ => Ok(()),
        }
    }
}

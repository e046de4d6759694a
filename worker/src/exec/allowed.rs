//! The entitlements of a build's steps.

use std::collections::BTreeMap;

use kiln_llb::op::{ExecOp, NetMode, SecurityMode};

use crate::error::{Error, Result};

/// The entitlements that the user has granted to a build. A Dockerfile can't grant them, and the
/// default has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// `true` allows `RUN --network=host`.
    pub host_network: bool,
    /// `true` allows `RUN --security=insecure`.
    pub insecure: bool,
    /// The CDI devices that steps may use.
    pub devices: AllowedDevices,
}

/// BuildKit's name of the entitlement to use the host's network.
pub const NETWORK_HOST: &str = "network.host";

/// BuildKit's name of the entitlement to run without the sandbox's restrictions.
pub const SECURITY_INSECURE: &str = "security.insecure";

/// BuildKit's name of the entitlement to use devices: all with the name alone, or those that follow
/// it, as `device=vendor.com/class=name`.
pub const DEVICE: &str = "device";

/// The CDI devices that steps may use, in addition to those that every build may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedDevices {
    /// `true` allows all devices.
    pub(crate) all: bool,
    /// The devices by the names that steps use, with the device's name for an alias.
    pub(crate) names: BTreeMap<String, Option<String>>,
}

impl AllowedDevices {
    /// Grants devices: `NAME`, `NAME,alias=ALIAS`, or all if the text is empty.
    ///
    /// # Errors
    /// Fails if the text has another form.
    pub fn grant(&mut self, text: &str) -> Result<()> {
        if text.is_empty() {
            self.all = true;
            return Ok(());
        }
        let (name, options) = text.split_once(',').unwrap_or((text, ""));
        let mut alias = None;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("alias", value)) => alias = Some(value.to_owned()),
                Some((key, _)) => {
                    return Err(Error::Invalid(format!("unknown device config key {key:?}")));
                }
                None => return Err(Error::Invalid(format!("invalid device config {option:?}"))),
            }
        }
        match alias {
            Some(alias) => self.names.insert(alias, Some(name.to_owned())),
            None => self.names.insert(name.to_owned(), None),
        };
        Ok(())
    }
}

impl Allowed {
    /// Returns an error if an op requires an entitlement that isn't granted.
    pub(super) fn check(&self, exec: &ExecOp) -> Result<()> {
        if exec.network == NetMode::Host && !self.host_network {
            return Err(Error::NotAllowed(NETWORK_HOST));
        }
        if exec.security == SecurityMode::Insecure && !self.insecure {
            return Err(Error::NotAllowed(SECURITY_INSECURE));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_right_is_for_itself() {
        let host = ExecOp { network: NetMode::Host, ..ExecOp::default() };
        let insecure = ExecOp { security: SecurityMode::Insecure, ..ExecOp::default() };
        let network = Allowed { host_network: true, ..Allowed::default() };
        let security = Allowed { insecure: true, ..Allowed::default() };
        assert!(Allowed::default().check(&ExecOp::default()).is_ok());
        assert!(network.check(&host).is_ok() && security.check(&insecure).is_ok());
        let refused = |allowed: &Allowed, exec| allowed.check(exec).unwrap_err().to_string();
        assert_eq!(refused(&security, &host), "network.host is not allowed");
        assert_eq!(refused(&network, &insecure), "security.insecure is not allowed");
    }
}

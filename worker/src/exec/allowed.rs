//! The entitlements of a build's steps.

use kiln_llb::op::{ExecOp, NetMode, SecurityMode};

use crate::error::{Error, Result};

/// The entitlements that the user has granted to a build. A Dockerfile can't grant them, and the
/// default has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// `true` allows `RUN --network=host`.
    pub host_network: bool,
    /// `true` allows `RUN --security=insecure`.
    pub insecure: bool,
}

/// BuildKit's name of the entitlement to use the host's network.
pub const NETWORK_HOST: &str = "network.host";

/// BuildKit's name of the entitlement to run without the sandbox's restrictions.
pub const SECURITY_INSECURE: &str = "security.insecure";

impl Allowed {
    /// Returns an error if an op requires an entitlement that isn't granted.
    pub(super) fn check(self, exec: &ExecOp) -> Result<()> {
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
        let network = Allowed { host_network: true, insecure: false };
        let security = Allowed { host_network: false, insecure: true };
        assert!(Allowed::default().check(&ExecOp::default()).is_ok());
        assert!(network.check(&host).is_ok() && security.check(&insecure).is_ok());
        let refused = |allowed: Allowed, exec| allowed.check(exec).unwrap_err().to_string();
        assert_eq!(refused(security, &host), "network.host is not allowed");
        assert_eq!(refused(network, &insecure), "security.insecure is not allowed");
    }
}

//! What steps may do only where who builds has allowed it.

use kiln_llb::op::{ExecOp, NetMode, SecurityMode};

use crate::error::{Error, Result};

/// What steps may do that a Dockerfile can't decide by itself; nothing of it by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// `RUN --network=host`.
    pub host_network: bool,
    /// `RUN --security=insecure`.
    pub insecure: bool,
}

/// The name of the right to the host's network, BuildKit's.
pub const NETWORK_HOST: &str = "network.host";

/// The name of the right to run without a sandbox's limits, BuildKit's.
pub const SECURITY_INSECURE: &str = "security.insecure";

impl Allowed {
    /// Refuses an op that asks for more.
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

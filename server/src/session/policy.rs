//! `PolicyVerifier`: the decisions of a client about the sources of its build.

use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    ResolveSourceMetaRequest, ResolveSourceMetaResponse,
};
use bollard_buildkit_proto::moby::buildkit::v1::sourcepolicy::PolicyAction;
use bollard_buildkit_proto::pb;
use prost::{Message, Oneof};
use tonic::metadata::MetadataMap;

use super::Session;
use super::error::{Error, Result};

const CHECK: &str = "/moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier/CheckPolicy";

#[derive(Clone, PartialEq, Message)]
struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    platform: Option<pb::Platform>,
    #[prost(message, optional, tag = "2")]
    source: Option<ResolveSourceMetaResponse>,
}

#[derive(Clone, PartialEq, Message)]
struct CheckResponse {
    #[prost(oneof = "Verdict", tags = "1, 2")]
    verdict: Option<Verdict>,
}

/// The answer of a client.
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Verdict {
    /// A decision.
    #[prost(message, tag = "1")]
    Decision(Decision),
    /// A request for more metadata of the source.
    #[prost(message, tag = "2")]
    Request(Box<ResolveSourceMetaRequest>),
}

/// The decision about a source.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Decision {
    /// The consequence for the source.
    #[prost(enumeration = "PolicyAction", tag = "1")]
    pub(crate) action: i32,
    /// The reasons for a denial.
    #[prost(message, repeated, tag = "2")]
    pub(crate) deny_messages: Vec<DenyMessage>,
    /// The new source of a conversion.
    #[prost(message, optional, tag = "3")]
    pub(crate) update: Option<pb::SourceOp>,
}

/// A reason for a denial.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct DenyMessage {
    #[prost(string, tag = "1")]
    pub(crate) message: String,
}

impl Session {
    /// Asks the client about a source. `source` holds what the client knows of it so far. Returns
    /// `None` for an answer that is neither a decision nor a request.
    ///
    /// # Errors
    /// Fails if the client does, and if it doesn't offer the method.
    pub(crate) async fn check_policy(
        &self,
        platform: Option<pb::Platform>,
        source: ResolveSourceMetaResponse,
    ) -> Result<Option<Verdict>> {
        if !self.supports(CHECK) {
            return Err(Error::Unsupported { method: CHECK.to_owned() });
        }
        let request = CheckRequest { platform, source: Some(source) };
        let call = async {
            let answer = self.unary::<_, CheckResponse>(CHECK, MetadataMap::new(), request).await;
            answer.map_err(|status| Error::call("check the source policy", status))
        };
        Ok(self.unless_closed(call).await?.verdict)
    }
}

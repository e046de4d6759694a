//! A client of `Control`: what `buildctl` asks a server.
//!
//! The answers are plain data. Messages that `bollard-buildkit-proto` knows in part only are defined
//! here (`messages`).

mod connection;
mod messages;
mod records;

use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::{
    DiskUsageRequest, InfoRequest, ListWorkersRequest, PruneRequest,
};
use futures_util::stream::{Stream, StreamExt as _};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

pub(crate) use messages::{BuilderVersion, Info};

pub use connection::{ClientTls, ConnectError, Endpoint, Identity};
pub use records::{Device, PruneRule, ServerVersion, UsageRecord, WorkerDescription};

/// The largest message that a server may send, in bytes.
const LARGEST: usize = 16 << 20;

/// The pause between two attempts to reach a server that isn't there yet.
const PAUSE: Duration = Duration::from_secs(1);

/// A connection to a server.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
}

/// An error of a call.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {message}")]
pub struct CallError {
    /// The call that has failed, in words.
    call: &'static str,
    /// The server's message.
    message: String,
}

impl CallError {
    fn new(call: &'static str, status: &Status) -> Self {
        let message = status.message();
        let message = if message.is_empty() { status.code().description() } else { message };
        Self { call, message: message.to_owned() }
    }
}

impl Client {
    /// Connects to a server.
    ///
    /// # Errors
    /// Fails if nothing listens there, or if the certificates don't fit.
    pub async fn connect(
        endpoint: &Endpoint,
        tls: Option<&ClientTls>,
    ) -> Result<Self, ConnectError> {
        Ok(Self { channel: connection::connect(endpoint, tls).await? })
    }

    /// Connects to a server that may not be there yet. Tries again until the server answers.
    ///
    /// # Errors
    /// Fails if the certificates are invalid, or if the server refuses to answer.
    pub async fn connect_when_ready(
        endpoint: &Endpoint,
        tls: Option<&ClientTls>,
    ) -> anyhow::Result<Self> {
        loop {
            match Self::connect(endpoint, tls).await {
                Ok(client) => match client.ask_version().await {
                    Ok(_) => return Ok(client),
                    // An answer, of a server without this call.
                    Err(status) if status.code() == Code::Unimplemented => return Ok(client),
                    Err(status) if status.code() == Code::Unavailable => {}
                    Err(status) => {
                        return Err(CallError::new("ask for the version", &status).into());
                    }
                },
                Err(ConnectError::Unreachable { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Returns the server's version.
    ///
    /// # Errors
    /// Fails if the server does.
    pub async fn version(&self) -> Result<ServerVersion, CallError> {
        self.ask_version().await.map_err(|status| CallError::new("ask for the version", &status))
    }

    async fn ask_version(&self) -> Result<ServerVersion, Status> {
        let path = PathAndQuery::from_static(crate::info::PATH);
        let answer: messages::Info = self.call(InfoRequest {}, path).await?;
        Ok(answer.version.map(ServerVersion::from).unwrap_or_default())
    }

    /// Returns the workers that pass one of the filters, or all without filters.
    ///
    /// # Errors
    /// Fails if a filter is invalid.
    pub async fn workers(&self, filter: Vec<String>) -> Result<Vec<WorkerDescription>, CallError> {
        let path = PathAndQuery::from_static("/moby.buildkit.v1.Control/ListWorkers");
        let answer = self.call(ListWorkersRequest { filter }, path).await;
        let answer: messages::Workers =
            answer.map_err(|status| CallError::new("list workers", &status))?;
        Ok(answer.record.into_iter().map(WorkerDescription::from).collect())
    }

    /// Returns the parts of the cache that pass one of the filters, or all without filters: the
    /// smallest first.
    ///
    /// # Errors
    /// Fails if a filter is invalid.
    pub async fn disk_usage(&self, filter: Vec<String>) -> Result<Vec<UsageRecord>, CallError> {
        let request = DiskUsageRequest { filter, age_limit: 0 };
        let answer = self.control().disk_usage(request).await;
        let answer = answer.map_err(|status| CallError::new("ask for the disk usage", &status))?;
        let mut records: Vec<UsageRecord> =
            answer.into_inner().record.into_iter().map(UsageRecord::from).collect();
        records.sort_by(|a, b| (a.size, &a.id).cmp(&(b.size, &b.id)));
        Ok(records)
    }

    /// Removes parts of the cache, and returns them as the server removes them.
    ///
    /// # Errors
    /// Fails if a filter is invalid. The stream fails if the server does.
    pub async fn prune(
        &self,
        rule: PruneRule,
    ) -> Result<impl Stream<Item = Result<UsageRecord, CallError>> + use<>, CallError> {
        let failed = |status: Status| CallError::new("prune", &status);
        let request = PruneRequest {
            filter: rule.filter,
            all: rule.all,
            keep_duration: i64::try_from(rule.keep_duration.as_nanos()).unwrap_or(i64::MAX),
            reserved_space: rule.reserved_space,
            max_used_space: rule.max_used_space,
            min_free_space: rule.min_free_space,
        };
        let answer = self.control().prune(request).await.map_err(failed)?;
        Ok(answer.into_inner().map(move |item| item.map(UsageRecord::from).map_err(failed)))
    }

    fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone()).max_decoding_message_size(LARGEST)
    }

    /// Makes a call whose answer is a message of [`messages`].
    async fn call<Q, A>(&self, request: Q, path: PathAndQuery) -> Result<A, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(LARGEST);
        let unready = |error| Status::unavailable(format!("the server is gone: {error}"));
        grpc.ready().await.map_err(unready)?;
        let codec = ProstCodec::<Q, A>::default();
        Ok(grpc.unary(Request::new(request), path, codec).await?.into_inner())
    }
}

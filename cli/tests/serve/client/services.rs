//! The services of a client's session.

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::health::health_server::{Health, HealthServer};
use bollard_buildkit_proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::{Secrets, SecretsServer};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use bollard_buildkit_proto::moby::filesync::packet::file_sync_server::{FileSync, FileSyncServer};
use bollard_buildkit_proto::moby::filesync::v1::auth_server::{Auth, AuthServer};
use bollard_buildkit_proto::moby::filesync::v1::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse,
    GetTokenAuthorityRequest, GetTokenAuthorityResponse, VerifyTokenAuthorityRequest,
    VerifyTokenAuthorityResponse,
};
use bollard_buildkit_proto::moby::sshforward::v1::ssh_server::{Ssh, SshServer};
use bollard_buildkit_proto::moby::sshforward::v1::{self as ssh, CheckAgentRequest};
use bollard_buildkit_proto::moby::upload::v1::upload_server::{Upload, UploadServer};
use bollard_buildkit_proto::moby::upload::v1::{self as upload};
use futures_util::stream::{self, StreamExt as _};
use tokio::sync::mpsc;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic::{Request, Response, Status, Streaming};

use super::Directories;
use super::content::Stores;
use super::files::{Patterns, Receiver, Sent, send, stream_of};

/// The files, secrets and stores that a client offers to a build.
#[derive(Clone, Default)]
pub(crate) struct Offer {
    /// The directories, by name.
    pub(crate) directories: Directories,
    /// The packets that the client sends in place of directories, by name.
    pub(crate) scripts: HashMap<String, Vec<Packet>>,
    /// The secrets, by ID.
    pub(crate) secrets: HashMap<String, Vec<u8>>,
    /// The IDs of agents, which answer with what they are sent in upper case.
    pub(crate) agents: Vec<String>,
    /// The files of `http://buildkit-session/`, by path.
    pub(crate) uploads: HashMap<String, Vec<u8>>,
    /// The logins, by host.
    pub(crate) logins: HashMap<String, (String, String)>,
    /// The stores of blobs.
    pub(crate) stores: Stores,
    /// The numbers of the exporters that send directories.
    pub(crate) local_exporters: Vec<usize>,
    /// `true` for a client that never reads what exporters send.
    pub(crate) is_stalled: bool,
    /// The key under which the server keeps directories between builds.
    pub(crate) shared_key: String,
}

impl Offer {
    /// Adds a directory.
    pub(crate) fn directory(mut self, name: &str, path: impl Into<PathBuf>) -> Self {
        self.directories.insert(name.to_owned(), path.into());
        self
    }

    /// Adds a secret.
    pub(crate) fn secret(mut self, id: &str, value: &str) -> Self {
        self.secrets.insert(id.to_owned(), value.as_bytes().to_vec());
        self
    }
}

/// The services of a session.
#[derive(Clone)]
pub(crate) struct Services {
    offer: Arc<Offer>,
    receiver: Receiver,
    requested: Arc<AtomicUsize>,
}

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = Pin<Box<dyn futures_util::Stream<Item = Result<T, Status>> + Send>>;

impl Services {
    pub(super) fn new(offer: Offer) -> Self {
        let receiver = Receiver::default();
        receiver.directories.lock().unwrap().extend(&offer.local_exporters);
        let receiver = Receiver { is_stalled: offer.is_stalled, ..receiver };
        Self { offer: Arc::new(offer), receiver, requested: Arc::default() }
    }

    /// Returns what the client gives.
    pub(crate) fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Returns the number of files that the server has requested from directories.
    pub(crate) fn requested(&self) -> usize {
        self.requested.load(Ordering::SeqCst)
    }

    pub(super) fn take(&self, exporter: usize) -> Sent {
        // The stream may end after the build.
        for _ in 0..100 {
            if let Some(sent) = self.receiver.sent.lock().unwrap().remove(&exporter) {
                return sent;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Sent::default()
    }

    pub(super) fn router(&self, mut server: Server) -> Router {
        server
            .add_service(HealthServer::new(self.clone()))
            .add_service(AuthServer::new(self.clone()))
            .add_service(SecretsServer::new(self.clone()))
            .add_service(SshServer::new(self.clone()))
            .add_service(UploadServer::new(self.clone()))
            .add_service(FileSyncServer::new(self.clone()))
            .add_service(self.receiver.clone())
            .add_service(self.offer.stores.clone())
    }
}

#[tonic::async_trait]
impl Health for Services {
    type WatchStream = Answers<HealthCheckResponse>;

    async fn check(&self, _: Request<HealthCheckRequest>) -> Answer<HealthCheckResponse> {
        Ok(Response::new(HealthCheckResponse { status: 1 }))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Answer<HealthListResponse> {
        Err(Status::unimplemented(""))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Answer<Self::WatchStream> {
        Err(Status::unimplemented(""))
    }
}

#[tonic::async_trait]
impl Auth for Services {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Answer<CredentialsResponse> {
        let login = self.offer.logins.get(&request.into_inner().host).cloned();
        let (username, secret) = login.unwrap_or_default();
        Ok(Response::new(CredentialsResponse { username, secret }))
    }

    async fn fetch_token(&self, _: Request<FetchTokenRequest>) -> Answer<FetchTokenResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get_token_authority(
        &self,
        _: Request<GetTokenAuthorityRequest>,
    ) -> Answer<GetTokenAuthorityResponse> {
        Err(Status::unimplemented(""))
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Answer<VerifyTokenAuthorityResponse> {
        Err(Status::unimplemented(""))
    }
}

#[tonic::async_trait]
impl Secrets for Services {
    async fn get_secret(&self, request: Request<GetSecretRequest>) -> Answer<GetSecretResponse> {
        let id = request.into_inner().id;
        let data = self.offer.secrets.get(&id).cloned();
        let data = data.ok_or_else(|| Status::not_found(format!("secret {id} not found")))?;
        Ok(Response::new(GetSecretResponse { data }))
    }
}

#[tonic::async_trait]
impl Ssh for Services {
    type ForwardAgentStream = Answers<ssh::BytesMessage>;

    async fn check_agent(
        &self,
        request: Request<CheckAgentRequest>,
    ) -> Answer<ssh::CheckAgentResponse> {
        let id = request.into_inner().id;
        if self.offer.agents.contains(&id) {
            return Ok(Response::new(ssh::CheckAgentResponse {}));
        }
        Err(Status::unknown(format!("unset ssh forward key {id}")))
    }

    async fn forward_agent(
        &self,
        request: Request<Streaming<ssh::BytesMessage>>,
    ) -> Answer<Self::ForwardAgentStream> {
        let answers = request.into_inner().map(|piece| {
            piece.map(|piece| ssh::BytesMessage { data: piece.data.to_ascii_uppercase() })
        });
        Ok(Response::new(answers.boxed()))
    }
}

#[tonic::async_trait]
impl Upload for Services {
    type PullStream = Answers<upload::BytesMessage>;

    async fn pull(
        &self,
        request: Request<Streaming<upload::BytesMessage>>,
    ) -> Answer<Self::PullStream> {
        let path = request.metadata().get("urlpath").and_then(|path| path.to_str().ok());
        let data = self.offer.uploads.get(path.unwrap_or_default()).cloned();
        let data = data.ok_or_else(|| Status::not_found("no such upload"))?;
        Ok(Response::new(stream::iter([Ok(upload::BytesMessage { data })]).boxed()))
    }
}

#[tonic::async_trait]
impl FileSync for Services {
    type DiffCopyStream = Answers<Packet>;
    type TarStreamStream = Answers<Packet>;

    async fn diff_copy(&self, request: Request<Streaming<Packet>>) -> Answer<Self::DiffCopyStream> {
        let name = request.metadata().get("dir-name").and_then(|name| name.to_str().ok());
        let name = name.unwrap_or_default().to_owned();
        if let Some(script) = self.offer.scripts.get(&name) {
            let packets = stream::iter(script.clone().into_iter().map(Ok));
            return Ok(Response::new(packets.chain(stream::pending()).boxed()));
        }
        let unknown = || Status::not_found(format!("no access allowed to dir {name:?}"));
        let root = self.offer.directories.get(&name).cloned().ok_or_else(unknown)?;
        let patterns = Patterns::of(request.metadata());
        let (answers, channel) = mpsc::channel(64);
        let requested = Arc::clone(&self.requested);
        tokio::spawn(async move {
            let count = send(root, patterns, request.into_inner(), answers).await;
            requested.fetch_add(count, Ordering::SeqCst);
        });
        Ok(Response::new(Box::pin(stream_of(channel))))
    }

    async fn tar_stream(&self, _: Request<Streaming<Packet>>) -> Answer<Self::TarStreamStream> {
        Err(Status::unimplemented(""))
    }
}

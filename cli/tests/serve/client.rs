//! A client of BuildKit's API: a connection, and a session with a client's services.

mod content;
mod files;
mod services;
mod watching;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use bollard_buildkit_proto::moby::buildkit::v1::{BytesMessage, SolveRequest, StatusRequest};
use futures_util::stream::{self, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::metadata::{MetadataKey, MetadataValue};
use tonic::transport::{Channel, Server};
use tonic::{Request, Status};

pub(crate) use self::content::{Blobs, ContentClient};
pub(crate) use self::files::{RawCodec, Sent, unpack};
pub(crate) use self::services::{Offer, Services};
pub(crate) use self::watching::Watched;

/// The largest message that a client accepts.
const LARGEST: usize = 16 << 20;

/// The methods that a client announces.
const METHODS: [&str; 16] = [
    "/moby.filesync.v1.FileSync/DiffCopy",
    "/moby.filesync.v1.FileSend/DiffCopy",
    "/moby.filesync.v1.Auth/Credentials",
    "/moby.filesync.v1.Auth/FetchToken",
    "/moby.buildkit.secrets.v1.Secrets/GetSecret",
    "/moby.sshforward.v1.SSH/CheckAgent",
    "/moby.sshforward.v1.SSH/ForwardAgent",
    "/moby.upload.v1.Upload/Pull",
    "/containerd.services.content.v1.Content/Info",
    "/containerd.services.content.v1.Content/List",
    "/containerd.services.content.v1.Content/Read",
    "/containerd.services.content.v1.Content/Status",
    "/containerd.services.content.v1.Content/Write",
    "/containerd.services.content.v1.Content/Abort",
    "/containerd.services.content.v1.Content/Delete",
    "/grpc.health.v1.Health/Check",
];

/// A client with a session. Dropping it ends the session.
pub(crate) struct Client {
    channel: Channel,
    /// The ID of the session.
    pub(crate) id: String,
    /// The services of the session.
    pub(crate) services: Services,
    _tasks: JoinSet<()>,
    _ended: DropGuard,
}

/// Returns a text that no other call returns.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}{}x{number}", std::process::id())
}

impl Client {
    /// Opens a session on a connection.
    pub(crate) async fn new(channel: Channel, offer: Offer) -> Self {
        let (id, services) = (unique("session"), Services::new(offer));
        let mut tasks = JoinSet::new();
        let (theirs, ours) = tokio::io::duplex(1 << 20);
        let router = services.router(Server::builder());
        tasks.spawn(async move {
            // The stream of connections doesn't end, or the services would.
            let connections = stream::iter([Ok::<_, io::Error>(theirs)]).chain(stream::pending());
            router.serve_with_incoming(connections).await.unwrap();
        });
        let (reader, mut writer) = tokio::io::split(ours);
        let outgoing = stream::unfold(reader, |mut reader| async {
            let mut data = vec![0; 64 << 10];
            let length = reader.read(&mut data).await.unwrap_or_default();
            data.truncate(length);
            (length > 0).then_some((BytesMessage { data }, reader))
        });
        // A service that waits for ever would keep the connection.
        let ended = CancellationToken::new();
        let outgoing = outgoing.take_until(ended.clone().cancelled_owned());
        let mut request = Request::new(outgoing);
        let mut add = |name: &str, value: &str| {
            let name: MetadataKey<_> = name.parse().unwrap();
            request.metadata_mut().append(name, value.parse().unwrap());
        };
        add("x-docker-expose-session-uuid", &id);
        add("x-docker-expose-session-name", "tests");
        add("x-docker-expose-session-sharedkey", &services.offer().shared_key);
        for method in METHODS {
            add("x-docker-expose-session-grpc-method", method);
        }
        let mut incoming = control(&channel).session(request).await.unwrap().into_inner();
        tasks.spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                if writer.write_all(&message.data).await.is_err() {
                    return;
                }
            }
        });
        Self { channel, id, services, _tasks: tasks, _ended: ended.drop_guard() }
    }

    /// Returns the service of builds.
    pub(crate) fn control(&self) -> ControlClient<Channel> {
        control(&self.channel)
    }

    /// Returns the service of clients' frontends.
    pub(crate) fn bridge(&self) -> LlbBridgeClient<Channel> {
        let client = LlbBridgeClient::new(self.channel.clone());
        client.max_decoding_message_size(LARGEST).max_encoding_message_size(LARGEST)
    }

    /// Builds with this session, and reads the progress to its end.
    pub(crate) async fn solve(
        &self,
        request: SolveRequest,
    ) -> (Result<HashMap<String, String>, Status>, Watched) {
        let mut request = request;
        if request.r#ref.is_empty() {
            request.r#ref = unique("build");
        }
        request.session.clone_from(&self.id);
        let reference = request.r#ref.clone();
        let (mut control, mut watching) = (self.control(), self.control());
        let watched = async move {
            let request = StatusRequest { r#ref: reference.clone() };
            match watching.status(request).await {
                Ok(messages) => Watched::read(reference, messages.into_inner()).await,
                Err(_) => Watched { reference, ..Watched::default() },
            }
        };
        let (solved, watched) = tokio::join!(control.solve(request), watched);
        (solved.map(|answer| answer.into_inner().exporter_response), watched)
    }

    /// Returns what an exporter has sent to the client.
    pub(crate) fn received(&self, exporter: usize) -> Sent {
        self.services.take(exporter)
    }
}

/// Returns the service of builds on a connection.
pub(crate) fn control(channel: &Channel) -> ControlClient<Channel> {
    let client = ControlClient::new(channel.clone());
    client.max_decoding_message_size(LARGEST).max_encoding_message_size(LARGEST)
}

/// Returns a request that belongs to a build.
pub(crate) fn of_build<T>(reference: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let name: MetadataValue<_> = reference.parse().unwrap();
    request.metadata_mut().insert("buildkit-controlapi-buildid", name);
    request
}

/// The directories that a client offers, by name.
pub(crate) type Directories = HashMap<String, PathBuf>;

/// A shared value that tasks change.
pub(crate) type Shared<T> = Arc<std::sync::Mutex<T>>;

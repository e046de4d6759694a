//! Tests of the beginning and the end of sessions.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bollard_buildkit_proto::health::health_client::HealthClient;
use bollard_buildkit_proto::health::health_server::{Health, HealthServer};
use bollard_buildkit_proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use bollard_buildkit_proto::moby::buildkit::v1::BytesMessage;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt as _, stream};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService};
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::Service;

use super::super::error::Error;
use super::super::registry::Sessions;
use super::{Client, messages, metadata, split};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const TIMEOUT: &str = "x-buildkit-session-health-custom-timeout";

/// A health service that stops to answer on demand.
#[derive(Clone, Default)]
struct Pulse {
    is_silent: Arc<AtomicBool>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Health for Pulse {
    type WatchStream = Answers<HealthCheckResponse>;

    async fn check(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if self.is_silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(HealthCheckResponse { status: 1 }))
    }

    async fn list(
        &self,
        _request: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn watch(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

async fn healthy(methods: &[&str], more: &[(&str, &str)]) -> (Client, Pulse) {
    let pulse = Pulse::default();
    let services = Server::builder().add_service(HealthServer::new(pulse.clone()));
    (Client::with_metadata(services, methods, more).await, pulse)
}

async fn within_a_second(ended: impl Future<Output = ()>) -> bool {
    tokio::time::timeout(Duration::from_secs(1), ended).await.is_ok()
}

#[tokio::test]
async fn a_session_has_the_properties_of_its_metadata() {
    let (client, _) = healthy(&["/moby.filesync.v1.FileSync/DiffCopy"], &[]).await;
    let session = &client.session;
    let properties = (session.id(), session.name(), session.shared_key());
    assert_eq!(properties, ("some-id", "a name", "a key"));
    assert!(session.supports("/moby.filesync.v1.FileSync/diffcopy"));
    assert!(session.supports("/MOBY.filesync.v1.FileSync/DIFFCOPY"));
    assert!(!session.supports("/moby.filesync.v1.FileSync/TarStream"));
    let found = client.sessions.get("prefix:some-id", Duration::ZERO).await.unwrap();
    assert!(found.is_same(session));
    assert!(session.secret("x").await.unwrap().is_none());
}

#[tokio::test]
async fn a_session_is_waited_for() {
    let sessions = Sessions::new().unwrap();
    let error = sessions.get("p:gone", Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(error.to_string(), "no active session for gone: context deadline exceeded");

    let waiting = sessions.get("late", Duration::from_secs(5));
    let arriving = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let incoming = stream::pending();
        sessions.accept_bytes(&metadata("late", &[], &[]), incoming).await.unwrap()
    };
    let (found, stream) = tokio::join!(waiting, arriving);
    assert_eq!(found.unwrap().id(), "late");
    drop(stream);
    assert!(sessions.get("late", Duration::from_millis(20)).await.is_err());
}

#[tokio::test]
async fn an_id_belongs_to_one_session_at_a_time() {
    let sessions = Sessions::new().unwrap();
    let metadata = metadata("one", &[], &[]);
    let first = sessions.accept_bytes(&metadata, stream::pending()).await.unwrap();
    let second = sessions.accept_bytes(&metadata, stream::pending()).await.unwrap_err();
    assert_eq!(second.code(), Code::AlreadyExists);
    let session = sessions.find("one").unwrap();
    assert!(!session.closed().is_cancelled());
    drop(first);
    assert!(session.closed().is_cancelled());
    let again = sessions.accept_bytes(&metadata, stream::pending()).await.unwrap();
    assert!(!sessions.find("one").unwrap().is_same(&session));
    drop(again);
    let empty = tonic::metadata::MetadataMap::new();
    let nameless = sessions.accept_bytes(&empty, stream::pending()).await;
    assert_eq!(nameless.unwrap_err().code(), Code::InvalidArgument);
    sessions.shut_down().await;
    let late = sessions.accept_bytes(&metadata, stream::pending()).await.unwrap_err();
    assert_eq!(late.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_session_ends_with_its_connection() {
    let (mut client, _) = healthy(&[], &[]).await;
    client.kill().await;
    assert!(within_a_second(client.session.closed().cancelled()).await);
    assert!(client.sessions.find("some-id").is_none());
    let call = client.session.credentials("host").await;
    assert!(call.unwrap().is_none(), "the client doesn't offer the method");
}

#[tokio::test]
async fn an_ended_session_fails_calls_under_way() {
    let (client, pulse) = healthy(&[CHECK], &[]).await;
    pulse.is_silent.store(true, Ordering::SeqCst);
    let session = client.session.clone();
    let call = session.unless_closed(async {
        let answer = session.unary::<HealthCheckRequest, HealthCheckResponse>(
            CHECK,
            tonic::metadata::MetadataMap::new(),
            HealthCheckRequest::default(),
        );
        answer.await.map_err(|status| Error::call("check", status))
    });
    let end = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        client.session.close();
    };
    let (result, ()) = tokio::join!(call, end);
    assert!(matches!(result.unwrap_err(), Error::Ended));
}

#[tokio::test]
async fn a_silent_client_loses_its_session() {
    let (client, pulse) = healthy(&[CHECK], &[(TIMEOUT, "1000")]).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(!client.session.closed().is_cancelled(), "healthy for two checks");
    pulse.is_silent.store(true, Ordering::SeqCst);
    let ended = client.session.closed().cancelled();
    assert!(tokio::time::timeout(Duration::from_secs(4), ended).await.is_ok());
}

#[tokio::test]
async fn a_client_without_health_service_is_not_checked() {
    let (client, pulse) = healthy(&[], &[(TIMEOUT, "1000")]).await;
    pulse.is_silent.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(!client.session.closed().is_cancelled());
}

/// The part of `Control` that accepts sessions.
#[derive(Clone)]
struct Control {
    sessions: Sessions,
}

impl NamedService for Control {
    const NAME: &'static str = "moby.buildkit.v1.Control";
}

impl Service<http::Request<Body>> for Control {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let sessions = self.sessions.clone();
        let service = tower::service_fn(move |request: Request<Streaming<BytesMessage>>| {
            let sessions = sessions.clone();
            async move {
                let (metadata, _, incoming) = request.into_parts();
                sessions.accept(&metadata, incoming).await.map(Response::new)
            }
        });
        let codec = ProstCodec::<BytesMessage, BytesMessage>::default();
        Box::pin(async move { Ok(Grpc::new(codec).streaming(service, request).await) })
    }
}

/// Connects a client to `Control` through a pipe. Returns the client and the task of the server.
async fn control(sessions: &Sessions) -> (ControlClient<Channel>, JoinSet<()>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let mut tasks = JoinSet::new();
    let services = Server::builder().add_service(Control { sessions: sessions.clone() });
    tasks.spawn(async move {
        let connections = stream::iter([Ok::<_, std::io::Error>(far)]).chain(stream::pending());
        services.serve_with_incoming(connections).await.unwrap();
    });
    let mut near = Some(TokioIo::new(near));
    let connector = tower::service_fn(move |_: Uri| {
        let near = near.take();
        async { near.ok_or_else(|| std::io::Error::other("one connection")) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    let channel = endpoint.connect_with_connector(connector).await.unwrap();
    (ControlClient::new(channel), tasks)
}

#[tokio::test]
async fn a_session_runs_inside_a_call() {
    let sessions = Sessions::new().unwrap();
    let (mut control, mut tasks) = control(&sessions).await;
    let (sender, outgoing) = mpsc::channel(16);
    let request = Request::from_parts(
        metadata("inside", &[CHECK], &[]),
        tonic::Extensions::new(),
        messages(outgoing),
    );
    let mut incoming = control.session(request).await.unwrap().into_inner();
    let session = sessions.get("inside", Duration::from_secs(5)).await.unwrap();

    // The client serves its services on a pipe that leads into the call.
    let (client, near) = tokio::io::duplex(64 * 1024);
    let pulse = Pulse::default();
    let services = Server::builder().add_service(HealthServer::new(pulse));
    tasks.spawn(async move {
        let connections = stream::iter([Ok::<_, std::io::Error>(client)]).chain(stream::pending());
        services.serve_with_incoming(connections).await.unwrap();
    });
    let (mut answers, mut calls) = split(near);
    tasks.spawn(async move {
        while let Ok(Some(message)) = incoming.message().await {
            calls.write_all(&message.data).await.unwrap();
        }
    });
    tasks.spawn(async move {
        while let Some(Ok(data)) = answers.next().await {
            // The borders of messages mean nothing.
            for half in data.chunks(data.len().div_ceil(2)) {
                let _ = sender.send(BytesMessage { data: half.to_vec() }).await;
            }
            let _ = sender.send(BytesMessage::default()).await;
        }
    });
    let mut client = HealthClient::new(session.channel());
    for _ in 0..3 {
        let answer = client.check(HealthCheckRequest::default()).await.unwrap();
        assert_eq!(answer.into_inner().status, 1);
    }
    // The client's process is gone.
    tasks.shutdown().await;
    drop(control);
    assert!(within_a_second(session.closed().cancelled()).await);
}

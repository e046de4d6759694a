//! Tests that play the client: its services run in this process, at the other end of a pipe.

mod content;
mod life;
mod receive;
mod send;
mod services;

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinSet;
use tonic::metadata::MetadataMap;
use tonic::transport::server::Router;

use super::{Session, Sessions};

/// A client whose services are connected to a server.
struct Client {
    sessions: Sessions,
    session: Session,
    tasks: JoinSet<()>,
}

impl Client {
    /// Starts a session with the client's services.
    async fn new(services: Router, methods: &[&str]) -> Self {
        Self::with_metadata(services, methods, &[]).await
    }

    async fn with_metadata(services: Router, methods: &[&str], more: &[(&str, &str)]) -> Self {
        let sessions = Sessions::new().unwrap();
        let (client, server) = tokio::io::duplex(64 * 1024);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // The stream of connections doesn't end, or the server would.
            let connections = stream::iter([Ok::<_, io::Error>(client)]).chain(stream::pending());
            services.serve_with_incoming(connections).await.unwrap();
        });
        let metadata = metadata("some-id", methods, more);
        let (incoming, mut outgoing) = split(server);
        let mut response = sessions.accept_bytes(&metadata, incoming).await.unwrap();
        tasks.spawn(async move {
            while let Some(Ok(message)) = response.next().await {
                if outgoing.write_all(&message.data).await.is_err() {
                    return;
                }
            }
        });
        let session = sessions.get("some-id", Duration::ZERO).await.unwrap();
        Self { sessions, session, tasks }
    }

    /// Breaks the client's connection.
    async fn kill(&mut self) {
        self.tasks.shutdown().await;
    }
}

/// Returns the metadata of a session.
fn metadata(id: &str, methods: &[&str], more: &[(&str, &str)]) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    let mut add = |key: &str, value: &str| super::call::append(&mut metadata, key, value).unwrap();
    add("X-Docker-Expose-Session-Uuid", id);
    add("X-Docker-Expose-Session-Name", "a name");
    add("X-Docker-Expose-Session-Sharedkey", "a key");
    for method in methods {
        add("X-Docker-Expose-Session-Grpc-Method", method);
    }
    for (key, value) in more {
        add(key, value);
    }
    metadata
}

/// Splits the server's end of a pipe into the messages of a request and a writer.
fn split(
    pipe: DuplexStream,
) -> (BoxStream<'static, io::Result<Bytes>>, tokio::io::WriteHalf<DuplexStream>) {
    let (reader, writer) = tokio::io::split(pipe);
    let messages = stream::try_unfold(reader, |mut reader| async {
        let mut message = vec![0; 10_000];
        let length = reader.read(&mut message).await?;
        message.truncate(length);
        Ok((length > 0).then(|| (message.into(), reader)))
    });
    (messages.boxed(), writer)
}

/// Returns the messages of a channel as a stream.
fn messages<T: Send + 'static>(
    mut channel: tokio::sync::mpsc::Receiver<T>,
) -> BoxStream<'static, T> {
    stream::poll_fn(move |context| channel.poll_recv(context)).boxed()
}

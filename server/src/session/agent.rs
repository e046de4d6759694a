//! `SSH`: the client's SSH agent on a local socket.

#![expect(clippy::disallowed_methods, reason = "the directory is kiln's own")]

use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard_buildkit_proto::moby::sshforward::v1::CheckAgentRequest;
use bollard_buildkit_proto::moby::sshforward::v1::ssh_client::SshClient;
use bytes::Bytes;
use futures_util::stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::Session;
use super::call::append;
use super::error::{Error, Result};
use super::messages::BytesMessage;

const CHECK: &str = "/moby.sshforward.v1.SSH/CheckAgent";
const FORWARD: &str = "/moby.sshforward.v1.SSH/ForwardAgent";
const KEY: &str = "buildkit.ssh.id";
/// The agent of a mount without an ID.
const DEFAULT: &str = "default";
/// The name of the socket in its directory.
const SOCKET: &str = "agent.sock";
/// The number of connections at a time. Others wait.
const CONNECTIONS: usize = 64;
/// The number of bytes that are read from a connection at a time.
const PIECE: usize = 16 * 1024;

/// A local socket whose connections lead to an SSH agent of the client. Dropping it removes the
/// socket and ends the connections.
#[derive(Debug)]
pub struct Agent {
    socket: PathBuf,
    _tasks: JoinSet<()>,
}

impl Session {
    /// Checks that the client has an SSH agent, and opens a socket for it in `directory`, an empty
    /// directory that only kiln can reach. An empty ID means `default`.
    ///
    /// # Errors
    /// Fails if the client has no such agent, or if the socket can't be created.
    pub async fn agent(&self, id: &str, directory: &Path) -> Result<Agent> {
        self.require(FORWARD)?;
        let id = if id.is_empty() { DEFAULT } else { id };
        if self.supports(CHECK) {
            let mut client = SshClient::new(self.channel());
            let check = client.check_agent(CheckAgentRequest { id: id.to_owned() });
            let check = async { check.await.map_err(|status| failed(id, status)) };
            self.unless_closed(check).await?;
        }
        let mut metadata = MetadataMap::new();
        append(&mut metadata, KEY, id)?;
        let socket = directory.join(SOCKET);
        let listener = listen(directory).map_err(|source| Error::Io {
            action: "listen on",
            path: socket.clone(),
            source,
        })?;
        let session = self.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { session.serve(listener, metadata).await });
        Ok(Agent { socket, _tasks: tasks })
    }

    /// Forwards connections until the session ends.
    async fn serve(&self, listener: UnixListener, metadata: MetadataMap) {
        let mut connections = JoinSet::new();
        let free = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            // The semaphore is never closed.
            let Ok(permit) = free.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = self.closed().cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            while connections.try_join_next().is_some() {}
            let Ok((connection, _)) = accepted else { continue };
            let (session, metadata) = (self.clone(), metadata.clone());
            connections.spawn(async move {
                let forward = session.unless_closed(session.forward(connection, metadata)).await;
                if let Err(error) = forward {
                    tracing::debug!(%error, "a connection to an SSH agent failed");
                }
                drop(permit);
            });
        }
    }

    /// Forwards one connection until both directions have ended.
    async fn forward(&self, connection: UnixStream, metadata: MetadataMap) -> Result<()> {
        let (reader, writer) = connection.into_split();
        let (sender, mut pieces) = mpsc::channel(1);
        let pieces = stream::poll_fn(move |context| pieces.poll_recv(context));
        let call = self.stream::<_, BytesMessage>(FORWARD, metadata, pieces);
        let receive = async {
            let mut answers = call.await.map_err(|status| failed("", status))?;
            write_all(&mut answers, writer).await
        };
        let ((), received) = tokio::join!(send_all(reader, sender), receive);
        received
    }
}

/// Sends what the program on this machine writes.
async fn send_all(mut reader: OwnedReadHalf, pieces: mpsc::Sender<BytesMessage>) {
    let mut buffer = vec![0; PIECE];
    loop {
        let read = tokio::select! {
            () = pieces.closed() => return,
            read = reader.read(&mut buffer) => read,
        };
        match read {
            Ok(length) if length > 0 => {
                let data = Bytes::copy_from_slice(&buffer[..length]);
                // A failure is seen by the next `closed`.
                let _ = pieces.send(BytesMessage { data }).await;
            }
            _ => return,
        }
    }
}

/// Writes what the client's agent answers.
async fn write_all(
    answers: &mut tonic::Streaming<BytesMessage>,
    mut writer: OwnedWriteHalf,
) -> Result<()> {
    while let Some(answer) = answers.message().await.map_err(|status| failed("", status))? {
        if writer.write_all(&answer.data).await.is_err() {
            return Ok(());
        }
    }
    // The program may have closed its end.
    let _ = writer.shutdown().await;
    Ok(())
}

fn failed(id: &str, status: Status) -> Error {
    Error::call(format!("connect to SSH agent {id:?}"), status)
}

/// Listens on the socket in `directory`.
fn listen(directory: &Path) -> io::Result<UnixListener> {
    // The name of a socket has at most 107 bytes. The name of a descriptor is short.
    let opened = std::fs::File::open(directory)?;
    let short = format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd());
    UnixListener::bind(short).or_else(|_| UnixListener::bind(directory.join(SOCKET)))
}

impl Agent {
    /// Returns the path of the socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // The directory may be gone.
        let _ = std::fs::remove_file(&self.socket);
    }
}

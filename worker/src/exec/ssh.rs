//! Forwarding of SSH agents to steps.
//!
//! A step gets a socket of its own, with the owner and mode of its mount. kiln relays the messages
//! one by one. It passes only two requests to the agent: the list of keys, and a signature. It
//! answers all other requests, such as adding, removing or locking keys, with a failure, as
//! BuildKit does. The socket is removed with the step.

#![expect(clippy::disallowed_methods, reason = "the socket is kiln's own")]

use std::collections::BTreeMap;
use std::fmt;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_llb::op::SshMount;
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::error::{Error, Result};

/// The agent ID of mounts without one.
const DEFAULT: &str = "default";
/// The maximum size of a message in bytes, equal to that of agents.
const MAX_MESSAGE: u32 = 256 << 10;
/// The types of the relayed requests: list identities, and sign.
const PASSED_ON: [u8; 2] = [11, 13];
/// The response to all other requests: a message of one byte, failure.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];

/// The SSH agents of a build: sockets of this machine, or those of a client.
pub trait AgentSources: fmt::Debug + Send + Sync {
    /// Returns the socket of an agent, or `None` if there is no agent of this ID. The socket must
    /// exist as long as the build runs. May block.
    ///
    /// # Errors
    /// Fails if the agent can't be reached.
    fn socket(&self, id: &str) -> Result<Option<PathBuf>>;
}

impl AgentSources for BTreeMap<String, PathBuf> {
    fn socket(&self, id: &str) -> Result<Option<PathBuf>> {
        Ok(self.get(id).cloned())
    }
}

/// The agents that steps ask for.
#[derive(Clone, Debug)]
pub(super) struct Agents(Arc<dyn AgentSources>);

/// A socket that relays to an agent until it is dropped.
#[derive(Debug)]
pub(super) struct Forwarding {
    socket: PathBuf,
    _relay: JoinSet<()>,
}

impl Agents {
    pub(super) fn new(agents: Arc<dyn AgentSources>) -> Self {
        Self(agents)
    }

    /// Creates a socket for a step in `directory`. Returns `None` if there is no such agent, or if it
    /// can't be reached, and the mount is optional. Must be called within a Tokio runtime.
    pub(super) fn forward(&self, mount: &SshMount, directory: &Path) -> Result<Option<Forwarding>> {
        let id = if mount.id.is_empty() { DEFAULT } else { &mount.id };
        let agent = match self.0.socket(id) {
            Err(_) if mount.optional => return Ok(None),
            found => found?,
        };
        match agent {
            Some(agent) => Forwarding::start(agent, mount, directory)
                .map(Some)
                .map_err(Error::kernel("forward ssh agent", id)),
            None if mount.optional => Ok(None),
            None => Err(Error::NoAgent(id.to_owned())),
        }
    }
}

impl Forwarding {
    fn start(agent: PathBuf, mount: &SshMount, directory: &Path) -> io::Result<Self> {
        let socket = directory.join("agent");
        let listener = bind(directory, "agent")?;
        std::fs::set_permissions(&socket, Permissions::from_mode(mount.mode & 0o777))?;
        let (uid, gid) = (Uid::from_raw(mount.uid), Gid::from_raw(mount.gid));
        rustix::fs::chown(&socket, Some(uid), Some(gid))?;
        let mut relay = JoinSet::new();
        relay.spawn(serve(listener, agent));
        Ok(Self { socket, _relay: relay })
    }

    /// Returns the path of the step's socket.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }
}

/// Binds a socket in a directory whose path may exceed the limit of socket addresses.
fn bind(directory: &Path, name: &str) -> io::Result<UnixListener> {
    use std::os::fd::AsRawFd;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(CWD, directory, flags, Mode::empty())?;
    UnixListener::bind(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
}

async fn serve(listener: UnixListener, agent: PathBuf) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { return };
                let agent = agent.clone();
                connections.spawn(async move {
                    // The client and the agent notice the end of the connection.
                    let _ = relay(client, &agent).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Relays requests until the client closes the connection.
async fn relay(mut client: UnixStream, agent: &Path) -> io::Result<()> {
    let mut agent = UnixStream::connect(agent).await?;
    loop {
        let request = receive(&mut client).await?;
        if request.get(4).is_some_and(|kind| PASSED_ON.contains(kind)) {
            agent.write_all(&request).await?;
            client.write_all(&receive(&mut agent).await?).await?;
        } else {
            client.write_all(&FAILURE).await?;
        }
    }
}

/// Receives a message, including its length prefix.
async fn receive(from: &mut UnixStream) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    if length > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = length.to_be_bytes().to_vec();
    from.take(length.into()).read_to_end(&mut message).await?;
    if message.len() as u64 != u64::from(length) + 4 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    use super::*;

    fn mount(id: &str, optional: bool) -> SshMount {
        let owner = std::fs::metadata("/proc/self").unwrap();
        let (uid, gid) = (owner.uid(), owner.gid());
        SshMount { id: id.to_owned(), uid, gid, mode: 0o640, optional }
    }

    #[tokio::test]
    async fn keys_can_be_used_and_not_changed() {
        let temp = tempfile::tempdir().unwrap();
        let agent = temp.path().join("real");
        let listener = UnixListener::bind(&agent).unwrap();
        let mut tasks = JoinSet::new();
        // Answers a request with the request itself and a mark.
        tasks.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            while let Ok(mut request) = receive(&mut stream).await {
                request.push(b'!');
                request[3] += 1;
                stream.write_all(&request).await.unwrap();
            }
        });
        let directory = temp.path().join("long".repeat(50));
        std::fs::create_dir(&directory).unwrap();
        let agents = Agents::new(Arc::new(BTreeMap::from([("default".to_owned(), agent)])));
        let forwarding = agents.forward(&mount("", false), &directory).unwrap().unwrap();
        let metadata = std::fs::metadata(forwarding.socket()).unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.mode() & 0o7777, 0o640);

        std::os::unix::fs::symlink(forwarding.socket(), temp.path().join("s")).unwrap();
        let mut client = UnixStream::connect(temp.path().join("s")).await.unwrap();
        for (request, answer) in [
            (&[0, 0, 0, 1, 11][..], &[0, 0, 0, 2, 11, b'!'][..]),
            (&[0, 0, 0, 2, 13, 7], &[0, 0, 0, 3, 13, 7, b'!']),
            // A request to remove all keys, an extension, and an empty message.
            (&[0, 0, 0, 1, 19], &FAILURE),
            (&[0, 0, 0, 1, 27], &FAILURE),
            (&[0, 0, 0, 0], &FAILURE),
            (&[0, 0, 0, 1, 11], &[0, 0, 0, 2, 11, b'!']),
        ] {
            client.write_all(request).await.unwrap();
            assert_eq!(receive(&mut client).await.unwrap(), answer, "{request:?}");
        }
        client.write_all(&[255; 8]).await.unwrap();
        assert!(receive(&mut client).await.is_err(), "a message without end");
        drop(forwarding);
        tokio::task::yield_now().await;
        assert!(UnixStream::connect(temp.path().join("s")).await.is_err());
    }

    #[test]
    fn a_missing_agent_matters_unless_optional() {
        let agents = Agents::new(Arc::new(BTreeMap::new()));
        assert!(agents.forward(&mount("a", true), Path::new("/")).unwrap().is_none());
        let error = agents.forward(&mount("a", false), Path::new("/")).unwrap_err();
        assert_eq!(error.to_string(), "ssh agent a: not found");
    }
}

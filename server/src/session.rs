//! The session of a client: services that the client offers, and that the server calls back.
//!
//! A client opens one stream, `Control.Session`, and serves gRPC inside it. The stream is a plain
//! pipe of bytes: the borders of its messages mean nothing. Inside the pipe the roles are swapped.
//! The server starts an HTTP/2 connection as its client, without TLS and without an upgrade, and
//! calls the services that the client has listed in the metadata of the stream:
//!
//! | service | method of [`Session`] |
//! | --- | --- |
//! | `FileSync` | [`sync_directory`](Session::sync_directory) |
//! | `FileSend` | [`send_directory`](Session::send_directory), [`send_file`](Session::send_file) |
//! | `Auth` | [`credentials`](Session::credentials), [`fetch_token`](Session::fetch_token) and others |
//! | `Secrets` | [`secret`](Session::secret) |
//! | `SSH` | [`agent`](Session::agent) |
//! | `Upload` | [`upload`](Session::upload) |
//! | containerd's `Content` | [`content`](Session::content) |
//! | `Exporter` | [`find_exporters`](Session::find_exporters), [`finalize_export`](Session::finalize_export) |
//! | `PolicyVerifier` | `check_policy` |
//! | `Health` | called every 5 s by [`Sessions`] |
//!
//! Other services are called through [`Session::channel`].
//!
//! # Life of a session
//!
//! [`Sessions::accept`] starts a session and registers it under the ID that the client chose. A
//! build may arrive before the session that it names, so [`Sessions::get`] waits. The session ends
//! when the client closes the stream or its connection breaks, when two health checks in a row
//! fail, or by [`Session::close`]. Then [`Session::closed`] is cancelled, every call that is under way
//! fails with [`Error::Ended`], and the ID is free again.
//!
//! # Trust
//!
//! The client is hostile. Messages have a maximal size, queues between a stream and a thread have a
//! maximal length, so a client that reads or writes slowly costs no memory. Paths that the client
//! names are resolved below an open directory without following links; see
//! [`Session::sync_directory`] for the checks.

mod agent;
mod auth;
mod call;
mod content;
mod error;
mod existing;
mod exporter;
mod health;
mod messages;
mod pipe;
mod policy;
mod receive;
mod registry;
mod secret;
mod send;
mod send_file;
pub(crate) mod stat;
mod sync;
#[cfg(test)]
mod tests;
mod upload;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

pub use agent::Agent;
pub use auth::{Token, TokenRequest};
pub use content::{Committed, ContentInfo, ContentStatus, ContentStore, ContentWriter};
pub use error::{Error, Result};

pub use pipe::SessionStream;
#[cfg(test)]
pub(crate) use policy::DenyMessage;
pub(crate) use policy::{Decision, Verdict};
pub use receive::{Progress, Synced};
pub use registry::Sessions;
pub use send::{Content, OutgoingEntry};
pub use send_file::{BlockingFileSender, FileSender, Sent};
pub use sync::{SyncRequest, SyncTarget};
pub use upload::Upload;

/// The connection to a client's services. Cloning is cheap.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
}

struct Shared {
    id: String,
    name: String,
    directory_key: String,
    /// The paths of the methods that the client serves, in lower case.
    methods: HashSet<String>,
    channel: Channel,
    ended: CancellationToken,
    /// The random value of this server from which clients derive their token keys.
    salt: [u8; 32],
}

impl Session {
    /// Returns the ID that the client chose.
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// Returns the name that the client gave the session. It may be empty.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Returns the key by which builds of the same client share transferred directories. It may be
    /// empty.
    pub fn shared_key(&self) -> &str {
        &self.shared.directory_key
    }

    /// Returns `true` if the client serves a method, given as `/package.Service/Method`. The case
    /// of letters is ignored, as in BuildKit.
    pub fn supports(&self, method: &str) -> bool {
        self.shared.methods.contains(&method.to_lowercase())
    }

    /// Returns the token that is cancelled when the session ends.
    pub fn closed(&self) -> &CancellationToken {
        &self.shared.ended
    }

    /// Ends the session. The client sees the end of its stream.
    pub fn close(&self) {
        self.shared.ended.cancel();
    }

    /// Returns the connection, for services that have no method here.
    pub fn channel(&self) -> Channel {
        self.shared.channel.clone()
    }

    /// Returns `true` if both are the same connection.
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Waits for a call, or for the end of the session.
    async fn unless_closed<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.shared.ended.cancelled() => Err(Error::Ended),
            result = call => result,
        }
    }

    /// Fails if the client doesn't serve `method`.
    fn require(&self, method: &str) -> Result<()> {
        if self.supports(method) {
            return Ok(());
        }
        Err(Error::Unsupported { method: method.to_owned() })
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.shared.id).finish_non_exhaustive()
    }
}

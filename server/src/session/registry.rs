//! The sessions of a server.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::BytesMessage;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use hyper_util::rt::TokioIo;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Status, Streaming};

use super::error::{Error, Result};
use super::health::HealthCheck;
use super::pipe::{self, SessionStream};
use super::{Session, Shared};

const ID: &str = "x-docker-expose-session-uuid";
const NAME: &str = "x-docker-expose-session-name";
const SHARED_KEY: &str = "x-docker-expose-session-sharedkey";
const METHOD: &str = "x-docker-expose-session-grpc-method";

/// The number of bytes that a client may send in one call before the server has read them.
const STREAM_WINDOW: u32 = 1 << 20;
/// The number of bytes that a client may send in all calls before the server has read them. The
/// HTTP/2 library derives from this window how many small messages may wait, and closes connections
/// that exceed it. A directory is a list of small messages: this window is enough for ten calls that
/// wait with their windows full of them.
const CONNECTION_WINDOW: u32 = 64 << 20;

/// The sessions of a server. Cloning is cheap.
#[derive(Clone)]
pub struct Sessions {
    shared: Arc<Registry>,
}

struct Registry {
    sessions: Mutex<HashMap<String, Session>>,
    arrived: Notify,
    tasks: TaskTracker,
    salt: [u8; 32],
}

impl Sessions {
    /// Creates an empty registry.
    ///
    /// # Errors
    /// Fails if the system has no random numbers.
    pub fn new() -> io::Result<Self> {
        let mut salt = [0; 32];
        let random = SystemRandom::new().fill(&mut salt);
        random.map_err(|_| io::Error::other("the system has no random numbers"))?;
        let registry = Registry {
            sessions: Mutex::default(),
            arrived: Notify::new(),
            tasks: TaskTracker::new(),
            salt,
        };
        Ok(Self { shared: Arc::new(registry) })
    }

    /// Starts the session of a call to `Control.Session`, with the metadata and the messages of the
    /// call. Returns the messages of the response. The session is registered when this returns.
    ///
    /// # Errors
    /// Fails if the metadata has no ID, or if a session with the same ID exists.
    pub async fn accept(
        &self,
        metadata: &MetadataMap,
        incoming: Streaming<BytesMessage>,
    ) -> Result<SessionStream, Status> {
        let incoming = incoming.map(|message| match message {
            Ok(message) => Ok(Bytes::from(message.data)),
            Err(status) => Err(io::Error::other(status)),
        });
        self.accept_bytes(metadata, incoming).await
    }

    /// Does the same as [`Sessions::accept`] for any stream of bytes.
    ///
    /// # Errors
    /// Fails if the metadata has no ID, or if a session with the same ID exists.
    pub async fn accept_bytes(
        &self,
        metadata: &MetadataMap,
        incoming: impl Stream<Item = io::Result<Bytes>> + Send + Unpin + 'static,
    ) -> Result<SessionStream, Status> {
        let text = |key| metadata.get(key).and_then(|value| value.to_str().ok());
        let id = text(ID).filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| Status::invalid_argument(format!("{ID} is missing")))?;
        let methods: HashSet<String> = metadata
            .get_all(METHOD)
            .iter()
            .filter_map(|method| method.to_str().ok())
            .map(str::to_lowercase)
            .collect();
        let ended = CancellationToken::new();
        let (pipe, stream) = pipe::pipe(incoming, &ended);
        let shared = Shared {
            id: id.to_owned(),
            name: text(NAME).unwrap_or_default().to_owned(),
            directory_key: text(SHARED_KEY).unwrap_or_default().to_owned(),
            methods,
            channel: connect(pipe).await?,
            ended,
            salt: self.shared.salt,
        };
        self.register(Session { shared: Arc::new(shared) }, HealthCheck::from_metadata(metadata))?;
        Ok(stream)
    }

    /// Returns the session with an ID. Waits up to `patience` for the session to arrive. The ID may
    /// have a prefix that ends with a colon, which is ignored.
    ///
    /// # Errors
    /// Fails if the session didn't arrive in time.
    pub async fn get(&self, id: &str, patience: Duration) -> Result<Session> {
        let id = match id.split_once(':') {
            Some((_, rest)) if !rest.is_empty() => rest,
            _ => id,
        };
        let found = tokio::time::timeout(patience, self.wait_for(id)).await;
        found.map_err(|_| Error::NoSession { id: id.to_owned() })
    }

    /// Returns the session with an ID if it exists now.
    pub fn find(&self, id: &str) -> Option<Session> {
        self.lock().get(id).filter(|session| !session.closed().is_cancelled()).cloned()
    }

    /// Ends all sessions and waits for their tasks. Later sessions are refused.
    pub async fn shut_down(&self) {
        self.shared.tasks.close();
        for session in self.lock().values() {
            session.close();
        }
        self.shared.tasks.wait().await;
    }

    async fn wait_for(&self, id: &str) -> Session {
        loop {
            let arrived = self.shared.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            if let Some(session) = self.find(id) {
                return session;
            }
            arrived.await;
        }
    }

    fn register(&self, session: Session, health: HealthCheck) -> Result<(), Status> {
        let mut sessions = self.lock();
        if self.shared.tasks.is_closed() {
            return Err(Status::unavailable("the server is shutting down"));
        }
        if let Some(other) = sessions.get(session.id())
            && !other.closed().is_cancelled()
        {
            return Err(Status::already_exists(format!("session {} already exists", other.id())));
        }
        sessions.insert(session.id().to_owned(), session.clone());
        drop(sessions);
        self.shared.arrived.notify_waiters();
        let registry = self.clone();
        self.shared.tasks.spawn(async move {
            health.watch(&session).await;
            session.close();
            registry.remove(&session);
        });
        Ok(())
    }

    fn remove(&self, session: &Session) {
        let mut sessions = self.lock();
        if sessions.get(session.id()).is_some_and(|other| other.is_same(session)) {
            sessions.remove(session.id());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.shared.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lock().keys()).finish()
    }
}

/// Starts an HTTP/2 connection on a pipe. The client has a time limit for the first bytes of the
/// connection, so they are written before any call.
async fn connect<T>(pipe: T) -> Result<Channel, Status>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let pipe = Mutex::new(Some(TokioIo::new(pipe)));
    let connector = tower::service_fn(move |_: Uri| {
        let pipe = pipe.lock().unwrap_or_else(PoisonError::into_inner).take();
        async { pipe.ok_or_else(|| io::Error::other("the session has ended")) }
    });
    Endpoint::from_static("http://localhost")
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .connect_with_connector(connector)
        .await
        .map_err(|error| Status::unavailable(format!("start a session: {error}")))
}

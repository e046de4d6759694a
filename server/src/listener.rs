//! The listeners, and the connections of clients.
//!
//! A listener accepts connections of a Unix or a TCP socket. Over TLS, each connection has its
//! handshake in a task of its own, so a client that never finishes delays no other.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::Stream;
use futures_util::stream::{StreamExt as _, unfold};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::activity::{Activity, Busy};
use crate::admission::{Budget, Budgets};

/// The time in which a client has to finish the handshake of TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The most handshakes that a listener has at once.
const HANDSHAKES: usize = 128;

/// The pause after a failed accept, as when descriptors are short.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket that clients connect to.
#[derive(Debug)]
pub enum Listener {
    /// A Unix socket. The permissions of its file decide who may connect.
    Unix(UnixListener),
    /// A TCP socket, with the identity of the server if the connections are encrypted.
    Tcp(TcpListener, Option<Tls>),
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

/// The certificates in PEM format that make a server's identity.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The authorities that sign the certificates of clients. `None` if clients need none.
    pub authorities: Option<Vec<u8>>,
    /// The server's certificate, followed by those between it and its authority.
    pub chain: Vec<u8>,
    /// The private key.
    pub key: Vec<u8>,
}

impl Certificates {
    fn config(&self) -> Result<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = match &self.authorities {
            None => builder.with_no_client_auth(),
            Some(text) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(text).context("read the clients' authority")? {
                    roots.add(certificate).context("use the clients' authority")?;
                }
                let roots = Arc::new(roots);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                builder.with_client_cert_verifier(verifier.build()?)
            }
        };
        let chain = certificates(&self.chain).context("read the server's certificate")?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).context("read the server's key")?;
        let mut config = builder.with_single_cert(chain, key).context("use the certificate")?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>()?;
    anyhow::ensure!(!found.is_empty(), "the file has no certificate");
    Ok(found)
}

/// The identity of a server, which can be replaced while it serves. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Tls(Arc<RwLock<Arc<ServerConfig>>>);

impl Tls {
    /// Creates an identity.
    ///
    /// # Errors
    /// Fails if a certificate or the key is invalid.
    pub fn new(certificates: &Certificates) -> Result<Self> {
        Ok(Self(Arc::new(RwLock::new(Arc::new(certificates.config()?)))))
    }

    /// Replaces the certificates for connections to come.
    ///
    /// # Errors
    /// Fails if a certificate or the key is invalid. Then nothing changes.
    pub fn replace(&self, certificates: &Certificates) -> Result<()> {
        let config = Arc::new(certificates.config()?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// A connection of a client.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Transport,
    budget: Budget,
    _busy: Busy,
}

/// A connection whose handshake is over.
struct Accepted {
    stream: Transport,
    busy: Busy,
}

#[derive(Debug)]
enum Transport {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Listener {
    /// Returns the connections of clients. Each counts as activity as long as it is open.
    pub(crate) fn connections(
        self,
        activity: Activity,
        budgets: Budgets,
    ) -> Pin<Box<dyn Stream<Item = io::Result<Connection>> + Send>> {
        let (sender, receiver) = mpsc::channel::<Accepted>(1);
        let mut accepting = JoinSet::new();
        accepting.spawn(self.accept_all(activity, sender));
        let connections = unfold((receiver, accepting), |(mut receiver, accepting)| async move {
            Some((receiver.recv().await?, (receiver, accepting)))
        });
        Box::pin(connections.map(move |accepted| {
            let Accepted { stream, busy } = accepted;
            Ok(Connection { stream, budget: budgets.connection(), _busy: busy })
        }))
    }

    /// Accepts connections until the receiver is gone.
    async fn accept_all(self, activity: Activity, sender: mpsc::Sender<Accepted>) {
        let mut handshakes = JoinSet::new();
        loop {
            while handshakes.len() >= HANDSHAKES {
                handshakes.join_next().await;
            }
            while handshakes.try_join_next().is_some() {}
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                () = sender.closed() => return,
            };
            let (stream, tls) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let busy = activity.begin();
            match (stream, tls) {
                (Transport::Tcp(stream), Some(acceptor)) => {
                    handshakes.spawn(shake_hands(stream, acceptor, busy, sender.clone()));
                }
                (stream, _) => {
                    let _ = sender.send(Accepted { stream, busy }).await;
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<(Transport, Option<TlsAcceptor>)> {
        match self {
            Self::Unix(listener) => Ok((Transport::Unix(listener.accept().await?.0), None)),
            Self::Tcp(listener, tls) => {
                let stream = listener.accept().await?.0;
                stream.set_nodelay(true)?;
                Ok((Transport::Tcp(stream), tls.as_ref().map(Tls::acceptor)))
            }
        }
    }
}

async fn shake_hands(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    busy: Busy,
    sender: mpsc::Sender<Accepted>,
) {
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let stream = Transport::Tls(Box::new(stream));
            // The receiver is gone if the server ends.
            let _ = sender.send(Accepted { stream, busy }).await;
        }
        Ok(Err(error)) => tracing::warn!(%error, "a client is refused"),
        Err(_) => tracing::warn!("a client is refused: its handshake takes too long"),
    }
}

impl Connected for Connection {
    type ConnectInfo = Budget;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.budget.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Transport::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Transport::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Transport::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Transport::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Transport::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Transport::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Transport::Unix(stream) => Pin::new(stream).poll_flush(context),
            Transport::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Transport::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Transport::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

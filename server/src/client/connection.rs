//! Connections of a client: Unix sockets, and TCP with or without TLS.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Uri};

/// An address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket.
    Unix(PathBuf),
    /// Host and port, as `localhost:1234`.
    Tcp(String),
}

impl Endpoint {
    /// Parses an address, as `unix:///run/buildkit/buildkitd.sock` or `tcp://localhost:1234`.
    ///
    /// # Errors
    /// Fails if it isn't the address of a socket.
    pub fn parse(text: &str) -> Result<Self, ConnectError> {
        let invalid = || ConnectError::Address { address: text.to_owned() };
        let (scheme, rest) = text.split_once("://").ok_or_else(invalid)?;
        match scheme {
            "unix" if !rest.is_empty() => Ok(Self::Unix(PathBuf::from(rest))),
            "tcp" if rest.contains(':') => Ok(Self::Tcp(rest.trim_end_matches('/').to_owned())),
            _ => Err(invalid()),
        }
    }

    /// Returns the host, without the port; `None` for a Unix socket.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp(address) => {
                let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
                Some(host.trim_start_matches('[').trim_end_matches(']'))
            }
        }
    }
}

/// A client's certificate and its key, in PEM format.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate, followed by those between it and its authority.
    pub chain: Vec<u8>,
    /// The private key.
    pub key: Vec<u8>,
}

/// The settings of an encrypted connection.
#[derive(Clone, Debug)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    server: ServerName<'static>,
}

impl ClientTls {
    /// Creates the settings. Only a server whose certificate is signed by one of the authorities, in
    /// PEM format, and that has the name is accepted.
    ///
    /// # Errors
    /// Fails if a certificate, the key or the name is invalid.
    pub fn new(
        authorities: Option<&[u8]>,
        identity: Option<&Identity>,
        server: &str,
    ) -> anyhow::Result<Self> {
        use anyhow::Context as _;

        let mut roots = RootCertStore::empty();
        for certificate in authorities.map(certificates).transpose()?.into_iter().flatten() {
            roots.add(certificate).context("use the server's authority")?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = certificates(&identity.chain)?;
                let key = PrivateKeyDer::from_pem_slice(&identity.key).context("read the key")?;
                builder.with_client_auth_cert(chain, key).context("use the certificate")?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let about = || format!("use the server's name {server:?}");
        let server = ServerName::try_from(server.to_owned()).with_context(about)?;
        Ok(Self { config: Arc::new(config), server })
    }
}

fn certificates(text: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>()?;
    anyhow::ensure!(!found.is_empty(), "the file has no certificate");
    Ok(found)
}

/// The reason why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address isn't that of a socket.
    #[error("invalid address {address:?}: unix:///path or tcp://HOST:PORT")]
    Address {
        /// The address.
        address: String,
    },
    /// The server can't be reached.
    #[error("cannot connect to {address}")]
    Unreachable {
        /// The address.
        address: String,
        /// The reason.
        source: io::Error,
    },
    /// The server doesn't speak the protocol.
    #[error("cannot talk to {address}")]
    Protocol {
        /// The address.
        address: String,
        /// The reason.
        source: tonic::transport::Error,
    },
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects to a server.
pub(super) async fn connect(
    endpoint: &Endpoint,
    tls: Option<&ClientTls>,
) -> Result<Channel, ConnectError> {
    let (address, authority) = match endpoint {
        Endpoint::Unix(path) => (format!("unix://{}", path.display()), "localhost".to_owned()),
        Endpoint::Tcp(address) => (format!("tcp://{address}"), address.clone()),
    };
    let stream = open(endpoint, tls).await;
    let stream =
        stream.map_err(|source| ConnectError::Unreachable { address: address.clone(), source })?;
    let failed = |source| ConnectError::Protocol { address: address.clone(), source };
    let endpoint =
        tonic::transport::Endpoint::try_from(format!("http://{authority}")).map_err(failed)?;
    // There is one connection. A lost one isn't opened again.
    let mut stream = Some(stream);
    let connector = tower::service_fn(move |_: Uri| {
        let stream = stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        async move { stream.map(TokioIo::new) }
    });
    endpoint.connect_with_connector(connector).await.map_err(failed)
}

async fn open(endpoint: &Endpoint, tls: Option<&ClientTls>) -> io::Result<Box<dyn Stream>> {
    match (endpoint, tls) {
        (Endpoint::Unix(path), _) => Ok(Box::new(UnixStream::connect(path).await?)),
        (Endpoint::Tcp(address), tls) => {
            let stream = TcpStream::connect(address.as_str()).await?;
            stream.set_nodelay(true)?;
            let Some(tls) = tls else { return Ok(Box::new(stream)) };
            let connector = TlsConnector::from(Arc::clone(&tls.config));
            Ok(Box::new(connector.connect(tls.server.clone(), stream).await?))
        }
    }
}

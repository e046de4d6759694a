//! Connections over TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Certificate;

/// Connects to a server of HTTP/2 that has a certificate of `authority` for `localhost`. The client
/// shows a certificate, or none.
///
/// # Errors
/// Fails if the server doesn't answer or has another certificate. A server that refuses the client's
/// certificate may say so only later.
///
/// # Panics
/// Panics if a certificate is invalid.
pub async fn connect_tls(
    address: SocketAddr,
    authority: &Certificate,
    own: Option<&Certificate>,
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der()).expect("use the authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the usual versions")
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let key = PrivateKeyDer::from_pem_file(own.key_path()).expect("read the key");
            builder.with_client_auth_cert(vec![own.der()], key).expect("use the certificate")
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").expect("the name is valid");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

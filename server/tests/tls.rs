//! A server on TCP with TLS, and clients with certificates of several authorities.

#![allow(
    unused_crate_dependencies,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test panics, and opens the files that it creates"
)]

use std::net::SocketAddr;

use kiln_server::{
    Certificates, Client, ClientTls, Endpoint, Identity, Listener, Options, Server, Tls,
};
use kiln_testkit::{Certificate, CertificateOptions};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

fn signed_by(authority: &Certificate) -> Certificate {
    let options = CertificateOptions { constraints: "CA:FALSE", ..CertificateOptions::default() };
    Certificate::signed_by(authority, options)
}

fn certificates(authority: &Certificate, own: &Certificate) -> Certificates {
    Certificates {
        authorities: Some(std::fs::read(authority.path()).unwrap()),
        chain: std::fs::read(own.path()).unwrap(),
        key: std::fs::read(own.key_path()).unwrap(),
    }
}

/// Asks the server at an address for its version, with a client's certificate or none.
async fn ask(
    address: SocketAddr,
    authority: &Certificate,
    own: Option<&Certificate>,
) -> Result<String, String> {
    let read = |path: std::path::PathBuf| std::fs::read(path).unwrap();
    let authority = read(authority.path());
    let identity = own.map(|own| Identity { chain: read(own.path()), key: read(own.key_path()) });
    let tls = ClientTls::new(Some(&authority), identity.as_ref(), "localhost").unwrap();
    let endpoint = Endpoint::parse(&format!("tcp://{address}")).unwrap();
    let client = Client::connect(&endpoint, Some(&tls)).await.map_err(|it| format!("{it:?}"))?;
    Ok(client.version().await.map_err(|error| format!("{error:?}"))?.version)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_need_a_certificate_of_the_authority() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Certificate::self_signed(CertificateOptions::default());
    let other = Certificate::self_signed(CertificateOptions::default());
    let (own, client, stranger) = (signed_by(&authority), signed_by(&authority), signed_by(&other));
    let server = Server::new(Options::new(kiln::Options::new(directory.path().join("store"))));
    let server = server.unwrap();
    let tls = Tls::new(&certificates(&authority, &own)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
    let (listener, stopped) = (Listener::Tcp(listener, Some(tls.clone())), stop.clone());
    tasks.spawn(async move {
        server.serve(listener, async move { stopped.cancelled().await }).await.unwrap();
    });

    assert_eq!(ask(address, &authority, Some(&client)).await.as_deref(), Ok("v0.33.0"));
    assert!(ask(address, &authority, Some(&stranger)).await.is_err());
    assert!(ask(address, &authority, None).await.is_err());
    assert!(ask(address, &other, Some(&client)).await.is_err(), "the client trusts another one");

    // Certificates are replaced for connections to come; invalid ones change nothing.
    let broken = Certificates { key: Vec::new(), ..certificates(&authority, &own) };
    assert!(tls.replace(&broken).is_err());
    assert!(ask(address, &authority, Some(&client)).await.is_ok());
    tls.replace(&certificates(&other, &own)).unwrap();
    assert!(ask(address, &authority, Some(&stranger)).await.is_ok());
    assert!(ask(address, &authority, Some(&client)).await.is_err());

    stop.cancel();
    tasks.join_next().await.unwrap().unwrap();
}

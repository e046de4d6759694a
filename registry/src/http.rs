//! The HTTP clients, created on demand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{NoProxy, Proxy, Url};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::error::Problem;
use crate::resolver::SystemResolver;
use crate::verifier::{AcceptAnyCertificate, AcceptGivenOrSigned};

/// The proxies for requests. Empty values are ignored. Requests to this machine never use a proxy.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// The proxy for `http` URLs.
    pub http: Option<String>,
    /// The proxy for `https` URLs.
    pub https: Option<String>,
    /// The proxy for schemes without their own.
    pub all: Option<String>,
    /// The hosts, domains and networks without a proxy, such as `example.com,10.0.0.0/8`.
    pub none: Option<String>,
}

impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URLs of proxies may contain passwords.
        f.debug_struct("Proxies").field("none", &self.none).finish_non_exhaustive()
    }
}

/// The TLS settings of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Trust {
    /// `true` if any server certificate is accepted.
    pub(crate) insecure: bool,
    /// Files with CA certificates, in addition to the system's.
    pub(crate) roots: Vec<PathBuf>,
    /// The files with the client's certificate and its key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
}

/// The time limits of connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) connect: Duration,
    /// The limit on each wait for bytes. `None` if the caller enforces one.
    pub(crate) read: Option<Duration>,
}

/// The HTTP clients: one for plain `http`, and one for `https` per [`Trust`]. Creating an `https`
/// client reads the system's certificates, which can take longer than a whole build.
#[derive(Debug)]
pub(crate) struct HttpClients {
    timeouts: Timeouts,
    proxies: Proxies,
    made: Mutex<BTreeMap<Option<Trust>, reqwest::Client>>,
}

impl HttpClients {
    /// Returns an empty set of clients with these settings.
    pub(crate) fn new(timeouts: Timeouts, proxies: Proxies) -> Self {
        Self { timeouts, proxies, made: Mutex::default() }
    }

    /// Returns the client for plain `http`.
    pub(crate) fn plain(&self) -> Result<reqwest::Client, Problem> {
        self.of(None)
    }

    /// Returns the client for `https` with these TLS settings.
    pub(crate) fn secure(&self, trust: &Trust) -> Result<reqwest::Client, Problem> {
        self.of(Some(trust))
    }

    fn of(&self, trust: Option<&Trust>) -> Result<reqwest::Client, Problem> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let key = trust.cloned();
        if let Some(client) = made.get(&key) {
            return Ok(client.clone());
        }
        let client = self.client(trust)?;
        made.insert(key, client.clone());
        Ok(client)
    }

    /// Returns the host and port of the proxy for a URL, if any.
    pub(crate) fn proxy_of(&self, url: &Url) -> Option<String> {
        let proxy = self.proxies.matcher().intercept(&url.as_str().parse().ok()?)?;
        let uri = proxy.uri();
        uri.authority().map(|authority| {
            let text = authority.as_str();
            text.rsplit_once('@').map_or(text, |(_, rest)| rest).to_owned()
        })
    }

    fn client(&self, trust: Option<&Trust>) -> Result<reqwest::Client, Problem> {
        let mut builder = builder(tls(trust)?).connect_timeout(self.timeouts.connect);
        if let Some(limit) = self.timeouts.read {
            builder = builder.read_timeout(limit);
        }
        for proxy in self.proxies.list()? {
            builder = builder.proxy(proxy);
        }
        Ok(builder.build()?)
    }
}

/// A server of the user that isn't a registry, such as an engine that runs images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The path of the server's Unix socket, if it has one.
    pub socket: Option<PathBuf>,
    /// `true` if the server speaks `https`.
    pub secure: bool,
    /// `true` if any server certificate is accepted.
    pub insecure: bool,
    /// Files with CA certificates, in addition to the system's.
    pub roots: Vec<PathBuf>,
    /// The files with the client's certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Peer {
    /// Returns a client for this server. It uses no proxy and has no time limit for answers.
    ///
    /// # Errors
    /// Fails if a certificate can't be read.
    pub fn client(&self) -> Result<reqwest::Client, Problem> {
        let trust = Trust {
            insecure: self.insecure,
            roots: self.roots.clone(),
            identity: self.identity.clone(),
        };
        let mut tls = tls(self.secure.then_some(&trust))?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let builder = builder(tls).http1_only().connect_timeout(Duration::from_secs(10));
        Ok(match &self.socket {
            Some(socket) => builder.unix_socket(socket.clone()),
            None => builder,
        }
        .build()?)
    }
}

/// Returns the builder of a client that doesn't follow redirects by itself.
fn builder(tls: ClientConfig) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .dns_resolver(Arc::new(SystemResolver))
}

impl Proxies {
    /// Returns the list of hosts without a proxy.
    fn direct(&self) -> String {
        format!("localhost,127.0.0.0/8,::1,{}", self.none.as_deref().unwrap_or_default())
    }

    /// Returns the rules that choose a URL's proxy.
    fn matcher(&self) -> Matcher {
        let mut matcher = Matcher::builder().no(self.direct());
        if let Some(address) = address(self.http.as_deref()) {
            matcher = matcher.http(address);
        }
        if let Some(address) = address(self.https.as_deref()) {
            matcher = matcher.https(address);
        }
        if let Some(address) = address(self.all.as_deref()) {
            matcher = matcher.all(address);
        }
        matcher.build()
    }

    fn list(&self) -> Result<Vec<Proxy>, Problem> {
        let none = NoProxy::from_string(&self.direct());
        let wrong = |_| Problem::Config("the address of the proxy is invalid".to_owned());
        let mut proxies = Vec::new();
        if let Some(address) = address(self.http.as_deref()) {
            proxies.push(Proxy::http(address).map_err(wrong)?.no_proxy(none.clone()));
        }
        if let Some(address) = address(self.https.as_deref()) {
            proxies.push(Proxy::https(address).map_err(wrong)?.no_proxy(none.clone()));
        }
        if let Some(address) = address(self.all.as_deref()) {
            proxies.push(Proxy::all(address).map_err(wrong)?.no_proxy(none));
        }
        Ok(proxies)
    }
}

/// Returns a proxy's URL. Without a scheme, it is an `http` URL, as in other tools.
fn address(text: Option<&str>) -> Option<String> {
    let text = text.filter(|text| !text.is_empty())?;
    Some(if text.contains("://") { text.to_owned() } else { format!("http://{text}") })
}

fn tls(trust: Option<&Trust>) -> Result<ClientConfig, Problem> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Problem::Tls(error.to_string()))?;
    let builder = match trust {
        Some(trust) if trust.insecure => {
            let verifier = AcceptAnyCertificate(provider);
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
        Some(trust) => {
            let (given, roots) = roots(trust)?;
            let verifier = AcceptGivenOrSigned::new(given, roots, provider)?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
        None => builder.with_root_certificates(RootCertStore::empty()),
    };
    let mut config = match trust.and_then(|trust| trust.identity.as_ref()) {
        Some((certificate, key)) => builder
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(unusable(certificate))?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn unusable<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> Problem {
    move |error| Problem::Config(format!("{}: {error}", path.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let read = CertificateDer::pem_file_iter(path).map_err(unusable(path))?;
    let found = read.collect::<Result<Vec<_>, _>>().map_err(unusable(path))?;
    if found.is_empty() {
        return Err(unusable(path)("there is no certificate in it"));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Problem> {
    PrivateKeyDer::from_pem_file(path).map_err(unusable(path))
}

/// Returns the trusted certificates, both as they are and as a store of authorities.
fn roots(trust: &Trust) -> Result<(Vec<CertificateDer<'static>>, RootCertStore), Problem> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let mut given = found.certs;
    let (added, _) = roots.add_parsable_certificates(given.iter().cloned());
    for path in &trust.roots {
        for certificate in certificates(path)? {
            roots.add(certificate.clone()).map_err(unusable(path))?;
            given.push(certificate);
        }
    }
    if added > 0 || !trust.roots.is_empty() {
        return Ok((given, roots));
    }
    let why = found.errors.first().map(ToString::to_string);
    Err(Problem::Tls(why.unwrap_or_else(|| "this system has no root certificates".to_owned())))
}

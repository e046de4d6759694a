//! HTTP clients, made when they are needed.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};

use crate::error::Problem;

/// One client for plain `http` and one for `https`: the second reads the system's certificates,
/// which takes longer than many a build.
#[derive(Debug)]
pub(crate) struct HttpClients {
    connect_timeout: Duration,
    read_timeout: Duration,
    plain: OnceLock<reqwest::Client>,
    secure: OnceLock<reqwest::Client>,
}

impl HttpClients {
    /// Returns clients with these limits, which are not made yet.
    pub(crate) fn new(connect_timeout: Duration, read_timeout: Duration) -> Self {
        let (plain, secure) = (OnceLock::new(), OnceLock::new());
        Self { connect_timeout, read_timeout, plain, secure }
    }

    /// Returns the client for a scheme.
    pub(crate) fn of(&self, scheme: &str) -> Result<reqwest::Client, Problem> {
        let secure = scheme == "https";
        let slot = if secure { &self.secure } else { &self.plain };
        if let Some(client) = slot.get() {
            return Ok(client.clone());
        }
        let roots = if secure { system_roots()? } else { RootCertStore::empty() };
        let client = self.client(roots)?;
        Ok(slot.get_or_init(|| client).clone())
    }

    fn client(&self, roots: RootCertStore) -> Result<reqwest::Client, Problem> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Problem::Tls(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(self.connect_timeout)
            .read_timeout(self.read_timeout)
            .build()?;
        Ok(client)
    }
}

fn system_roots() -> Result<RootCertStore, Problem> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    let why = found.errors.first().map(ToString::to_string);
    Err(Problem::Tls(why.unwrap_or_else(|| "this system has no root certificates".to_owned())))
}

//! Hints against failed requests.

/// Advice against a failed request, as plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// The name may be misspelled, or the registry requires a login.
    LogIn {
        /// The registry, such as `docker.io` or `localhost:5000`.
        registry: String,
    },
    /// The name may be misspelled.
    CheckSpelling,
    /// The registry limits the requests of this client.
    AvoidRateLimit,
    /// The token server needs the user's permission to receive credentials.
    TrustTokenServer {
        /// The token server's host and port.
        server: String,
    },
    /// The proxy requires a login.
    LogInToProxy,
    /// The server is slower than the configured minimum.
    LowerMinimumSpeed,
    /// The machine has no certificates of authorities.
    InstallAuthorities,
    /// The host's name is unknown.
    CheckHostName,
    /// The server doesn't accept connections.
    CheckServer(Server),
    /// The proxy can't be used for this host.
    CheckProxy {
        /// The name of the server's host, without a port.
        host: String,
    },
    /// The server speaks plain HTTP.
    UsePlainHttp {
        /// The setting that names the server.
        setting: Setting,
        /// `true` if `http = true` replaces certificates in the configuration.
        replaces_trust: bool,
    },
    /// The server requires `https`.
    UseHttps(Setting),
    /// A certificate is wrong.
    Certificate(CertificateHint),
}

/// Advice against a wrong certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateHint {
    /// The authority of the server's certificate is unknown.
    TrustAuthority {
        /// The server's host and port.
        host: String,
    },
    /// The certificate has expired or isn't valid yet, or this machine's clock is wrong.
    Renew,
    /// The certificate isn't for this host.
    NameHost {
        /// The required alternative name, as `DNS:example.com` or `IP:127.0.0.1`.
        subject: String,
        /// `true` if the certificate is for other names.
        has_names: bool,
    },
    /// The certificate has another flaw.
    AcceptAny {
        /// The server's host and port.
        host: String,
    },
    /// The server requires a certificate of the client.
    GiveClient {
        /// The server's host and port.
        host: String,
    },
}

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// A registry.
    Registry,
    /// A mirror of a registry.
    Mirror,
    /// Any other server.
    Other,
}

/// The place where the user names a server and its scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// The table of the registry with this host and port in `registries.toml`.
    Registry(String),
    /// The address of the mirror with this host and port.
    Mirror(String),
    /// The URL of the request.
    Url,
}

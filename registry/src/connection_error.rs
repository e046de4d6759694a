//! Explanations of failed connections.
//!
//! The HTTP client's errors describe requests and connections. This module turns them into a cause,
//! the host at fault and a hint that the user can act on. The message contains the whole cause. The
//! error has no source, because the client's errors contain URLs with signatures.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use kiln_oci::error::{causes, chain, words_of};
use rustls::{AlertDescription, CertificateError, InvalidMessage};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::hint::{CertificateHint, Hint, Server, Setting};
use crate::resolver::LookupError;
use crate::verifier::{is_of_authority, webpki_error};

/// The role of a request's host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The registry that a reference names.
    Registry,
    /// A configured mirror of the registry.
    Mirror,
    /// The registry's token server.
    TokenServer,
    /// The target of a redirect.
    Redirect,
    /// The host of a URL that the user typed.
    Url,
}

/// The host of a request and its role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The name of the host in the configuration: host and port, or `docker.io`.
    pub(crate) host: String,
    pub(crate) role: Role,
    /// `true` if certificates or `insecure` are configured for the host.
    pub(crate) has_trust: bool,
}

/// A request without a complete answer.
#[derive(Debug)]
pub struct ConnectionError {
    place: Place,
    cause: Cause,
    /// The `errno` of the operating system, if any.
    errno: Option<i32>,
}

#[derive(Debug)]
enum Cause {
    /// The server of an `https` URL speaks plain HTTP.
    PlainHttp,
    /// The server of an `http` URL requires `https`.
    HttpsOnly,
    /// The server's answer isn't TLS, or is empty.
    NoTls,
    Certificate(CertificateProblem),
    /// The server rejects the client's certificate or requires one.
    ClientCertificate(String),
    Lookup {
        name: String,
        problem: String,
    },
    Connect(String),
    Proxy {
        proxy: String,
        problem: ProxyProblem,
    },
    Other {
        text: String,
        is_builder: bool,
    },
}

/// A flaw of a server's certificate.
#[derive(Debug)]
enum CertificateProblem {
    UnknownAuthority,
    Expired(String),
    NotYetValid(String),
    OtherName { expected: String, presented: Vec<String> },
    Version1,
    Other(String),
}

#[derive(Debug)]
enum ProxyProblem {
    Unreachable(String),
    Refuses,
    WantsLogin,
}

impl ConnectionError {
    /// Finds the cause of a failed request to `place`. `proxy` is the request's proxy, if any.
    pub(crate) fn new(error: &reqwest::Error, place: Place, proxy: Option<String>) -> Self {
        let system = find::<io::Error>(error, |error| error.raw_os_error().is_some());
        let errno = system.and_then(io::Error::raw_os_error);
        let cause = tls(error).or_else(|| way(error, system, proxy));
        let cause = cause.unwrap_or_else(|| Cause::Other {
            text: sanitized(&chain(error)),
            is_builder: error.is_builder(),
        });
        Self { place, cause, errno }
    }

    /// Returns the error of a server that requires `https` and received plain HTTP.
    pub(crate) fn https_only(place: Place) -> Self {
        Self { place, cause: Cause::HttpsOnly, errno: None }
    }

    /// Returns `true` if the server did not speak TLS. It may speak plain HTTP.
    pub(crate) fn is_without_tls(&self) -> bool {
        matches!(self.cause, Cause::NoTls)
    }

    /// Records that the server speaks plain HTTP.
    pub(crate) fn speaks_plain_http(mut self) -> Self {
        self.cause = Cause::PlainHttp;
        self
    }

    /// Returns the `errno` of the operating system, if any.
    pub fn os_error(&self) -> Option<i32> {
        self.errno
    }

    /// Returns `true` if a retry may succeed.
    pub fn is_transient(&self) -> bool {
        match &self.cause {
            Cause::PlainHttp
            | Cause::HttpsOnly
            | Cause::Certificate(_)
            | Cause::ClientCertificate(_)
            | Cause::Proxy { problem: ProxyProblem::WantsLogin, .. } => false,
            Cause::Other { is_builder, .. } => !is_builder,
            Cause::NoTls | Cause::Lookup { .. } | Cause::Connect(_) | Cause::Proxy { .. } => true,
        }
    }

    /// Returns the hint against this failure, if any.
    pub fn hint(&self) -> Option<Hint> {
        let Place { host, role, has_trust } = &self.place;
        Some(match &self.cause {
            Cause::PlainHttp => Hint::UsePlainHttp {
                setting: self.setting()?,
                replaces_trust: *has_trust && *role == Role::Registry,
            },
            Cause::HttpsOnly => Hint::UseHttps(self.setting()?),
            Cause::Certificate(flaw) => Hint::Certificate(flaw.hint(host)),
            Cause::ClientCertificate(_) => {
                Hint::Certificate(CertificateHint::GiveClient { host: host.clone() })
            }
            Cause::Lookup { .. } => Hint::CheckHostName,
            Cause::Connect(_) => Hint::CheckServer(match role {
                Role::Registry => Server::Registry,
                Role::Mirror => Server::Mirror,
                Role::TokenServer | Role::Redirect | Role::Url => Server::Other,
            }),
            Cause::Proxy { problem: ProxyProblem::WantsLogin, .. } => Hint::LogInToProxy,
            Cause::Proxy { .. } => Hint::CheckProxy { host: host_of(host).to_owned() },
            Cause::NoTls | Cause::Other { .. } => return None,
        })
    }

    /// Returns the user's setting that names the host, if any.
    fn setting(&self) -> Option<Setting> {
        let host = || self.place.host.clone();
        match self.place.role {
            Role::Registry => Some(Setting::Registry(host())),
            Role::Mirror => Some(Setting::Mirror(host())),
            Role::Url => Some(Setting::Url),
            Role::TokenServer | Role::Redirect => None,
        }
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { host, role, .. } = &self.place;
        match role {
            Role::Registry | Role::Url => {}
            Role::Mirror => write!(f, "mirror {host}: ")?,
            Role::TokenServer => write!(f, "token server {host}: ")?,
            Role::Redirect => write!(f, "{host}, where the server leads: ")?,
        }
        match &self.cause {
            Cause::PlainHttp => f.write_str("the server answered in plain HTTP"),
            Cause::HttpsOnly => f.write_str("the server was asked in plain HTTP and wants https"),
            Cause::NoTls => f.write_str("the server speaks no TLS"),
            Cause::Certificate(flaw) => write!(f, "the server's certificate {flaw}"),
            Cause::ClientCertificate(problem) => {
                write!(f, "the server wants another certificate of the client: {problem}")
            }
            Cause::Lookup { name, problem } => {
                write!(f, "can't resolve the host {name}: {problem}")
            }
            Cause::Connect(problem) => write!(f, "connect to {host}: {problem}"),
            Cause::Proxy { proxy, problem } => match problem {
                ProxyProblem::Unreachable(problem) => {
                    write!(f, "connect to the proxy {proxy}: {problem}")
                }
                ProxyProblem::Refuses => {
                    write!(f, "the proxy {proxy} refuses to connect to {host}")
                }
                ProxyProblem::WantsLogin => {
                    write!(f, "the proxy {proxy} wants a name and a password")
                }
            },
            Cause::Other { text, .. } => f.write_str(text),
        }
    }
}

impl StdError for ConnectionError {}

impl CertificateProblem {
    fn of(error: &CertificateError) -> Self {
        match error {
            CertificateError::UnknownIssuer => Self::UnknownAuthority,
            error if is_of_authority(error) => Self::UnknownAuthority,
            CertificateError::ExpiredContext { not_after, .. } => {
                Self::Expired(date(not_after.as_secs()))
            }
            CertificateError::NotValidYetContext { not_before, .. } => {
                Self::NotYetValid(date(not_before.as_secs()))
            }
            CertificateError::NotValidForNameContext { expected, presented } => Self::OtherName {
                expected: expected.to_str().into_owned(),
                presented: presented.iter().map(|name| plain_name(name)).collect(),
            },
            error => match webpki_error(error) {
                Some(webpki::Error::UnsupportedCertVersion) => Self::Version1,
                _ => Self::Other(sanitized(&error.to_string())),
            },
        }
    }

    fn hint(&self, host: &str) -> CertificateHint {
        let owned = || host.to_owned();
        match self {
            Self::UnknownAuthority => CertificateHint::TrustAuthority { host: owned() },
            Self::Expired(_) | Self::NotYetValid(_) => CertificateHint::Renew,
            Self::OtherName { .. } | Self::Version1 => {
                let subject = match host_of(host) {
                    name if is_address(name) => format!("IP:{}", name.trim_matches(['[', ']'])),
                    name => format!("DNS:{name}"),
                };
                let has_names =
                    matches!(self, Self::OtherName { presented, .. } if !presented.is_empty());
                CertificateHint::NameHost { subject, has_names }
            }
            Self::Other(_) => CertificateHint::AcceptAny { host: owned() },
        }
    }
}

impl fmt::Display for CertificateProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownAuthority => f.write_str("is signed by an unknown authority"),
            Self::Expired(date) => write!(f, "has expired: it was valid until {date}"),
            Self::NotYetValid(date) => write!(f, "is not valid yet: it will be from {date}"),
            Self::OtherName { expected, presented } if presented.is_empty() => {
                write!(f, "is not valid for {expected}: it has no subjectAltName")
            }
            Self::OtherName { expected, presented } => {
                let shown = presented.iter().take(5).map(String::as_str).collect::<Vec<_>>();
                write!(f, "is not valid for {expected}, but for {}", shown.join(", "))
            }
            Self::Version1 => {
                f.write_str("is of version 1 of X.509 and so can't say which host it is for")
            }
            Self::Other(problem) => write!(f, "is of no use: {problem}"),
        }
    }
}

/// Returns the cause if TLS failed.
fn tls(error: &reqwest::Error) -> Option<Cause> {
    Some(match find::<rustls::Error>(error, |_| true)? {
        rustls::Error::InvalidCertificate(problem) => {
            Cause::Certificate(CertificateProblem::of(problem))
        }
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Cause::NoTls,
        rustls::Error::AlertReceived(alert) if is_about_client(*alert) => {
            Cause::ClientCertificate(format!("{alert:?}"))
        }
        _ => return None,
    })
}

/// Returns `true` if the alert is about the client's certificate.
fn is_about_client(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
    )
}

/// Returns the cause if the connection to the server, or to the proxy, failed.
fn way(error: &reqwest::Error, system: Option<&io::Error>, proxy: Option<String>) -> Option<Cause> {
    let tunnel =
        causes(error).map(ToString::to_string).find(|text| text.starts_with("tunnel error"));
    if let Some(LookupError { name, problem }) = find(error, |_| true) {
        let problem = sanitized(problem);
        let of_proxy = proxy.filter(|proxy| host_of(proxy) == name);
        return Some(match of_proxy {
            Some(proxy) => {
                let problem = ProxyProblem::Unreachable(format!("can't resolve it: {problem}"));
                Cause::Proxy { proxy, problem }
            }
            None => Cause::Lookup { name: name.clone(), problem },
        });
    }
    if let (Some(tunnel), Some(proxy)) = (&tunnel, &proxy) {
        let problem = if tunnel.contains("authorization") {
            Some(ProxyProblem::WantsLogin)
        } else {
            tunnel.contains("unsuccessful").then_some(ProxyProblem::Refuses)
        };
        if let Some(problem) = problem {
            return Some(Cause::Proxy { proxy: proxy.clone(), problem });
        }
    }
    if !error.is_connect() {
        return None;
    }
    let problem = match system {
        Some(error) => words_of(error),
        None if error.is_timeout() => "timed out".to_owned(),
        None => {
            // The server closed the connection during the handshake.
            let cut = |error: &io::Error| error.kind() == io::ErrorKind::UnexpectedEof;
            return find(error, cut).map(|_| Cause::NoTls);
        }
    };
    Some(match proxy {
        Some(proxy) => Cause::Proxy { proxy, problem: ProxyProblem::Unreachable(problem) },
        None => Cause::Connect(problem),
    })
}

fn find<'a, T: StdError + 'static>(
    error: &'a (dyn StdError + 'static),
    matches: impl Fn(&T) -> bool,
) -> Option<&'a T> {
    causes(error).filter_map(|cause| cause.downcast_ref::<T>()).find(|cause| matches(cause))
}

fn sanitized(text: &str) -> String {
    crate::error::sanitize(text)
}

fn date(seconds: u64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    let time = i64::try_from(seconds).ok();
    let time = time.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.and_then(|time| time.format(&format).ok()).unwrap_or_else(|| seconds.to_string())
}

/// Returns the name inside webpki's `DnsName("example.com")`.
fn plain_name(text: &str) -> String {
    let name = text.split('(').next_back().unwrap_or(text).trim_end_matches(')');
    sanitized(name.trim_matches('"'))
}

/// Returns the host of `host:port`.
fn host_of(authority: &str) -> &str {
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

fn is_address(name: &str) -> bool {
    name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok()
}

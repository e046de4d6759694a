//! The subset of the Docker Engine API that loading needs.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use kiln_event::Reporter;
use kiln_oci::{Digest, Reference};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;

/// The time limit for a request without an upload. An engine that has just unpacked a large image
/// may wait for its disk for minutes before it answers.
const PATIENCE: Duration = Duration::from_mins(5);
/// The interval of checks for cancellation.
const INTERVAL: Duration = Duration::from_millis(100);
/// The maximum size of a response in bytes.
const ANSWER: usize = 16 << 20;

/// The address of a Docker engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineAddress {
    /// The path of a Unix socket.
    Socket(PathBuf),
    /// A TCP address.
    Network {
        /// Host and port, as `10.0.0.1:2376`.
        authority: String,
        /// The options of `https`. `None` for plain `http`.
        tls: Option<EngineTls>,
    },
}

/// The certificates that an engine and its client use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineTls {
    /// The path of the CA certificate that verifies the engine.
    pub authority: Option<PathBuf>,
    /// The paths of the client's certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// `true` if the client accepts any certificate.
    pub insecure: bool,
}

impl fmt::Display for EngineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "unix://{}", path.display()),
            Self::Network { authority, .. } => write!(f, "tcp://{authority}"),
        }
    }
}

/// A failed request to an engine.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The HTTP client can't be created.
    #[error("{0}")]
    Client(#[from] kiln_registry::Problem),
    /// The engine can't be reached, or the connection broke.
    #[error("no answer to {request}")]
    Transport {
        /// The path of the request.
        request: String,
        /// The error of the HTTP client.
        source: reqwest::Error,
    },
    /// The engine hasn't answered within the time limit. The value is the path of the request.
    #[error("no answer to {0} in time")]
    Timeout(String),
    /// The engine has answered with an error.
    #[error("{request}: {message}")]
    Refused {
        /// The path of the request.
        request: String,
        /// The error message of the engine.
        message: String,
    },
    /// The caller cancelled the export.
    #[error("canceled")]
    Cancelled,
}

/// A client of one engine.
pub(super) struct Api<'a> {
    client: Client,
    base: String,
    runtime: &'a Handle,
}

/// The engine's properties.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Info {
    driver_status: Option<Vec<(String, String)>>,
}

impl Info {
    /// Returns `true` if containerd stores the images in compressed form.
    pub(super) fn keeps_blobs(&self) -> bool {
        let status = self.driver_status.as_deref().unwrap_or_default();
        let is_containerd = |(key, value): &(String, String)| {
            key == "driver-type" && value.starts_with("io.containerd.snapshotter")
        };
        status.iter().any(is_containerd)
    }
}

/// An entry of the image list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    pub(super) id: String,
}

/// The layers of an image.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Inspected {
    #[serde(rename = "RootFS")]
    root_fs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RootFs {
    layers: Option<Vec<Digest>>,
}

impl Inspected {
    /// Returns the diff IDs, base first.
    pub(super) fn layers(&self) -> &[Digest] {
        self.root_fs.layers.as_deref().unwrap_or_default()
    }
}

/// A message in the response to a load.
#[derive(Deserialize)]
struct LoadMessage {
    error: Option<String>,
}

#[derive(Deserialize)]
struct EngineError {
    message: String,
}

impl<'a> Api<'a> {
    pub(super) fn new(address: &EngineAddress, runtime: &'a Handle) -> Result<Self, ApiError> {
        let (base, peer) = match address {
            EngineAddress::Socket(path) => {
                let socket = Some(path.clone());
                ("http://docker".to_owned(), kiln_registry::Peer { socket, ..Default::default() })
            }
            EngineAddress::Network { authority, tls } => {
                let scheme = if tls.is_some() { "https" } else { "http" };
                let tls = tls.clone().unwrap_or_default();
                let peer = kiln_registry::Peer {
                    socket: None,
                    secure: scheme == "https",
                    insecure: tls.insecure,
                    roots: tls.authority.into_iter().collect(),
                    identity: tls.identity,
                };
                (format!("{scheme}://{authority}"), peer)
            }
        };
        Ok(Self { client: peer.client()?, base, runtime })
    }

    /// Requests the engine's properties.
    pub(super) async fn info(&self) -> Result<Info, ApiError> {
        self.ask(Method::GET, "/info", &[]).await.and_then(|found| found.ok_or_else(no_such_thing))
    }

    /// Lists the images, including intermediate ones.
    pub(super) fn images(&self) -> Result<Vec<Listed>, ApiError> {
        let listed = self.ask(Method::GET, "/images/json", &[("all", "1")]);
        Ok(self.runtime.block_on(listed)?.unwrap_or_default())
    }

    /// Returns the layers of an image, or `None` if the engine doesn't have it.
    pub(super) fn image(&self, id: &str) -> Result<Option<Inspected>, ApiError> {
        self.runtime.block_on(self.ask(Method::GET, &format!("/images/{id}/json"), &[]))
    }

    /// Adds a name to an image.
    pub(super) fn tag(&self, id: &str, name: &Reference) -> Result<(), ApiError> {
        let (repository, tag) = (name.name(), name.tag().unwrap_or("latest"));
        let path = format!("/images/{id}/tag");
        let query = [("repo", repository.as_str()), ("tag", tag)];
        self.runtime.block_on(async {
            let request = self.request(Method::POST, &path, &query);
            answered(request, &path).await.map(drop)
        })
    }

    /// Uploads an archive.
    pub(super) fn load(&self, body: reqwest::Body, progress: &Reporter) -> Result<(), ApiError> {
        let path = "/images/load";
        let request = self.request(Method::POST, path, &[("quiet", "1")]);
        let request = request.header(CONTENT_TYPE, "application/x-tar").body(body);
        let sending = async {
            let text = read(checked(send(request, path).await?, path).await?, path).await?;
            match complaint(&text) {
                Some(message) => Err(ApiError::Refused { request: path.to_owned(), message }),
                None => Ok(()),
            }
        };
        self.runtime.block_on(until_cancelled(sending, progress))
    }

    /// Sends a request and parses the response. Returns `None` if the engine answers "not found".
    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Option<T>, ApiError> {
        let request = self.request(method, path, query);
        let Some(text) = answered(request, path).await? else { return Ok(None) };
        serde_json::from_slice(&text).map(Some).map_err(|error| ApiError::Refused {
            request: path.to_owned(),
            message: format!("the answer can't be read: {error}"),
        })
    }

    fn request(&self, method: Method, path: &str, query: &[(&str, &str)]) -> RequestBuilder {
        let url = format!("{}{path}", self.base);
        match Url::parse_with_params(&url, query) {
            Ok(url) => self.client.request(method, url),
            // The client reports the invalid URL when it sends the request.
            Err(_) => self.client.request(method, url),
        }
    }
}

/// Sends a request and returns the response's body. Returns `None` if the engine answers "not
/// found".
async fn answered(request: RequestBuilder, path: &str) -> Result<Option<Vec<u8>>, ApiError> {
    let answer = async {
        let response = send(request, path).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        read(checked(response, path).await?, path).await.map(Some)
    };
    let late = |_| ApiError::Timeout(path.to_owned());
    tokio::time::timeout(PATIENCE, answer).await.map_err(late)?
}

async fn send(request: RequestBuilder, path: &str) -> Result<Response, ApiError> {
    tracing::debug!(path, "request to the engine");
    request.send().await.map_err(|source| ApiError::Transport { request: path.to_owned(), source })
}

/// Returns a successful response, or the engine's error message.
async fn checked(response: Response, path: &str) -> Result<Response, ApiError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = read(response, path).await.unwrap_or_default();
    let message = serde_json::from_slice(&text)
        .map_or_else(|_| status.to_string(), |complaint: EngineError| complaint.message);
    Err(ApiError::Refused { request: path.to_owned(), message })
}

async fn read(mut response: Response, path: &str) -> Result<Vec<u8>, ApiError> {
    let broken = |source| ApiError::Transport { request: path.to_owned(), source };
    let mut text = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(broken)? {
        if text.len() + piece.len() > ANSWER {
            let message = "the answer is too long".to_owned();
            return Err(ApiError::Refused { request: path.to_owned(), message });
        }
        text.extend_from_slice(&piece);
    }
    Ok(text)
}

/// Returns the first error among the messages of a load.
fn complaint(text: &[u8]) -> Option<String> {
    serde_json::Deserializer::from_slice(text)
        .into_iter::<LoadMessage>()
        .map_while(Result::ok)
        .find_map(|told| told.error)
}

fn no_such_thing() -> ApiError {
    ApiError::Refused { request: "/info".to_owned(), message: "no Docker engine".to_owned() }
}

async fn until_cancelled<T>(
    work: impl Future<Output = Result<T, ApiError>>,
    progress: &Reporter,
) -> Result<T, ApiError> {
    let watch = async {
        while !progress.is_cancelled() {
            tokio::time::sleep(INTERVAL).await;
        }
    };
    tokio::select! {
        result = work => result,
        () = watch => Err(ApiError::Cancelled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_found_among_messages() {
        let text = br#"{"stream":"Loading"}
{"errorDetail":{"message":"x"},"error":"no space left"}"#;
        assert_eq!(complaint(text).as_deref(), Some("no space left"));
        assert_eq!(complaint(br#"{"stream":"Loaded image: a"}"#), None);
        assert_eq!(complaint(b"not JSON"), None);
    }

    #[test]
    fn image_stores_are_told_apart() {
        let info = |text: &str| serde_json::from_str::<Info>(text).unwrap().keeps_blobs();
        let status = r#"{"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}"#;
        assert!(info(status));
        assert!(!info(r#"{"DriverStatus": [["Backing Filesystem", "extfs"]], "Driver": "x"}"#));
        assert!(!info(r#"{"DriverStatus": null}"#) && !info("{}"));
    }
}

//! Tests of the client's small services: credentials, secrets, agents and uploads.

use std::pin::Pin;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::{Secrets, SecretsServer};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use bollard_buildkit_proto::moby::filesync::v1::auth_server::{Auth, AuthServer};
use bollard_buildkit_proto::moby::filesync::v1::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse,
    GetTokenAuthorityRequest, GetTokenAuthorityResponse, VerifyTokenAuthorityRequest,
    VerifyTokenAuthorityResponse,
};
use bollard_buildkit_proto::moby::sshforward::v1::ssh_server::{Ssh, SshServer};
use bollard_buildkit_proto::moby::sshforward::v1::{self as ssh, CheckAgentRequest};
use bollard_buildkit_proto::moby::upload::v1::upload_server::{Upload, UploadServer};
use bollard_buildkit_proto::moby::upload::v1::{self as upload};
use futures_util::{Stream, StreamExt as _, stream};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic::{Code, Request, Response, Status, Streaming};

use super::super::auth::TokenRequest;
use super::super::error::Error;
use super::Client;

const METHODS: [&str; 8] = [
    "/moby.filesync.v1.Auth/Credentials",
    "/moby.filesync.v1.Auth/FetchToken",
    "/moby.filesync.v1.Auth/GetTokenAuthority",
    "/moby.filesync.v1.Auth/VerifyTokenAuthority",
    "/moby.buildkit.secrets.v1.Secrets/GetSecret",
    "/moby.sshforward.v1.SSH/CheckAgent",
    "/moby.sshforward.v1.SSH/ForwardAgent",
    "/moby.upload.v1.Upload/Pull",
];

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

/// A client with all small services.
#[derive(Clone, Default)]
struct Services;

/// Derives the client's key from the server's salt, as BuildKit's clients do from salt and seed.
fn key(host: &str, salt: &[u8]) -> Ed25519KeyPair {
    let mut seed: [u8; 32] = salt.try_into().unwrap();
    seed[0] ^= host.len() as u8;
    Ed25519KeyPair::from_seed_unchecked(&seed).unwrap()
}

#[tonic::async_trait]
impl Auth for Services {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Answer<CredentialsResponse> {
        match request.into_inner().host.as_str() {
            "unknown" => Ok(Response::new(CredentialsResponse::default())),
            "broken" => Err(Status::internal("the helper failed")),
            "unserved" => Err(Status::unimplemented("")),
            host => {
                let (username, secret) = ("me".to_owned(), format!("secret of {host}"));
                Ok(Response::new(CredentialsResponse { username, secret }))
            }
        }
    }

    async fn fetch_token(&self, request: Request<FetchTokenRequest>) -> Answer<FetchTokenResponse> {
        let request = request.into_inner();
        let token = format!("{} {} {}", request.realm, request.service, request.scopes.join(","));
        Ok(Response::new(FetchTokenResponse { token, expires_in: 300, issued_at: 7 }))
    }

    async fn get_token_authority(
        &self,
        request: Request<GetTokenAuthorityRequest>,
    ) -> Answer<GetTokenAuthorityResponse> {
        let request = request.into_inner();
        if request.host == "disabled" {
            return Err(Status::unavailable("client side tokens disabled"));
        }
        let mut public_key = key(&request.host, &request.salt).public_key().as_ref().to_vec();
        public_key.truncate(if request.host == "short" { 31 } else { 32 });
        Ok(Response::new(GetTokenAuthorityResponse { public_key }))
    }

    async fn verify_token_authority(
        &self,
        request: Request<VerifyTokenAuthorityRequest>,
    ) -> Answer<VerifyTokenAuthorityResponse> {
        let request = request.into_inner();
        let key = key(&request.host, &request.salt);
        let (payload, length) = match request.host.as_str() {
            "replay" => (vec![0; 32], 96),
            "cut" => (request.payload, 40),
            _ => (request.payload, 96),
        };
        let mut signed = key.sign(&payload).as_ref().to_vec();
        signed.extend(payload);
        signed.truncate(length);
        Ok(Response::new(VerifyTokenAuthorityResponse { signed }))
    }
}

#[tonic::async_trait]
impl Secrets for Services {
    async fn get_secret(&self, request: Request<GetSecretRequest>) -> Answer<GetSecretResponse> {
        let data = match request.into_inner().id.as_str() {
            "npmrc" => b"token".to_vec(),
            "empty" => Vec::new(),
            "largest" => vec![0; 500 * 1024],
            "huge" => vec![0; 500 * 1024 + 1],
            "broken" => return Err(Status::permission_denied("open /root: denied")),
            _ => return Err(Status::not_found("")),
        };
        Ok(Response::new(GetSecretResponse { data }))
    }
}

#[tonic::async_trait]
impl Ssh for Services {
    type ForwardAgentStream = Answers<ssh::BytesMessage>;

    async fn check_agent(
        &self,
        request: Request<CheckAgentRequest>,
    ) -> Answer<ssh::CheckAgentResponse> {
        match request.into_inner().id.as_str() {
            "default" => Ok(Response::new(ssh::CheckAgentResponse {})),
            id => Err(Status::unknown(format!("unset ssh forward key {id}"))),
        }
    }

    async fn forward_agent(
        &self,
        request: Request<Streaming<ssh::BytesMessage>>,
    ) -> Answer<Self::ForwardAgentStream> {
        assert_eq!(request.metadata().get("buildkit.ssh.id").unwrap(), "default");
        let mut pieces = request.into_inner();
        // Like Go's, this server answers after it has something to say.
        let first = pieces.message().await?.unwrap_or_default();
        let pieces = stream::iter([Ok(first)]).chain(pieces);
        let answers = pieces.map(|piece| {
            piece.map(|piece| ssh::BytesMessage { data: piece.data.to_ascii_uppercase() })
        });
        let last = ssh::BytesMessage { data: b"!".to_vec() };
        Ok(Response::new(answers.chain(stream::iter([Ok(last)])).boxed()))
    }
}

#[tonic::async_trait]
impl Upload for Services {
    type PullStream = Answers<upload::BytesMessage>;

    async fn pull(
        &self,
        request: Request<Streaming<upload::BytesMessage>>,
    ) -> Answer<Self::PullStream> {
        let metadata = request.metadata();
        let value = |key: &str| metadata.get(key).unwrap().to_str().unwrap().to_owned();
        assert_eq!(value("urlhost"), "buildkit-session");
        if value("urlpath") != "/stdin" {
            return Err(Status::unknown("no http response from session"));
        }
        let pieces = (0..2000_u32).map(|number| {
            let data = number.to_string().repeat(1000).into_bytes();
            Ok(upload::BytesMessage { data })
        });
        Ok(Response::new(stream::iter(pieces).boxed()))
    }
}

fn services() -> Router {
    Server::builder()
        .add_service(AuthServer::new(Services))
        .add_service(SecretsServer::new(Services))
        .add_service(SshServer::new(Services))
        .add_service(UploadServer::new(Services))
}

#[tokio::test]
async fn credentials_are_the_clients() {
    let client = Client::new(services(), &METHODS).await;
    let session = &client.session;
    let found = session.credentials("docker.io").await.unwrap();
    assert_eq!(found, Some(("me".to_owned(), "secret of docker.io".to_owned())));
    assert_eq!(session.credentials("unknown").await.unwrap(), None);
    assert_eq!(session.credentials("unserved").await.unwrap(), None);
    let error = session.credentials("broken").await.unwrap_err();
    assert_eq!(error.to_string(), "fetch credentials for broken: the helper failed");
    assert_eq!(error.code(), Some(Code::Internal));
    let request = TokenRequest {
        realm: "https://auth".into(),
        service: "hub".into(),
        scopes: vec!["a".into(), "b".into()],
        ..TokenRequest::default()
    };
    let token = session.fetch_token(request.clone()).await.unwrap().unwrap();
    assert_eq!((token.token.as_str(), token.issued_at), ("https://auth hub a,b", 7));
    assert_eq!(token.expires_in, Duration::from_mins(5));
    assert!(!format!("{token:?}").contains("hub"));
    let silent = Client::new(services(), &[]).await;
    assert_eq!(silent.session.fetch_token(request).await.unwrap(), None);
}

#[tokio::test]
async fn a_token_authority_is_proven() {
    let client = Client::new(services(), &METHODS).await;
    let session = &client.session;
    let key = session.token_authority("docker.io").await.unwrap().unwrap();
    assert!(session.verify_token_authority("docker.io", &key).await.unwrap());
    assert!(!session.verify_token_authority("ghcr.io", &key).await.unwrap(), "another key");
    for host in ["replay", "cut"] {
        let key = session.token_authority(host).await.unwrap().unwrap();
        assert!(!session.verify_token_authority(host, &key).await.unwrap(), "{host}");
    }
    assert_eq!(session.token_authority("disabled").await.unwrap(), None);
    assert!(session.token_authority("short").await.is_err());
    // Another server has another salt.
    let other = Client::new(services(), &METHODS).await;
    assert_ne!(other.session.token_authority("docker.io").await.unwrap().unwrap(), key);
    assert!(!other.session.verify_token_authority("docker.io", &key).await.unwrap());
}

#[tokio::test]
async fn secrets_have_a_size() {
    let client = Client::new(services(), &METHODS).await;
    let session = &client.session;
    assert_eq!(session.secret("npmrc").await.unwrap(), Some(b"token".to_vec()));
    assert_eq!(session.secret("empty").await.unwrap(), Some(Vec::new()));
    assert_eq!(session.secret("other").await.unwrap(), None);
    assert_eq!(session.secret("largest").await.unwrap().unwrap().len(), 500 * 1024);
    let error = session.secret("huge").await.unwrap_err();
    assert_eq!(error.to_string(), "secret huge is larger than 512000 bytes");
    let error = session.secret("broken").await.unwrap_err();
    assert_eq!(error.to_string(), "fetch secret broken: open /root: denied");
}

#[tokio::test]
async fn an_agent_answers_on_a_local_socket() {
    let client = Client::new(services(), &METHODS).await;
    let temp = tempfile::tempdir().unwrap();
    let error = client.session.agent("other", temp.path()).await.unwrap_err();
    assert!(error.to_string().contains("unset ssh forward key other"), "{error}");
    // The path is longer than the name of a socket may be.
    let directory = temp.path().join("d".repeat(120));
    std::fs::create_dir(&directory).unwrap();
    let agent = client.session.agent("", &directory).await.unwrap();
    let short = temp.path().join("s");
    std::os::unix::fs::symlink(&directory, &short).unwrap();
    let short = short.join(agent.socket().file_name().unwrap());
    for round in 0..3 {
        let mut one = UnixStream::connect(&short).await.unwrap();
        let mut two = UnixStream::connect(&short).await.unwrap();
        two.write_all(b"two").await.unwrap();
        let large = "a".repeat(100_000 * round);
        let mut answer = String::new();
        let (reader, mut writer) = one.split();
        let mut reader = tokio::io::BufReader::new(reader);
        let write = async {
            writer.write_all(large.as_bytes()).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let (read, ()) = tokio::join!(reader.read_to_string(&mut answer), write);
        assert_eq!(read.unwrap(), large.len() + 1);
        assert!(answer.ends_with('!') && answer.starts_with(&"A".repeat(large.len())));
        let mut answer = [0; 3];
        two.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"TWO");
    }
    let mut open = UnixStream::connect(&short).await.unwrap();
    let socket = agent.socket().to_owned();
    drop(agent);
    assert!(!socket.exists());
    assert_eq!(open.read(&mut [0; 1]).await.unwrap_or_default(), 0, "the connection has ended");
}

#[tokio::test]
async fn uploads_are_read_to_their_end() {
    let client = Client::new(services(), &METHODS).await;
    let mut upload = client.session.upload("/stdin", "buildkit-session").await.unwrap();
    let mut read = String::new();
    upload.read_to_string(&mut read).await.unwrap();
    let expected: String = (0..2000_u32).map(|number| number.to_string().repeat(1000)).collect();
    assert_eq!(read, expected);
    let error = client.session.upload("/other", "buildkit-session").await.unwrap_err();
    assert_eq!(error.to_string(), "open upload /other: no http response from session");
    // A session that ends in the middle is no end of the upload.
    let mut upload = client.session.upload("/stdin", "buildkit-session").await.unwrap();
    upload.read_exact(&mut [0; 10]).await.unwrap();
    client.session.close();
    assert!(upload.read_to_end(&mut Vec::new()).await.is_err());
    let late = client.session.upload("/stdin", "buildkit-session").await.unwrap_err();
    assert!(matches!(late, Error::Ended));
}

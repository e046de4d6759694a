//! Tests of the client with Debian's docker-registry.

use std::sync::Arc;

use bytes::Bytes;
use kiln_testkit::needs::{Need, skip};
use kiln_testkit::peers::{DockerRegistry, LOGIN, RegistryOptions};

use super::*;
use crate::credentials::CredentialError;
use crate::hosts::HostSources;

#[derive(Debug)]
struct Login;

impl Credentials for Login {
    fn get(&self, _: &str, _: &str) -> Result<Option<Credential>, CredentialError> {
        let (username, password) = (LOGIN.0.to_owned(), LOGIN.1.to_owned());
        Ok(Some(Credential::Password { username, password }))
    }
}

async fn push(client: &Client, repository: &Repository, bytes: &Bytes) -> Digest {
    let upload = BlobUpload::of_bytes(bytes.clone());
    client.push_blob(repository, &upload, &[]).await.unwrap();
    upload.digest
}

pub(super) async fn push_and_pull(client: &Client, address: &str) {
    let reference: Reference = format!("{address}/library/base:latest").parse().unwrap();
    let repository = Repository::from(&reference);
    let (config, layer) = (Bytes::from_static(b"{}"), Bytes::from(big()));
    let config_digest = push(client, &repository, &config).await;
    let layer_digest = push(client, &repository, &layer).await;
    assert!(client.has_blob(&repository, &layer_digest).await.unwrap());
    assert!(!client.has_blob(&repository, &Digest::of(b"none")).await.unwrap());
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": {"mediaType": media_type::OCI_CONFIG, "digest": config_digest, "size": 2},
        "layers": [{
            "mediaType": media_type::OCI_LAYER,
            "digest": layer_digest,
            "size": layer.len(),
        }],
    });
    let bytes = Bytes::from(manifest.to_string());
    let pushed = client.push_manifest(&reference, media_type::OCI_MANIFEST, bytes.clone()).await;
    let found = client.resolve(&reference).await.unwrap();
    assert_eq!((found.digest, found.bytes), (pushed.unwrap(), bytes.to_vec()));
    assert_eq!(client.resolve_digest(&reference).await.unwrap(), found.digest);
    assert_eq!(client.small_blob(&repository, &config_digest, 10).await.unwrap(), b"{}");
    let length = Length::Exactly(layer.len() as u64);
    let blob = client.blob(&repository, &layer_digest, length).await.unwrap();
    let mut pulled = Vec::new();
    blob.copy_to(&mut pulled, |_| ()).await.unwrap();
    assert!(pulled == layer);
    // The blob can be mounted from there.
    let other: Repository = format!("{address}/other").parse().unwrap();
    let mounted = client.mount_blob(&other, &layer_digest, std::slice::from_ref(&repository)).await;
    assert_eq!(mounted.unwrap(), Some(repository));
}

#[tokio::test]
async fn what_is_pushed_can_be_pulled() {
    push_and_pull(&Client::default(), &FakeRegistry::start().address()).await;
}

#[tokio::test]
async fn a_real_registry_takes_and_gives() {
    if skip("a_real_registry_takes_and_gives", &[Need::Program("docker-registry")]) {
        return;
    }
    let registry = DockerRegistry::start();
    push_and_pull(&Client::default(), &registry.address()).await;
    // Now with a chunked upload.
    let client = Client::new(Options { monolithic: 0, chunk: 1 << 20, ..Options::default() });
    let repository: Repository = format!("{}/chunks", registry.address()).parse().unwrap();
    registry.take_log();
    let digest = push(&client, &repository, &Bytes::from(big().repeat(2))).await;
    assert!(client.has_blob(&repository, &digest).await.unwrap());
    let log = registry.take_log();
    assert_eq!(log.iter().filter(|line| line.starts_with("PATCH")).count(), 6, "{log:?}");
}

#[tokio::test]
async fn certificates_and_passwords_are_minded() {
    let needs = [Need::Program("docker-registry"), Need::Program("openssl")];
    if skip("certificates_and_passwords_are_minded", &needs) {
        return;
    }
    let all = RegistryOptions { tls: true, client_certificates: true, login: true };
    let registry = DockerRegistry::start_with(all);
    let address = registry.address();
    let docker = tempfile::tempdir().unwrap();
    let directory = docker.path().join(&address);
    std::fs::create_dir(&directory).unwrap();
    let copy = |from: &str, to: &str| {
        std::fs::copy(registry.file(from), directory.join(to)).unwrap();
    };
    let client = || {
        let docker_certificates = vec![docker.path().to_owned()];
        let hosts = HostSources { docker_certificates, ..HostSources::default() };
        let credentials = Arc::new(Login);
        Client::new(Options { attempts: 1, hosts, credentials, ..Options::default() })
    };
    let reference: Reference = format!("{address}/x").parse().unwrap();
    let refused = async || client().resolve(&reference).await.unwrap_err().to_string();
    let unknown = refused().await;
    assert!(unknown.contains("certificate"), "{unknown}");
    copy("ca.crt", "ca.crt");
    // A server that misses the client's certificate sends an alert or closes the connection.
    let nobody = client().resolve(&reference).await.unwrap_err();
    assert!(matches!(*nobody.problem, Problem::Transport(_)), "{nobody}");
    copy("client.crt", "me.cert");
    copy("client.key", "me.key");
    push_and_pull(&client(), &address).await;
    let anonymous =
        Options { credentials: Arc::new(Anonymous), ..client().transport.options.clone() };
    let error = Client::new(anonymous).resolve(&reference).await.unwrap_err();
    assert!(matches!(*error.problem, Problem::Denied(_)), "{error}");
}

//! Tests of requests to mirrors.

use std::sync::Arc;

use super::*;
use crate::hosts::HostSources;

fn client(text: &str) -> (Client, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registries.toml");
    std::fs::write(&path, text).unwrap();
    let hosts = HostSources { explicit: Some(path), ..HostSources::default() };
    let backoff = Duration::from_millis(1);
    (Client::new(Options { backoff, hosts, ..Options::default() }), dir)
}

#[tokio::test]
async fn mirrors_are_asked_first_and_passed_over() {
    let (mirror, broken) = (FakeRegistry::start(), FakeRegistry::start());
    let gone = FakeRegistry::start().address();
    let registry = FakeRegistry::start();
    let text = format!(
        "[registry.\"{}\"]\nmirrors = [\"{gone}\", \"{}\", \"http://{}/hub\"]\n",
        registry.address(),
        broken.address(),
        mirror.address()
    );
    let (client, _dir) = client(&text);
    let reference: Reference = format!("{}/a/b:1", registry.address()).parse().unwrap();
    let repository = Repository::from(&reference);
    broken.switch(|switches| switches.unavailable = 1000);
    mirror.put_manifest("hub/a/b", "1", media_type::OCI_MANIFEST, MANIFEST);
    let digest = mirror.put_blob(b"content");
    assert_eq!(client.resolve(&reference).await.unwrap().bytes, MANIFEST);
    assert_eq!(client.resolve_digest(&reference).await.unwrap(), Digest::of(MANIFEST));
    assert_eq!(client.small_blob(&repository, &digest, 10).await.unwrap(), b"content");
    assert!(registry.take_requests().is_empty());
    let asked = mirror.take_requests();
    let ns = format!("ns={}", registry.address().replace(':', "%3A"));
    assert!(asked.iter().skip(1).all(|it| it.path.starts_with("/v2/hub/a/b/")), "{asked:?}");
    assert!(asked.last().unwrap().path.ends_with(&ns), "{asked:?}");

    // If no mirror has the content, or its copy is corrupt, the registry serves it.
    let only_here = registry.put_blob(b"only here");
    assert_eq!(client.small_blob(&repository, &only_here, 10).await.unwrap(), b"only here");
    mirror.switch(|switches| switches.corrupt = true);
    registry.put_manifest("a/b", "1", media_type::OCI_MANIFEST, MANIFEST);
    assert_eq!(client.resolve(&reference).await.unwrap().bytes, MANIFEST);
    // Mirrors receive no pushes.
    mirror.take_requests();
    let upload = BlobUpload::of_bytes(bytes::Bytes::from_static(b"new"));
    client.push_blob(&repository, &upload, &[]).await.unwrap();
    assert!(mirror.take_requests().is_empty());
}

#[derive(Debug)]
struct For(String);

impl Credentials for For {
    fn get(
        &self,
        registry: &str,
        _: &str,
    ) -> Result<Option<Credential>, crate::credentials::CredentialError> {
        let credential =
            Credential::Password { username: "user".to_owned(), password: "secret".to_owned() };
        Ok((registry == self.0).then_some(credential))
    }
}

#[tokio::test]
async fn mirrors_are_not_told_the_registrys_password() {
    let (mirror, registry) = (FakeRegistry::start_at("127.0.0.2"), FakeRegistry::start());
    let text =
        format!("[registry.\"{}\"]\nmirrors = [\"{}\"]\n", registry.address(), mirror.address());
    let (plain, _dir) = client(&text);
    let mut options = plain.transport.options.clone();
    options.credentials = Arc::new(For(registry.address()));
    let client = Client::new(options);
    for each in [&mirror, &registry] {
        each.switch(|switches| switches.basic = Some(("user".into(), "secret".into())));
        each.put_manifest("a/b", "1", media_type::OCI_MANIFEST, MANIFEST);
    }
    let reference: Reference = format!("{}/a/b:1", registry.address()).parse().unwrap();
    client.resolve(&reference).await.unwrap();
    let there = mirror.take_requests();
    assert!(there.iter().any(|it| it.path.contains("manifests")));
    assert!(there.iter().all(|it| !it.headers.contains_key("authorization")));
    assert!(registry.take_requests().iter().any(|it| it.headers.contains_key("authorization")));
}

#[tokio::test]
async fn proxies_are_gone_through_but_not_to_this_machine() {
    let (proxy, here) = (FakeRegistry::start(), scene());
    let text = "[registry.\"registry.example.com\"]\nhttp = true\n";
    let (plain, _dir) = client(text);
    let mut options = plain.transport.options.clone();
    let address = Some(proxy.address());
    options.proxies = Proxies { http: address.clone(), https: address, ..Proxies::default() };
    let reference: Reference = "registry.example.com/a/b:1".parse().unwrap();
    let client = Client::new(options.clone());
    assert!(client.resolve(&reference).await.unwrap_err().is_not_found());
    let asked = proxy.take_requests();
    assert_eq!(asked[0].path, "http://registry.example.com/v2/a/b/manifests/1");
    client.resolve(&here.reference).await.unwrap();
    assert!(proxy.take_requests().is_empty());
    options.proxies.none = Some("example.com".to_owned());
    options.attempts = 1;
    options.connect_timeout = Duration::from_millis(200);
    assert!(Client::new(options).resolve(&reference).await.is_err());
    assert!(proxy.take_requests().is_empty());
}

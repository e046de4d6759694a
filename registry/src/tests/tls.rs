//! Tests of registries with certificates, and of the errors for faulty ones.

use std::path::Path;

use kiln_testkit::certificate::{Certificate, CertificateOptions};
use kiln_testkit::needs::{Need, skip};
use tempfile::TempDir;

use super::real::push_and_pull;
use super::*;
use crate::fetch::FetchRequest;
use crate::hint::{CertificateHint, Hint, Server, Setting};
use crate::hosts::HostSources;

const OPENSSL: [Need; 1] = [Need::Program("openssl")];

/// Returns a client with this text as its `registries.toml`.
fn client(toml: &str, change: impl FnOnce(&mut Options)) -> Client {
    let explicit = Some("/registries.toml".into());
    let explicit_text = Some(toml.to_owned());
    let hosts = HostSources { explicit, explicit_text, ..HostSources::default() };
    let mut options = Options { attempts: 2, backoff: Duration::ZERO, hosts, ..Options::default() };
    change(&mut options);
    Client::new(options)
}

/// Returns the `registries.toml` of a registry with a configured certificate.
fn given(address: &str, certificate: &Certificate) -> String {
    let path = certificate.path();
    format!("[registry.\"{address}\"]\nca = [\"{}\"]\n", path.display())
}

/// Stores a certificate in a directory in docker's format.
fn docker(address: &str, certificate: &Path) -> (TempDir, HostSources) {
    let docker = tempfile::tempdir().unwrap();
    let directory = docker.path().join(address);
    std::fs::create_dir(&directory).unwrap();
    std::fs::copy(certificate, directory.join("ca.crt")).unwrap();
    let docker_certificates = vec![docker.path().to_owned()];
    (docker, HostSources { docker_certificates, ..HostSources::default() })
}

/// Requests an image. Returns the error's message and hint.
async fn refused(client: &Client, name: &str) -> (String, Option<Hint>) {
    let error = client.resolve(&name.parse().unwrap()).await.unwrap_err();
    let text = error.to_string();
    assert_eq!(kiln_oci::error::chain(&error), text, "the message contains the sources");
    let text = text.strip_prefix(&format!("{}: ", name.parse::<Reference>().unwrap()));
    (text.unwrap_or_default().to_owned(), error.hint())
}

#[tokio::test]
async fn certificates_as_dockers_manual_makes_them_are_trusted_for_their_host() {
    if skip("certificates_as_dockers_manual_makes_them_are_trusted_for_their_host", &OPENSSL) {
        return;
    }
    let certificate = Certificate::of_manual("IP:127.0.0.1");
    let registry = FakeRegistry::start_tls(&certificate);
    let address = registry.address();
    push_and_pull(&client(&given(&address, &certificate), |_| ()), &address).await;
    let (_docker, hosts) = docker(&address, &certificate.path());
    let of_docker = client("", |options| options.hosts = hosts);
    push_and_pull(&of_docker, &address).await;
    // The token server is on the same port or on another port of the same host.
    registry.switch(|switches| switches.require_token = true);
    push_and_pull(&client(&given(&address, &certificate), |_| ()), &address).await;
    let tokens = FakeRegistry::start_tls(&certificate);
    let realm = format!("https://{}/token", tokens.address());
    registry.switch(|switches| switches.realm = Some(realm));
    push_and_pull(&client(&given(&address, &certificate), |_| ()), &address).await;
    let asked = tokens.take_requests();
    assert!(!asked.is_empty() && asked.iter().all(|request| request.path.starts_with("/token")));
    // The certificate applies to a mirror, but not to another host with the same certificate.
    registry.switch(|switches| switches.require_token = false);
    let mirrored = format!(
        "{}[registry.\"docker.io\"]\nmirrors = [\"{address}\"]\nonly-mirrors = true\n",
        given(&address, &certificate)
    );
    let reference: Reference = "docker.io/library/base:latest".parse().unwrap();
    client(&mirrored, |_| ()).resolve(&reference).await.unwrap();
    let stranger = FakeRegistry::start_tls(&certificate);
    let name = format!("{}/a/b:1", stranger.address());
    let (problem, _) = refused(&client(&given(&address, &certificate), |_| ()), &name).await;
    assert_eq!(problem, "the server's certificate is signed by an unknown authority");
    // Nor does it apply to a host that the registry redirects to.
    let digest = registry.put_blob(b"content");
    let elsewhere = format!("https://{}", stranger.address());
    registry.switch(|switches| switches.blobs_at = Some(elsewhere));
    let repository: Repository = format!("{address}/a/b").parse().unwrap();
    let led = client(&given(&address, &certificate), |_| ());
    let error = led.blob(&repository, &digest, Length::Exactly(7)).await.unwrap_err();
    let expected = format!(
        "{repository}@{digest}: {}, where the server leads: the server's certificate is signed by an \
         unknown authority",
        stranger.address()
    );
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_said_once_with_a_way_out() {
    if skip("what_is_wrong_with_a_certificate_is_said_once_with_a_way_out", &OPENSSL) {
        return;
    }
    let of = |names, years| CertificateOptions { names, years, ..CertificateOptions::default() };
    let here = "IP:127.0.0.1";
    let other_host = |has_names| CertificateHint::NameHost { subject: here.into(), has_names };
    for (options, is_given, problem, hint) in [
        (of(here, (2020, 2099)), false, "is signed by an unknown authority", None),
        (
            of(here, (2020, 2021)),
            true,
            "has expired: it was valid until 2021-12-31 23:59:59 UTC",
            Some(CertificateHint::Renew),
        ),
        (
            of(here, (2098, 2099)),
            true,
            "is not valid yet: it will be from 2098-01-01 00:00:00 UTC",
            Some(CertificateHint::Renew),
        ),
        (
            of("DNS:example.com,IP:10.0.0.1", (2020, 2099)),
            true,
            "is not valid for 127.0.0.1, but for example.com, 10.0.0.1",
            Some(other_host(true)),
        ),
        (
            of("", (2020, 2099)),
            true,
            "is not valid for 127.0.0.1: it has no subjectAltName",
            Some(other_host(false)),
        ),
    ] {
        let certificate = Certificate::self_signed(options);
        let registry = FakeRegistry::start_tls(&certificate);
        let address = registry.address();
        let toml = if is_given { given(&address, &certificate) } else { String::new() };
        let client = client(&toml, |_| ());
        let (text, help) = refused(&client, &format!("{address}/a/b:1")).await;
        assert_eq!(text, format!("the server's certificate {problem}"));
        let hint = hint.unwrap_or(CertificateHint::TrustAuthority { host: address.clone() });
        assert_eq!(help, Some(Hint::Certificate(hint)));
        // Downloads from URLs fail in the same way.
        let request =
            FetchRequest { url: format!("https://{address}/f"), ..FetchRequest::default() };
        let error = client.fetch(&request).await.unwrap_err();
        assert_eq!(error.to_string(), format!("https://{address}/f: {text}"));
        assert_eq!(error.hint(), help);
    }
}

#[tokio::test]
async fn schemes_that_are_mistaken_are_said() {
    if skip("schemes_that_are_mistaken_are_said", &OPENSSL) {
        return;
    }
    let plain = FakeRegistry::start();
    let address = plain.address();
    let answered = "the server answered in plain HTTP".to_owned();
    let set = |replaces_trust| {
        let setting = Setting::Registry(address.clone());
        Some(Hint::UsePlainHttp { setting, replaces_trust })
    };
    let name = format!("{address}/a/b:1");
    let secure = client(&format!("[registry.\"{address}\"]\nhttp = false\n"), |_| ());
    assert_eq!(refused(&secure, &name).await, (answered.clone(), set(false)));
    let insecure =
        client(&format!("[registry.\"{address}\"]\ninsecure = true\nhttp = false\n"), |_| ());
    assert_eq!(refused(&insecure, &name).await, (answered.clone(), set(true)));
    // The client did not retry.
    assert!(plain.take_requests().iter().all(|request| request.path == "/"));
    let mirror = format!(
        "[registry.\"docker.io\"]\nmirrors = [\"https://{address}\"]\nonly-mirrors = true\n"
    );
    let (problem, hint) = refused(&client(&mirror, |_| ()), "docker.io/library/x:1").await;
    assert_eq!(problem, format!("mirror {address}: {answered}"));
    let plain = |setting| Some(Hint::UsePlainHttp { setting, replaces_trust: false });
    assert_eq!(hint, plain(Setting::Mirror(address.clone())));
    let request = FetchRequest { url: format!("https://{address}/f"), ..FetchRequest::default() };
    let error = client("", |_| ()).fetch(&request).await.unwrap_err();
    assert_eq!(error.to_string(), format!("https://{address}/f: {answered}"));
    assert_eq!(error.hint(), plain(Setting::Url));

    let tls = FakeRegistry::start_tls(&Certificate::self_signed(CertificateOptions::default()));
    let address = tls.address();
    let plain = client(&format!("[registry.\"{address}\"]\nhttp = true\n"), |_| ());
    let (problem, hint) = refused(&plain, &format!("{address}/a/b:1")).await;
    assert_eq!(problem, "the server was asked in plain HTTP and wants https");
    assert_eq!(hint, Some(Hint::UseHttps(Setting::Registry(address))));
}

#[tokio::test]
async fn hosts_and_proxies_that_are_not_there_are_named() {
    let gone = FakeRegistry::start().address();
    let (problem, hint) = refused(&client("", |_| ()), &format!("{gone}/a/b:1")).await;
    assert_eq!(problem, format!("connect to {gone}: connection refused"));
    assert_eq!(hint, Some(Hint::CheckServer(Server::Registry)));
    let (problem, hint) = refused(&client("", |_| ()), "registry.invalid/a/b:1").await;
    assert!(problem.starts_with("can't resolve the host registry.invalid: "), "{problem}");
    assert_eq!(hint, Some(Hint::CheckHostName));
    let by = |proxy: &str| {
        let https = Some(proxy.to_owned());
        client("", |options| options.proxies = Proxies { https, ..Proxies::default() })
    };
    let (problem, hint) =
        refused(&by(&format!("http://u:p@{gone}")), "registry.invalid/a/b:1").await;
    assert_eq!(problem, format!("connect to the proxy {gone}: connection refused"));
    assert_eq!(hint, Some(Hint::CheckProxy { host: "registry.invalid".to_owned() }));
    let (problem, _) = refused(&by("http://proxy.invalid:3128"), "registry.invalid/a/b:1").await;
    assert!(
        problem.starts_with("connect to the proxy proxy.invalid:3128: can't resolve it"),
        "{problem}"
    );
    let unwilling = FakeRegistry::start();
    let address = unwilling.address();
    let (problem, _) = refused(&by(&format!("http://{address}")), "registry.invalid/a/b:1").await;
    assert_eq!(problem, format!("the proxy {address} refuses to connect to registry.invalid"));
    let plain = Proxies { http: Some(format!("http://{gone}")), ..Proxies::default() };
    let toml = "[registry.\"registry.invalid\"]\nhttp = true\n";
    let client = client(toml, |options| options.proxies = plain);
    let (problem, _) = refused(&client, "registry.invalid/a/b:1").await;
    assert_eq!(problem, format!("connect to the proxy {gone}: connection refused"));
}

#[tokio::test]
async fn refusals_have_the_same_hint_wherever_they_come() {
    let scene = scene();
    let address = scene.registry.address();
    let digest = scene.registry.put_blob(b"content");
    let login = Hint::LogIn { registry: address };
    let upload = BlobUpload::of_bytes(bytes::Bytes::from_static(b"upload"));
    let forbid = |part: &str| {
        scene.registry.switch(|switches| switches.forbidden = Some(part.to_owned()));
    };
    let hint = |error: Error| {
        assert!(
            error.is_denied() && error.to_string().matches("not for you").count() <= 1,
            "{error}"
        );
        error.hint()
    };
    forbid("/manifests/");
    let error = scene.client.resolve(&scene.reference).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{}: access denied: not for you (403 Forbidden)", scene.reference)
    );
    assert_eq!(hint(error).as_ref(), Some(&login));
    let bytes = bytes::Bytes::from_static(MANIFEST);
    let pushed =
        scene.client.push_manifest(&scene.reference, media_type::OCI_MANIFEST, bytes).await;
    assert_eq!(hint(pushed.unwrap_err()).as_ref(), Some(&login));
    forbid("/blobs/");
    let error = scene.pull(&digest, Length::Exactly(7)).await.unwrap_err();
    assert_eq!(hint(error).as_ref(), Some(&login));
    let error = scene.client.small_blob(&scene.repository, &digest, 100).await.unwrap_err();
    assert_eq!(hint(error).as_ref(), Some(&login));
    let error = scene.client.push_blob(&scene.repository, &upload, &[]).await.unwrap_err();
    assert_eq!(hint(error).as_ref(), Some(&login));
    forbid("/blobs/uploads/");
    let error = scene.client.push_blob(&scene.repository, &upload, &[]).await.unwrap_err();
    assert_eq!(hint(error).as_ref(), Some(&login));
    scene.registry.switch(|switches| switches.require_token = true);
    forbid("/token");
    let error = scene.client.resolve(&scene.reference).await.unwrap_err();
    assert_eq!(hint(error).as_ref(), Some(&login));
}

#[tokio::test]
async fn a_status_has_the_same_hint_for_a_manifest_and_a_layer() {
    let scene = scene();
    let registry = scene.registry.address();
    let digest = scene.registry.put_blob(b"content");
    for (status, expected) in [
        (401, Hint::LogIn { registry: registry.clone() }),
        (403, Hint::LogIn { registry }),
        (404, Hint::CheckSpelling),
        (429, Hint::AvoidRateLimit),
    ] {
        let refuse = |part: &str| {
            scene.registry.switch(|switches| switches.refused = Some((part.to_owned(), status)));
        };
        refuse("/manifests/");
        let of_manifest = scene.client.resolve(&scene.reference).await.unwrap_err().hint();
        refuse("/blobs/");
        let of_layer = scene.pull(&digest, Length::Exactly(7)).await.unwrap_err().hint();
        assert_eq!(of_manifest.as_ref(), Some(&expected), "manifest, {status}");
        assert_eq!(of_layer, Some(expected), "layer, {status}");
    }
}

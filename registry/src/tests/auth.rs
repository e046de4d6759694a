//! Tests of authentication and of the recipients of credentials.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use kiln_testkit::fake_registry::{REFRESH_TOKEN, Request, TOKEN, TokenKind};

use super::*;
use crate::credentials::CredentialError;

/// A source with one credential for one registry. It records the registries of all calls.
#[derive(Clone, Debug)]
struct One {
    registry: Arc<Mutex<String>>,
    credential: Credential,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Credentials for One {
    fn get(&self, registry: &str, _: &str) -> Result<Option<Credential>, CredentialError> {
        self.asked.lock().unwrap().push(registry.to_owned());
        let own = *self.registry.lock().unwrap() == registry;
        Ok(own.then(|| self.credential.clone()))
    }
}

fn password() -> Credential {
    Credential::Password { username: "user".to_owned(), password: "secret".to_owned() }
}

/// Returns a scene with credentials for its registry.
fn scene_of(credential: Credential) -> (Scene, One) {
    let (registry, asked) = (Arc::default(), Arc::default());
    let one = One { registry, credential, asked };
    let scene = scene_with(|options| options.credentials = Arc::new(one.clone()));
    *one.registry.lock().unwrap() = scene.registry.address();
    scene.registry.switch(|switches| {
        switches.require_token = true;
        switches.login = Some(("user".to_owned(), "secret".to_owned()));
    });
    (scene, one)
}

fn authorization(request: &Request) -> Option<&str> {
    request.headers.get("authorization").map(String::as_str)
}

#[tokio::test]
async fn passwords_are_told_to_the_token_server() {
    let (scene, one) = scene_of(password());
    scene.client.resolve(&scene.reference).await.unwrap();
    let requests = scene.registry.take_requests();
    let basic = "Basic dXNlcjpzZWNyZXQ=";
    let asked: Vec<_> = requests.iter().filter(|it| it.path.starts_with("/token")).collect();
    assert_eq!(asked.len(), 1);
    assert_eq!(authorization(asked[0]), Some(basic));
    assert!(asked[0].path.starts_with("/token?account=user&client_id=kiln&service=fake&scope="));
    // The registry itself receives the token only.
    let told = requests.iter().filter(|it| authorization(it) == Some(basic)).count();
    assert_eq!(told, 1);
    assert_eq!(*one.asked.lock().unwrap(), [scene.registry.address()]);
}

#[tokio::test]
async fn token_servers_of_other_kinds_are_understood() {
    let (scene, _) = scene_of(password());
    scene.registry.switch(|switches| switches.token_kind = TokenKind::Post);
    scene.client.resolve(&scene.reference).await.unwrap();
    let requests = scene.registry.take_requests();
    let posted = requests.iter().find(|it| it.method == "POST").unwrap();
    let body = String::from_utf8_lossy(&posted.body);
    assert!(body.contains("grant_type=password") && body.contains("&scope=repository"), "{body}");
    assert_eq!(authorization(posted), None);

    let (scene, _) = scene_of(Credential::Identity { token: REFRESH_TOKEN.to_owned() });
    scene.registry.switch(|switches| switches.token_kind = TokenKind::Post);
    scene.client.resolve(&scene.reference).await.unwrap();
    let requests = scene.registry.take_requests();
    let posted = requests.iter().find(|it| it.method == "POST").unwrap();
    assert!(String::from_utf8_lossy(&posted.body).starts_with("grant_type=refresh_token&refresh"));

    let (scene, _) = scene_of(Credential::Registry { token: TOKEN.to_owned() });
    scene.client.resolve(&scene.reference).await.unwrap();
    assert!(!scene.registry.take_requests().iter().any(|it| it.path.starts_with("/token")));
}

#[tokio::test]
async fn registries_with_passwords_are_told_them() {
    let (scene, _) = scene_of(password());
    scene.registry.switch(|switches| {
        switches.basic = Some(("user".to_owned(), "secret".to_owned()));
    });
    scene.client.resolve(&scene.reference).await.unwrap();
    scene.client.resolve(&scene.reference).await.unwrap();
    let basic = Some("Basic dXNlcjpzZWNyZXQ=");
    let requests = scene.registry.take_requests();
    let with = requests.iter().filter(|it| authorization(it) == basic).count();
    // The first request is refused. From then on the authorization is known.
    let manifests = requests.iter().filter(|it| it.path.contains("manifests")).count();
    assert_eq!((with, manifests), (2, 3));
}

#[tokio::test]
async fn wrong_passwords_are_refused_clearly() {
    let wrong = Credential::Password { username: "user".into(), password: "guess".into() };
    let (scene, _) = scene_of(wrong);
    let error = scene.client.resolve(&scene.reference).await.unwrap_err();
    let expected = format!(
        "{}: access denied: the token server refuses: incorrect username or password \
         (401 Unauthorized)",
        scene.reference
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.hint(), Some(Hint::LogIn { registry: scene.registry.address() }));
    scene.registry.switch(|switches| switches.basic = Some(("user".into(), "secret".into())));
    let error = scene.client.resolve(&scene.reference).await.unwrap_err().to_string();
    assert!(error.contains("access denied"), "{error}");
    assert!(!error.contains("guess"));
}

#[tokio::test]
async fn private_registries_are_refused_clearly() {
    let scene = scene();
    for (scheme, text) in [
        ("Basic", "access denied: the registry asks for a name and a password"),
        ("Negotiate", "access denied: the registry asks for Negotiate authentication"),
    ] {
        scene.registry.switch(|switches| {
            switches.require_token = true;
            switches.scheme = Some(scheme.to_owned());
        });
        let error = scene.client.resolve(&scene.reference).await.unwrap_err();
        assert!(error.to_string().ends_with(text), "{error}");
        assert!(matches!(error.hint(), Some(Hint::LogIn { .. })));
    }
}

#[tokio::test]
async fn passwords_stay_where_they_belong() {
    let (scene, _) = scene_of(password());
    let other = FakeRegistry::start_at("127.0.0.2");
    let realm = format!("http://{}/token", other.address());
    scene.registry.switch(|switches| switches.realm = Some(realm));
    let error = scene.client.resolve(&scene.reference).await.unwrap_err();
    assert!(matches!(*error.problem, Problem::Foreign { .. }), "{error}");
    assert!(matches!(error.hint(), Some(Hint::TrustTokenServer { .. })));
    assert!(other.take_requests().is_empty());

    // A configured token server receives the credentials.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("registries.toml");
    let text =
        format!("[registry.\"{}\"]\ntoken-servers = [\"127.0.0.2\"]\n", scene.registry.address());
    std::fs::write(&file, text).unwrap();
    let mut options = scene.client.transport.options.clone();
    options.hosts.explicit = Some(file);
    other.switch(|switches| switches.login = Some(("user".to_owned(), "secret".to_owned())));
    Client::new(options).resolve(&scene.reference).await.unwrap();
    assert_eq!(other.take_requests().len(), 1);
}

#[tokio::test]
async fn nothing_goes_with_a_redirect() {
    for kind in ["token", "basic"] {
        let (scene, one) = scene_of(password());
        if kind == "basic" {
            let login = Some(("user".to_owned(), "secret".to_owned()));
            scene.registry.switch(|switches| switches.basic = login);
        }
        let other = FakeRegistry::start_at("127.0.0.2");
        other.put_blob(b"content");
        let digest = scene.registry.put_blob(b"content");
        let elsewhere = format!("http://{}", other.address());
        scene.registry.switch(|switches| switches.blobs_at = Some(elsewhere));
        scene.pull(&digest, Length::Exactly(7)).await.unwrap();
        // A challenge of the other host is not answered, whatever it names.
        let realm = format!("http://{}/token", scene.registry.address());
        other.switch(|switches| {
            switches.require_token = true;
            switches.realm = Some(realm);
        });
        assert!(scene.pull(&digest, Length::Exactly(7)).await.is_err());
        other.switch(|switches| switches.basic = Some(("a".to_owned(), "b".to_owned())));
        assert!(scene.pull(&digest, Length::Exactly(7)).await.is_err());
        let there = other.take_requests();
        assert_eq!(there.len(), 3);
        assert!(there.iter().all(|it| authorization(it).is_none()), "{there:?}");
        let asked = one.asked.lock().unwrap();
        assert!(asked.iter().all(|asked| *asked == scene.registry.address()));
    }
}

#[tokio::test]
async fn logging_in_checks_and_exchanges() {
    let (scene, _) = scene_of(password());
    let registry = scene.registry.address();
    assert_eq!(scene.client.login(&registry, &password()).await.unwrap(), password());
    scene.registry.switch(|switches| switches.token_kind = TokenKind::Identity);
    let identity = Credential::Identity { token: REFRESH_TOKEN.to_owned() };
    assert_eq!(scene.client.login(&registry, &password()).await.unwrap(), identity);
    assert_eq!(scene.client.login(&registry, &identity).await.unwrap(), identity);
    let wrong = Credential::Password { username: "user".into(), password: "x".into() };
    let error = scene.client.login(&registry, &wrong).await.unwrap_err();
    assert!(error.to_string().contains("incorrect username or password"), "{error}");
    scene.registry.switch(|switches| switches.basic = Some(("user".into(), "secret".into())));
    assert_eq!(scene.client.login(&registry, &password()).await.unwrap(), password());
    assert!(scene.client.login(&registry, &wrong).await.is_err());
}

#[tokio::test]
async fn tokens_are_asked_for_once_and_by_scope() {
    let scene = scene();
    scene.registry.switch(|switches| switches.require_token = true);
    let digest = scene.registry.put_blob(b"content");
    scene.client.resolve(&scene.reference).await.unwrap();
    let pulls: Vec<_> = (0..5).map(|_| scene.pull(&digest, Length::Exactly(7))).collect();
    for bytes in futures_util::future::join_all(pulls).await {
        assert_eq!(bytes.unwrap(), b"content");
    }
    let requests = scene.registry.take_requests();
    let tokens: Vec<_> =
        requests.iter().filter(|request| request.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(
        tokens[0].path,
        "/token?client_id=kiln&service=fake&scope=repository%3Aa%2Fb%3Apull"
    );
    let upload = BlobUpload::of_bytes(Bytes::from_static(b"new"));
    scene.client.push_blob(&scene.repository, &upload, &[]).await.unwrap();
    let pushed = scene.registry.take_requests();
    assert!(pushed.iter().any(|request| request.path.ends_with("%3Apull%2Cpush")));
}

#[tokio::test]
async fn tokens_stay_with_their_registry() {
    let (scene, other) = (scene(), FakeRegistry::start());
    let digest = scene.registry.put_blob(b"content");
    other.put_blob(b"content");
    scene.registry.switch(|switches| {
        switches.require_token = true;
        switches.blobs_at = Some(format!("http://{}", other.address()));
    });
    assert_eq!(scene.pull(&digest, Length::Exactly(7)).await.unwrap(), b"content");
    let header = Some(format!("Bearer {TOKEN}"));
    let here = scene.registry.take_requests();
    assert!(here.iter().any(|request| request.headers.get("authorization") == header.as_ref()));
    let there = other.take_requests();
    assert_eq!(there.len(), 1);
    assert_eq!(there[0].headers.get("authorization"), None);
    // A challenge of the other host gets no token either.
    other.switch(|switches| switches.require_token = true);
    let error = scene.pull(&digest, Length::Exactly(7)).await.unwrap_err();
    assert!(matches!(*error.problem, Problem::Denied(_)), "{error}");
    let asked = |request: &kiln_testkit::fake_registry::Request| request.path.starts_with("/token");
    assert!(!other.take_requests().iter().any(asked));
}

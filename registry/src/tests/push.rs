//! Tests of uploads to a misbehaving registry.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::*;

fn methods(scene: &Scene) -> Vec<String> {
    let requests = scene.registry.take_requests();
    let of_blobs = requests.iter().filter(|it| it.path.contains("/blobs/"));
    of_blobs.map(|it| it.method.clone()).collect()
}

impl Scene {
    async fn push(&self, bytes: &[u8]) -> Result<Pushed, Error> {
        let upload = BlobUpload::of_bytes(Bytes::copy_from_slice(bytes));
        self.client.push_blob(&self.repository, &upload, &[]).await
    }

    fn has(&self, bytes: &[u8]) -> bool {
        self.registry.blobs_of("a/b").contains(&Digest::of(bytes))
    }
}

#[tokio::test]
async fn what_is_there_is_not_sent() {
    let scene = scene();
    assert_eq!(scene.push(b"content").await.unwrap(), Pushed::Sent);
    assert_eq!(methods(&scene), ["HEAD", "POST", "PUT"]);
    assert_eq!(scene.push(b"content").await.unwrap(), Pushed::Existed);
    assert_eq!(methods(&scene), ["HEAD"]);
    scene.registry.switch(|switches| switches.no_head = true);
    assert_eq!(scene.push(b"other").await.unwrap(), Pushed::Sent);
    assert_eq!(scene.push(b"").await.unwrap(), Pushed::Sent);
    assert!(scene.has(b"content") && scene.has(b"other") && scene.has(b""));
}

#[tokio::test]
async fn files_are_streamed_and_progress_is_told() {
    let scene = scene();
    let content = big();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &content).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let upload = BlobUpload {
        digest: Digest::of(&content),
        size: content.len() as u64,
        source: BlobSource::File(Arc::new(file.reopen().unwrap())),
        sent: {
            let told = Arc::clone(&told);
            Arc::new(move |bytes| told.lock().unwrap().push(bytes))
        },
    };
    scene.client.push_blob(&scene.repository, &upload, &[]).await.unwrap();
    assert!(scene.has(&content));
    let told = told.lock().unwrap();
    assert!(told.is_sorted() && told.len() > 5);
    assert_eq!(told.last(), Some(&(content.len() as u64)));
}

#[tokio::test]
async fn uploads_go_on_where_they_were_cut_off() {
    let content = big();
    let half = content.len() / 2;
    for (monolithic, forgets) in [(u64::MAX, false), (0, false), (u64::MAX, true), (0, true)] {
        let scene = scene_with(|options| {
            options.monolithic = monolithic;
            options.chunk = 1 << 20;
        });
        scene.registry.switch(|switches| {
            switches.upload_cuts = 2;
            switches.forgets_uploads = forgets;
        });
        assert_eq!(scene.push(&content).await.unwrap(), Pushed::Sent);
        assert!(scene.has(&content), "{monolithic} {forgets}");
        let requests = scene.registry.take_requests();
        assert_eq!(requests.iter().filter(|it| it.was_cut).count(), 2);
        if !forgets {
            assert_eq!(requests.iter().filter(|it| it.method == "POST").count(), 1);
            let sent: usize = requests.iter().map(|it| it.body.len()).sum();
            assert_eq!(sent, content.len(), "nothing is sent twice");
        }
        if monolithic > 0 && !forgets {
            let range = requests.iter().find_map(|it| it.headers.get("content-range")).unwrap();
            assert!(range.starts_with(&format!("{half}-")), "{range}");
        }
    }
    let scene = scene();
    scene.registry.switch(|switches| {
        switches.upload_cuts = 100;
        switches.forgets_uploads = true;
    });
    let error = scene.push(&content).await.unwrap_err();
    assert!(matches!(*error.problem, Problem::Transport(_)), "{error}");
}

#[tokio::test]
async fn large_requests_that_are_refused_become_small_ones() {
    let scene = scene();
    let content: Vec<u8> = big().repeat(3);
    scene.registry.switch(|switches| switches.max_body = Some(3 << 20));
    assert_eq!(scene.push(&content).await.unwrap(), Pushed::Sent);
    assert!(scene.has(&content));
}

#[tokio::test]
async fn passing_troubles_of_uploads_are_waited_out() {
    let scene = scene();
    scene.registry.switch(|switches| {
        switches.limited = 2;
        switches.unavailable = 2;
    });
    assert_eq!(scene.push(b"content").await.unwrap(), Pushed::Sent);
    scene.registry.switch(|switches| switches.unavailable = 100);
    let error = scene.push(b"more").await.unwrap_err().to_string();
    assert!(error.contains("503") && error.contains("a/b@sha256:"), "{error}");
}

#[tokio::test]
async fn blobs_of_other_repositories_are_mounted() {
    let scene = scene();
    let digest = scene.registry.put_blob_in("other/place", b"content");
    let from = |name: &str| -> Repository {
        format!("{}/{name}", scene.registry.address()).parse().unwrap()
    };
    let upload = BlobUpload::of_bytes(Bytes::from_static(b"content"));
    let sources = ["not/there", "other/place"].map(from);
    scene.registry.switch(|switches| switches.require_token = true);
    let pushed = scene.client.push_blob(&scene.repository, &upload, &sources).await.unwrap();
    assert_eq!(pushed, Pushed::Mounted(from("other/place")));
    assert_eq!(scene.registry.blobs_of("a/b"), [digest]);
    let requests = scene.registry.take_requests();
    let token = requests.iter().rfind(|it| it.path.starts_with("/token")).unwrap();
    assert!(token.path.contains("scope=repository%3Aother%2Fplace%3Apull"), "{}", token.path);
    assert!(!requests.iter().any(|it| it.method == "PUT"));

    // Repositories of another registry are ignored.
    let foreign: Repository = "registry.example.com/other/place".parse().unwrap();
    let mounted = scene.client.mount_blob(&scene.repository, &digest, &[foreign]).await.unwrap();
    assert_eq!(mounted, None);
    scene.registry.switch(|switches| switches.no_mounts = true);
    let more = scene.registry.put_blob_in("other/place", b"more");
    let upload = BlobUpload::of_bytes(Bytes::from_static(b"more"));
    let pushed = scene.client.push_blob(&scene.repository, &upload, &sources).await.unwrap();
    assert_eq!(pushed, Pushed::Sent);
    assert!(scene.registry.blobs_of("a/b").contains(&more));
}

#[tokio::test]
async fn manifests_go_by_tag_and_by_digest() {
    let scene = scene();
    let bytes = Bytes::from_static(MANIFEST);
    let digest = Digest::of(MANIFEST);
    let name = format!("{}/new/one", scene.registry.address());
    let tagged: Reference = format!("{name}:2").parse().unwrap();
    let pinned: Reference = format!("{name}@{digest}").parse().unwrap();
    let repository = Repository::from(&pinned);
    assert!(!scene.client.has_manifest(&repository, &digest).await.unwrap());
    let kind = media_type::OCI_MANIFEST;
    for reference in [&pinned, &tagged] {
        let pushed = scene.client.push_manifest(reference, kind, bytes.clone()).await.unwrap();
        assert_eq!(pushed, digest);
        assert_eq!(scene.client.resolve(reference).await.unwrap().bytes, MANIFEST);
    }
    assert!(scene.client.has_manifest(&repository, &digest).await.unwrap());
    let wrong = tagged.with_digest(Digest::of(b"other"));
    let error = scene.client.push_manifest(&wrong, kind, bytes).await.unwrap_err();
    assert!(matches!(*error.problem, Problem::Digest { .. }), "{error}");
}

#[tokio::test]
async fn a_registry_that_keeps_nothing_is_given_up() {
    let scene = scene_with(|options| {
        options.monolithic = 0;
        options.chunk = 1 << 20;
    });
    scene.registry.switch(|switches| switches.keeps_nothing = true);
    let error = scene.push(&big()).await.unwrap_err();
    assert!(error.to_string().contains("keeps hardly any"), "{error}");
    assert!(methods(&scene).len() < 20);
    scene.registry.switch(|switches| {
        switches.keeps_nothing = false;
        switches.keeps_little = true;
    });
    let error = scene.push(&big()).await.unwrap_err();
    assert!(error.to_string().contains("keeps hardly any"), "{error}");
    assert!(methods(&scene).len() < 20);
}

/// Returns a blob that is larger than all buffers on its way.
fn huge() -> Vec<u8> {
    big().repeat(8)
}

#[tokio::test]
async fn an_upload_may_take_longer_than_an_answer() {
    let scene = scene_with(|options| {
        options.read_timeout = Duration::from_millis(300);
        options.attempts = 1;
    });
    scene.registry.switch(|switches| switches.read_pause = Some(Duration::from_millis(50)));
    let begun = std::time::Instant::now();
    assert_eq!(scene.push(&huge()).await.unwrap(), Pushed::Sent);
    assert!(begun.elapsed() > Duration::from_millis(600), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_upload_that_nothing_is_taken_of_is_given_up() {
    let scene = scene_with(|options| {
        options.read_timeout = Duration::from_millis(50);
        options.attempts = 2;
    });
    scene.registry.switch(|switches| switches.read_pause = Some(Duration::from_secs(3)));
    let error = scene.push(&huge()).await.unwrap_err();
    assert!(matches!(*error.problem, Problem::Stalled(_)), "{error}");
}

#[tokio::test]
async fn what_is_there_by_another_digest_is_not_there() {
    let scene = scene();
    scene.push(b"content").await.unwrap();
    scene.registry.switch(|switches| switches.wrong_announcement = true);
    // The client sends the blob again, and the registry announces another digest.
    let error = scene.push(b"content").await.unwrap_err();
    assert!(matches!(*error.problem, Problem::Digest { .. }), "{error}");
    assert!(methods(&scene).contains(&"PUT".to_owned()));
    let digest = Digest::of(MANIFEST);
    assert!(!scene.client.has_manifest(&scene.repository, &digest).await.unwrap());
}

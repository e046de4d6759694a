//! Tests with answers that never end or arrive slowly.

use kiln_testkit::{Answer, FileServer};

use super::*;

/// A server of tag lists with a client.
struct Lists {
    server: FileServer,
    client: Client,
    repository: Repository,
}

impl Lists {
    fn new() -> Self {
        let server = FileServer::start();
        server.put("/v2/", Answer::of("{}"));
        let name = server.url("/a/b:1").replace("http://", "");
        let reference: Reference = name.parse().unwrap();
        let options = Options { attempts: 1, ..Options::default() };
        Self { server, client: Client::new(options), repository: Repository::from(&reference) }
    }

    fn put(&self, query: &str, tags: &[&str], next: Option<&str>) {
        let text = serde_json::json!({ "tags": tags }).to_string();
        let mut answer = Answer::of(text);
        if let Some(next) = next {
            answer = answer.with("Link", &format!("<{next}>; rel=\"next\""));
        }
        self.server.put(&format!("/v2/a/b/tags/list{query}"), answer);
    }

    async fn refusal(&self) -> String {
        self.client.tags(&self.repository).await.unwrap_err().to_string()
    }
}

#[tokio::test]
async fn lists_of_tags_end() {
    let lists = Lists::new();
    lists.put("", &["a", "b"], Some("/v2/a/b/tags/list?last=b"));
    lists.put("?last=b", &["b", "c"], None);
    assert_eq!(lists.client.tags(&lists.repository).await.unwrap(), ["a", "b", "c"]);
    // The same URL, the same names at another URL, another host.
    lists.put("?last=b", &["c"], Some("/v2/a/b/tags/list?last=b"));
    assert!(lists.refusal().await.contains("repeats"));
    lists.put("?last=b", &["a", "b"], Some("/v2/a/b/tags/list?last=x"));
    assert!(lists.refusal().await.contains("repeats"));
    lists.put("?last=b", &["c"], Some("http://other.example/v2/a/b/tags/list"));
    assert!(lists.refusal().await.contains("goes on at other.example"));
    // A wrong port from a registry behind a proxy doesn't make it another host.
    let moved = "http://127.0.0.1:1/v2/a/b/tags/list?last=c";
    lists.put("?last=b", &["c"], Some(moved));
    lists.put("?last=c", &["d"], None);
    assert_eq!(lists.client.tags(&lists.repository).await.unwrap().len(), 4);
}

#[tokio::test]
async fn referrers_are_listed_by_the_registry_or_under_a_tag() {
    let lists = Lists::new();
    let digest = Digest::of(b"x");
    let referrers = || async { lists.client.referrers(&lists.repository, &digest).await };
    assert!(referrers().await.unwrap().is_empty());
    let index = |name: &str| {
        let entry = kiln_oci::Descriptor::new("x/y", &Digest::of(name.as_bytes()), 1);
        let media_type = kiln_oci::media_type::OCI_INDEX;
        let index = kiln_oci::ImageIndex::new(media_type, vec![entry]);
        Answer::of(serde_json::to_string(&index).unwrap())
    };
    lists.server.put(&format!("/v2/a/b/manifests/sha256-{}", digest.hex()), index("tag"));
    let found = referrers().await.unwrap();
    assert_eq!(found[0].digest, Digest::of(b"tag").to_string());
    lists.server.put(&format!("/v2/a/b/referrers/{digest}"), index("list"));
    let found = referrers().await.unwrap();
    assert_eq!(found[0].digest, Digest::of(b"list").to_string());
    lists.server.put(&format!("/v2/a/b/referrers/{digest}"), Answer::of("nonsense"));
    assert!(referrers().await.unwrap_err().to_string().contains("lists no referrers"));
}

#[tokio::test]
async fn blobs_that_hardly_come_are_given_up() {
    let document = Duration::from_mins(1);
    let pace = |bytes| Some(MinimumSpeed { bytes, window: Duration::from_millis(200), document });
    let content = vec![7; 10_000];
    for (bytes, is_slow) in [(100, false), (9_000, true)] {
        let scene = scene_with(|options| options.pace = pace(bytes));
        let digest = scene.registry.put_blob(&content);
        scene.registry.switch(|switches| {
            switches.trickle = Some(Duration::from_millis(60));
            switches.ignores_ranges = true;
        });
        let result = scene.pull(&digest, Length::Exactly(10_000)).await;
        match result {
            Ok(bytes) => assert!(!is_slow && bytes == content),
            Err(error) => {
                assert!(is_slow && matches!(*error.problem, Problem::TooSlow(_)), "{error}");
                assert_eq!(error.hint(), Some(Hint::LowerMinimumSpeed));
            }
        }
    }
}

#[tokio::test]
async fn documents_that_come_steadily_for_ever_are_given_up() {
    for (document, is_late) in [(60_000, false), (300, true)] {
        let (window, document) = (Duration::from_millis(200), Duration::from_millis(document));
        let pace = Some(MinimumSpeed { bytes: 1, window, document });
        let scene = scene_with(|options| options.pace = pace);
        let content = vec![7; 10_000];
        let digest = scene.registry.put_blob(&content);
        scene.registry.switch(|switches| switches.trickle = Some(Duration::from_millis(60)));
        let blob = scene.pull(&digest, Length::Exactly(10_000)).await;
        assert_eq!(blob.unwrap(), content, "the time of a layer isn't limited");
        match scene.client.small_blob(&scene.repository, &digest, 10_000).await {
            Ok(bytes) => assert!(!is_late && bytes == content),
            Err(error) => {
                assert!(is_late && matches!(*error.problem, Problem::Late(_)), "{error}");
                assert_eq!(error.hint(), Some(Hint::LowerMinimumSpeed));
            }
        }
    }
}

#[tokio::test]
async fn a_part_is_no_file() {
    let server = FileServer::start();
    let part = Answer { status: 206, ..Answer::of("part") }.with("Content-Range", "bytes 2-5/99");
    server.put("/file", part);
    let request = FetchRequest { url: server.url("/file"), ..FetchRequest::default() };
    let error = Client::default().fetch(&request).await.unwrap_err().to_string();
    assert!(error.contains("sends a part of the file"), "{error}");
}

#[tokio::test]
async fn downloads_may_be_compressed_and_are_asked_about_before_they_are_repeated() {
    let server = FileServer::start();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &[b'a'; 5000]).unwrap();
    let compressed = Answer::of(encoder.finish().unwrap());
    server.put("/file", compressed.with("Content-Encoding", "gzip").with("ETag", "\"1\""));
    let client = Client::default();
    let mut request = FetchRequest { url: server.url("/file"), ..FetchRequest::default() };
    for limit in [5000, 4999] {
        let FetchAnswer::File(file) = client.fetch(&request).await.unwrap() else { panic!() };
        assert_eq!(file.length(), None);
        let mut content = Vec::new();
        let received = file.copy_to(&mut content, Some(limit), |_| {}).await;
        assert_eq!(received.is_ok(), limit == 5000, "{received:?}");
        assert!(limit < 5000 || content == [b'a'; 5000]);
    }
    request.etag = Some("\"1\"".to_owned());
    server.take_requests();
    assert!(matches!(client.fetch(&request).await.unwrap(), FetchAnswer::Unchanged));
    assert_eq!(server.take_requests().len(), 1, "the answer to HEAD suffices");
}

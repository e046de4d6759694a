//! Tests of pushes: the requests that a registry receives.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use kiln_event::Reporter;
use kiln_exporter::push::Remote;
use kiln_exporter::{ExportContext, ExportRequest, ImageSource, Output, export};
use kiln_images::{Fetcher, ImageResolver, ImageResolverOptions, Snapshots};
use kiln_oci::{Digest, History, ImageConfig, Platform};
use kiln_registry::Client;
use kiln_store::{LayerId, Store};
use kiln_testkit::FakeRegistry;
use kiln_tree::ArchiveLimits;
use tokio::runtime::Runtime;

struct Fixture {
    _dir: tempfile::TempDir,
    store: Store,
    client: Client,
    runtime: Runtime,
    fetcher: Fetcher,
    registry: FakeRegistry,
    top: LayerId,
}

impl Fixture {
    /// Creates a store with an image of one layer.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let client = Client::default();
        let options = ImageResolverOptions::new(store.clone(), client.clone());
        let snapshots = Snapshots::new(store.clone(), &ImageResolver::new(options));
        let runtime = Runtime::new().unwrap();
        let fetcher = Fetcher::new(snapshots, runtime.handle().clone(), Reporter::silent());
        let tree = store.layers().begin().unwrap();
        std::fs::write(tree.fs().join("file"), vec![7; 700_000]).unwrap();
        let top = store.layers().commit(tree, None).unwrap();
        let registry = FakeRegistry::start();
        Self { _dir: dir, store, client, runtime, fetcher, registry, top }
    }

    /// Pushes the image. Returns the number of requests that look for a blob, and those that send
    /// or mount one.
    fn push(&self, repository: &str) -> (usize, Vec<String>) {
        let config = ImageConfig {
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            history: vec![History::default()],
            ..ImageConfig::default()
        };
        let platform = Platform::new("linux", "amd64", None);
        let image = ImageSource { config, layer: Some(self.top.clone()), platform, epoch: Some(1) };
        let name = format!("type=registry,name={}/{repository}:1", self.registry.address());
        let outputs = vec![Output::parse(&name).unwrap()];
        let request =
            ExportRequest { images: vec![image], outputs, has_index: false, attester: None };
        self.registry.take_requests();
        let mut context = ExportContext {
            store: &self.store,
            fetcher: &self.fetcher,
            limits: ArchiveLimits::default(),
            progress: &Reporter::silent(),
            remote: Some(Remote { client: &self.client, runtime: self.runtime.handle() }),
            stdout: &mut Vec::new(),
        };
        export(&request, &mut context).unwrap();
        let requests = self.registry.take_requests();
        let looks =
            requests.iter().filter(|it| it.method == "HEAD" && it.path.contains("/blobs/")).count();
        let sends = requests.iter().filter(|it| it.path.contains("/blobs/uploads/"));
        let sends = sends.map(|it| format!("{} {}", it.method, it.path)).collect();
        (looks, sends)
    }

    fn layer_digest(&self) -> Digest {
        self.store.layers().blobs(&self.top).unwrap()[0].digest
    }
}

#[test]
fn nothing_is_sent_that_the_registry_has() {
    let fixture = Fixture::new();
    let (_, sends) = fixture.push("app");
    assert!(sends.iter().any(|send| send.starts_with("PUT ")), "{sends:?}");
    let (looks, sends) = fixture.push("app");
    // The layer and the config.
    assert_eq!((looks, sends), (2, Vec::new()));
}

#[test]
fn blobs_of_another_repository_are_mounted() {
    let fixture = Fixture::new();
    fixture.push("app");
    let (_, sends) = fixture.push("other");
    assert_eq!(sends.len(), 2, "{sends:?}");
    assert!(sends.iter().all(|send| send.starts_with("POST ") && send.contains("mount=")));
    assert!(sends.iter().all(|send| send.contains("from=app")), "{sends:?}");
}

#[test]
fn a_layer_in_the_registry_is_not_packed() {
    let fixture = Fixture::new();
    fixture.push("app");
    let digest = fixture.layer_digest();
    let content = fixture.store.content();
    content.remove_corrupt(&digest).unwrap();
    let (_, sends) = fixture.push("app");
    assert!(sends.is_empty(), "{sends:?}");
    assert_eq!(content.size(&digest).unwrap(), None, "the layer was packed");

    // Another registry has nothing, so the layer is packed and sent.
    let other = Fixture { registry: FakeRegistry::start(), ..fixture };
    let (_, sends) = other.push("app");
    assert!(sends.iter().any(|send| send.starts_with("PUT ")), "{sends:?}");
    assert_eq!(other.layer_digest(), digest);
    assert!(other.store.content().size(&digest).unwrap().is_some());
}

// Arbitrary bytes as the config of a cache in a directory, with blobs that its manifest lists.
//
// The first section of the input is the config; the others are the blobs. A usable record yields as
// many outputs as it lists, each on a finite chain of layers.

use std::cell::RefCell;
use std::path::Path;

use kiln_event::Key;
use kiln_images::{ImageResolver, ImageResolverOptions, PullPolicy};
use kiln_oci::cache::CacheConfig;
use kiln_oci::{Digest, media_type};
use kiln_solver::Cache;
use kiln_store::Store;
use kiln_worker::{CachePlace, CacheSource, ImportedCache, RemoteCache, StoreCache};
use serde_json::json;

use super::support::{files, place};

/// Valid inputs, which the tests try unchanged and damaged.
#[allow(dead_code, reason = "fuzz targets have none")]
pub(crate) const SEEDS: &[&[u8]] = &[
    b"{\"version\":1,\"layers\":[{\"diffId\":\"@1\",\"createdAt\":1,\"blob\":{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"@1\",\"size\":#1}},{\"parent\":0,\"diffId\":\"@2\",\"createdAt\":-1,\"base\":true,\"blob\":{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"@2\",\"size\":#2}}],\"records\":[{\"key\":\"@1\",\"outputs\":[1,null]},{\"key\":\"@2\",\"outputs\":[0],\"durationMs\":7}],\"links\":[{\"definition\":\"@1\",\"canonical\":\"@2\"}],\"mounts\":[{\"id\":\"/x\",\"mode\":493,\"uid\":0,\"gid\":0,\"blob\":{\"mediaType\":\"x\",\"digest\":\"@1\",\"size\":#1}}]}\0LAYER1\0LAYER2",
];

/// A store and a cache that are reused for all inputs.
struct Place {
    directory: tempfile::TempDir,
    resolver: ImageResolver,
    store: Store,
    runtime: tokio::runtime::Runtime,
}

thread_local! {
    static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) };
}

/// Imports a cache and checks its records.
pub(crate) fn check(input: &[u8]) {
    count(input);
}

/// Does the same as [`check`], and returns the number of records.
pub(crate) fn count(input: &[u8]) -> usize {
    let files = files(input);
    PLACE.with_borrow_mut(|place| place.get_or_insert_with(new_place).count(&files))
}

impl Place {
    fn count(&self, files: &[Vec<u8>]) -> usize {
        let cache = self.directory.path().join("cache");
        write(&cache, files);
        let layout =
            CachePlace::Layout { directory: cache.clone(), tag: "latest".to_owned(), digest: None };
        let source = CacheSource { place: layout, mounts: true };
        let count = self.runtime.block_on(async {
            let imported =
                ImportedCache::read(&self.resolver, &source, Some(&[]), Some(1 << 30)).await;
            let Ok(imported) = imported else { return 0 };
            let config: CacheConfig = serde_json::from_slice(&files[0]).expect("it was read");
            let count = imported.len();
            let local = StoreCache::new(self.store.clone());
            let remote = RemoteCache::new(local, vec![imported], &self.resolver.blobs(), None);
            for record in config.records.iter().take(8) {
                self.check_record(&remote, &config, &record.key).await;
            }
            for link in config.links.iter().take(8) {
                let _ = remote.canonical(&Key(link.definition)).expect("follow a link");
            }
            count
        });
        // What the store has learned must not answer for the next cache.
        self.store.cache().clear().expect("forget the results");
        std::fs::remove_dir_all(&cache).expect("remove the cache");
        count
    }

    async fn check_record(&self, remote: &RemoteCache, config: &CacheConfig, key: &Digest) {
        let Some(outputs) = remote.load(&Key(*key)).await.expect("load a result") else { return };
        let counts = config.records.iter().filter(|record| record.key == *key);
        assert!(counts.map(|record| record.outputs.len()).any(|count| count == outputs.len()));
        for top in outputs.iter().filter_map(|output| output.layer().flatten()) {
            let chain = self.store.layers().chain(top).expect("a chain");
            assert!(!chain.is_empty() && chain.len() <= config.layers.len());
        }
    }
}

/// Writes a cache. The first file is its config; the others are its blobs.
fn write(cache: &Path, files: &[Vec<u8>]) {
    let blobs = cache.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("make a directory");
    let put = |bytes: &[u8], kind: &str| {
        let digest = Digest::of(bytes);
        std::fs::write(blobs.join(digest.hex()), bytes).expect("write a blob");
        json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
    };
    let layers: Vec<_> = files[1..].iter().map(|it| put(it, media_type::OCI_LAYER)).collect();
    let config = put(&files[0], media_type::CACHE_CONFIG);
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
    let mut entry = put(manifest.to_string().as_bytes(), media_type::OCI_MANIFEST);
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    std::fs::write(cache.join("index.json"), index.to_string()).expect("write the index");
}

fn new_place() -> Place {
    let directory = place();
    let store = Store::open(&directory.path().join("store")).expect("open a store");
    let resolver = ImageResolver::new(ImageResolverOptions {
        policy: PullPolicy::Never,
        ..ImageResolverOptions::new(store.clone(), kiln_registry::Client::default())
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Place { directory, resolver, store, runtime: runtime.expect("start a runtime") }
}

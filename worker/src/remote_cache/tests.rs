//! Tests of the cache over a store and a directory.

use kiln_event::Reporter;
use kiln_oci::cache::{CACHE_VERSION, CacheBlob, CacheConfig, CacheLayer, CacheLink, CacheRecord};
use kiln_oci::media_type;
use kiln_registry::Client;
use kiln_tree::ArchiveLimits;

use super::*;

struct Bench {
    temp: tempfile::TempDir,
    store: Store,
    blobs: Blobs,
}

impl Bench {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("cache/blobs/sha256")).unwrap();
        let store = Store::open(&temp.path().join("root")).unwrap();
        let (registry, limits) = (Client::default(), ArchiveLimits::default());
        let blobs = Blobs::new(store.clone(), registry, limits);
        Self { temp, store, blobs }
    }

    /// Writes the blob of an uncompressed layer into the directory.
    fn blob(&self, content: &[u8]) -> CacheBlob {
        let digest = Digest::of(content);
        let path = self.temp.path().join("cache/blobs/sha256").join(digest.hex());
        std::fs::write(path, content).unwrap();
        let media_type = media_type::OCI_LAYER.to_owned();
        CacheBlob { media_type, digest, size: content.len() as u64 }
    }

    fn layer(&self, content: &[u8], parent: Option<u32>) -> CacheLayer {
        let (diff_id, blob) = (Digest::of(content), self.blob(content));
        CacheLayer { parent, diff_id, created_at: 7, base: false, blob }
    }

    fn cache(&self, config: CacheConfig) -> RemoteCache {
        let records = config.records.iter().enumerate().map(|(at, it)| (it.key, at)).collect();
        let links = config.links.iter().map(|link| (link.definition, link.canonical)).collect();
        let directory = self.temp.path().join("cache");
        let origin = format!("{}{}", kiln_store::CACHE_ORIGIN, directory.display());
        let import = ImportedCache {
            name: "cache".to_owned(),
            origin,
            wants_mounts: true,
            config,
            dropped: 0,
            records,
            links,
        };
        RemoteCache::new(StoreCache::new(self.store.clone()), vec![import], &self.blobs, None)
    }
}

fn key(name: &str) -> Key {
    Key(Digest::of(name.as_bytes()))
}

fn record(name: &str, top: u32) -> CacheRecord {
    CacheRecord { key: key(name).0, outputs: vec![Some(top), None], duration_ms: 1234 }
}

fn top(outputs: &[Output]) -> LayerId {
    match outputs {
        [Output::Layer(Some(top)), Output::Layer(None)] => top.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn results_are_taken_over_without_their_blobs() {
    let bench = Bench::new();
    let config = CacheConfig {
        version: CACHE_VERSION,
        layers: vec![bench.layer(b"below", None), bench.layer(b"above", Some(0))],
        records: vec![record("a", 1), record("b", 0)],
        links: vec![CacheLink { definition: key("d").0, canonical: key("a").0 }],
        mounts: Vec::new(),
    };
    let cache = bench.cache(config);
    assert_eq!(cache.canonical(&key("d")).unwrap(), Some(key("a")));
    assert_eq!(cache.load(&key("c")).await.unwrap().map(|_| ()), None);
    let above = top(&cache.load(&key("a")).await.unwrap().unwrap());
    let below = top(&cache.load(&key("b")).await.unwrap().unwrap());
    let chain = bench.store.layers().chain(&above).unwrap();
    assert_eq!(chain.iter().map(|layer| &layer.id).collect::<Vec<_>>(), [&below, &above]);
    assert!(chain.iter().all(|layer| layer.created_at == 7 && !layer.has_tree));
    let blob = bench.store.layers().blobs(&above).unwrap().remove(0);
    assert_eq!(bench.store.content().size(&blob.digest).unwrap(), None);
    // The store now has the result itself.
    let local =
        RemoteCache::new(StoreCache::new(bench.store.clone()), Vec::new(), &bench.blobs, None);
    assert_eq!(top(&local.load(&key("a")).await.unwrap().unwrap()), above);
    assert_eq!(local.canonical(&key("d")).unwrap(), Some(key("a")));
    let keys = kiln_solver::VertexKeys { canonical: key("a"), definition: Some(key("d")) };
    let known = local.known(&[None, Some(keys), Some(keys)]).await.unwrap();
    let outputs = vec![Some(above.clone()), None];
    let result = KnownResult { key: key("a").0, outputs, duration_ms: 1234 };
    assert_eq!(known.results, [result]);
    assert_eq!(known.links, [CacheLink { definition: key("d").0, canonical: key("a").0 }]);
    // A fetch verifies the blob, which then counts as the layer's own.
    bench.blobs.fetch(&blob, &Reporter::silent()).await.unwrap();
    assert_eq!(bench.store.layers().blobs(&above).unwrap()[0].origin, None);
}

#[tokio::test]
async fn what_a_cache_promises_in_vain_is_dropped() {
    let bench = Bench::new();
    let liar = CacheLayer { diff_id: Digest::of(b"something else"), ..bench.layer(b"x", Some(0)) };
    let flipped = bench.layer(b"flipped", Some(0));
    let config = CacheConfig {
        layers: vec![
            bench.layer(b"below", None),
            liar,
            flipped.clone(),
            bench.layer(b"z", Some(0)),
        ],
        records: vec![record("below", 0), record("liar", 1), record("flipped", 2), record("z", 3)],
        ..CacheConfig::default()
    };
    let cache = bench.cache(config);
    let path = |layer: &CacheLayer| {
        bench.temp.path().join("cache/blobs/sha256").join(layer.blob.digest.hex())
    };
    std::fs::write(path(&flipped), "flippee").unwrap();
    for name in ["liar", "flipped"] {
        let layer = top(&cache.load(&key(name)).await.unwrap().unwrap());
        let blob = bench.store.layers().blobs(&layer).unwrap().remove(0);
        assert!(matches!(
            bench.blobs.fetch(&blob, &Reporter::silent()).await,
            Err(kiln_images::Error::Cached { .. })
        ));
        assert_eq!(bench.blobs.take_lost().len(), 1);
        assert!(!bench.store.layers().exists(&layer).unwrap());
        assert!(cache.load(&key(name)).await.unwrap().is_none(), "it isn't believed again");
    }
    let below = top(&cache.load(&key("below")).await.unwrap().unwrap());
    assert!(bench.store.layers().exists(&below).unwrap());
    // A missing blob makes the result a miss from the beginning.
    let gone = bench.layer(b"z", None);
    std::fs::remove_file(path(&gone)).unwrap();
    assert!(cache.load(&key("z")).await.unwrap().is_none());
}

#[tokio::test]
async fn each_layer_of_a_result_is_looked_at_once() {
    let bench = Bench::new();
    let blob = bench.blob(b"x");
    let layer = |parent| CacheLayer {
        parent,
        diff_id: Digest::of(b"x"),
        created_at: 7,
        base: false,
        blob: blob.clone(),
    };
    let chain = |length: u32| (0..length).map(|number| layer(number.checked_sub(1)));
    let twice = |number: u32| CacheLayer {
        parent: number.checked_sub(1).map(|it| it + 600),
        ..layer(None)
    };
    let record = |name: &str, outputs: Vec<u32>| CacheRecord {
        key: key(name).0,
        outputs: outputs.into_iter().map(Some).collect(),
        duration_ms: 0,
    };
    let config = CacheConfig {
        layers: chain(600).chain((0..600).map(twice)).collect(),
        records: vec![record("same", vec![599; 1000]), record("many", vec![599, 1199])],
        ..CacheConfig::default()
    };
    let cache = bench.cache(config);
    let begun = std::time::Instant::now();
    let outputs = cache.load(&key("same")).await.unwrap().unwrap();
    assert!(outputs.len() == 1000 && outputs.windows(2).all(|it| it[0].layer() == it[1].layer()));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(
        cache.load(&key("many")).await.unwrap().is_none(),
        "more layers than a result may have"
    );
}

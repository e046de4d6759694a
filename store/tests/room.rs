//! Tests of the account of disk space, and of freeing it.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use kiln_oci::{Digest, media_type};
use kiln_store::{CacheKind, ImageRow, LayerBlob, LayerId, PruneOptions, Sharing, Store};

fn du(path: &Path) -> u64 {
    let output = Command::new("du").args(["-s", "--block-size=1"]).arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split('\t').next().unwrap().parse().unwrap()
}

fn assert_is_what_du_says(store: &Store) {
    let told = store.disk_usage().unwrap().total();
    // The unfinished data of this process is removed at its end and not included.
    let tmp = store.root().join("tmp");
    let found = du(store.root()) - du(&tmp) + fs::metadata(&tmp).unwrap().blocks() * 512;
    assert!(told.abs_diff(found) * 100 <= found, "{told} bytes, du says {found}");
}

fn key(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// Creates a layer of `size` kibibytes, and a record of it if it has a key.
fn layer(store: &Store, parent: Option<&LayerId>, (name, size): (&str, usize)) -> LayerId {
    let layers = store.layers();
    let tree = layers.begin().unwrap();
    fs::create_dir(tree.fs().join("dir")).unwrap();
    fs::write(tree.fs().join("dir/file"), vec![1; size << 10]).unwrap();
    fs::hard_link(tree.fs().join("dir/file"), tree.fs().join("again")).unwrap();
    let id = layers.commit(tree, parent).unwrap();
    if !name.is_empty() {
        store.cache().put(&key(name), &[Some(id.clone())], name).unwrap();
    }
    id
}

/// Creates an image of one layer, whose blob is in the store.
fn image(store: &Store, layer: &LayerId) -> Digest {
    let blob = store.content().put(layer.as_str().repeat(10_000).as_bytes()).unwrap();
    let (media_type, digest) = (media_type::OCI_LAYER.to_owned(), blob.digest);
    let packed = LayerBlob { media_type, digest, size: blob.size, origin: None };
    store.layers().add_blob(layer, &digest, &packed).unwrap();
    let config = serde_json::json!({ "rootfs": { "type": "layers", "diff_ids": [digest] } });
    let config = store.content().put(config.to_string().as_bytes()).unwrap();
    let part =
        |digest: &Digest| serde_json::json!({ "mediaType": "x", "digest": digest, "size": 1 });
    let manifest = serde_json::json!({
        "config": part(&config.digest), "layers": [part(&digest)],
    });
    let manifest = store.content().put(manifest.to_string().as_bytes()).unwrap();
    let row = ImageRow {
        name: Some("app".to_owned()),
        media_type: media_type::OCI_MANIFEST.to_owned(),
        digest: manifest.digest,
        size: manifest.size,
        created_at: 1,
    };
    store.images().put(&row).unwrap();
    manifest.digest
}

fn reopened(store: Store) -> Store {
    let root = store.root().to_owned();
    drop(store);
    Store::open(&root).unwrap()
}

#[test]
fn the_account_is_what_du_says() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("root")).unwrap();
    assert_is_what_du_says(&store);
    let base = layer(&store, None, ("base", 300));
    image(&store, &base);
    let top = layer(&store, Some(&base), ("top", 500));
    layer(&store, Some(&top), ("", 200));
    // A tree of links, like a merge creates.
    let tree = store.layers().begin().unwrap();
    let linked = store.layers().tree_path(&base).join("dir/file");
    fs::hard_link(linked, tree.fs().join("link")).unwrap();
    store.layers().commit(tree, None).unwrap();
    let (guard, _) = store.cache_mounts().acquire("cache", Sharing::Locked).unwrap();
    fs::write(guard.path().join("file"), vec![1; 400_000]).unwrap();
    drop(guard);
    let (volume, _) = store.volumes().named("data").unwrap();
    let held = store.volumes().hold("data").unwrap().unwrap();
    fs::write(volume.join("file"), vec![1; 250_000]).unwrap();
    drop(held);
    let mut log = store.builds().write_log("none").unwrap();
    let mut noise = key("noise");
    for _ in 0..5_000 {
        noise = Digest::of(noise.as_bytes());
        let bytes = noise.as_bytes().to_vec();
        log.append(&kiln_store::LogRecord { step: 1, at: 1, is_stderr: false, bytes }).unwrap();
    }
    log.finish().unwrap();
    store.content().put(&vec![7; 123_456]).unwrap();
    assert_is_what_du_says(&store);

    let usage = store.disk_usage().unwrap();
    assert_eq!(usage.images.len(), 1);
    assert!(usage.images[0].is_used && usage.images[0].bytes > 300 << 10);
    assert!(usage.images_bytes.0 >= usage.images[0].bytes);
    assert_eq!(usage.images_bytes.1, 0, "whoever made it lives");
    let shared =
        |id: &LayerId| usage.cache.iter().find(|part| part.id == id.as_str()).unwrap().is_shared;
    assert!(shared(&base) && !shared(&top));
    assert_eq!(usage.volumes[0].name, "data");
    assert!(usage.volumes[0].bytes > 250_000 && !usage.volumes[0].is_used);

    let store = reopened(store);
    assert!(store.disk_usage().unwrap().images_bytes.1 > 300 << 10);
    let pruned = store.prune(&PruneOptions { all: true, ..PruneOptions::default() }).unwrap();
    assert_eq!(pruned.items.len(), 4, "{pruned:?}");
    assert!(pruned.bytes > 1_000 << 10);
    assert_is_what_du_says(&store);
    assert!(store.layers().exists(&base).unwrap(), "the image holds it");
    assert_eq!(store.volumes().list().unwrap(), ["data"]);
    let pruned = store.prune(&PruneOptions { volumes: true, ..PruneOptions::default() }).unwrap();
    assert!(pruned.items.iter().any(|item| item.id == "data" && item.kind.is_none()));
    assert_is_what_du_says(&store);
}

#[test]
fn a_large_store_is_not_walked() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let id = layer(&store, None, ("base", 300));
    let before = store.disk_usage().unwrap().total();
    // This change is forbidden and not detected.
    fs::write(store.layers().tree_path(&id).join("more"), vec![1; 1 << 20]).unwrap();
    assert_eq!(store.disk_usage().unwrap().total(), before);
}

#[test]
fn layers_without_bytes_are_pruned_with_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    layer(&store, None, ("old", 1));
    let (media_type, digest) = (media_type::OCI_LAYER.to_owned(), key("blob"));
    let blob = LayerBlob { media_type, digest, size: 10, origin: None };
    let declared = store.layers().declare(None, &key("diff"), &blob).unwrap();
    store.cache().put(&key("declared"), &[Some(declared)], "declared").unwrap();
    let store = reopened(store);
    store.prune(&PruneOptions { all: true, ..PruneOptions::default() }).unwrap();
    assert!(store.disk_usage().unwrap().cache.is_empty());
}

#[test]
fn what_was_used_last_stays_and_parents_go_after_their_children() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let base = layer(&store, None, ("base", 100));
    let old = layer(&store, Some(&base), ("old", 100));
    let new = layer(&store, Some(&base), ("new", 100));
    let other = layer(&store, None, ("other", 100));
    assert!(store.prune(&PruneOptions::default()).unwrap().items.is_empty(), "its maker lives");
    let store = reopened(store);
    let exists =
        |store: &Store| [&base, &old, &new, &other].map(|id| store.layers().exists(id).unwrap());
    store.cache().get(&key("new")).unwrap();
    let store = reopened(store);
    // `base` is older than all others, but `new` is above it.
    let keep = |keep_bytes| PruneOptions { keep_bytes, ..PruneOptions::default() };
    let pruned = store.prune(&keep(250 << 10)).unwrap();
    let gone: Vec<&str> = pruned.items.iter().map(|item| item.id.as_str()).collect();
    assert_eq!(gone, [old.as_str(), other.as_str()]);
    assert_eq!(exists(&store), [true, false, true, false]);
    assert_eq!(store.cache().get(&key("old")).unwrap(), None);
    assert!(store.cache().get(&key("new")).unwrap().is_some());
    let held = store.prune(&keep(0)).unwrap();
    assert!(held.items.is_empty(), "this process has got it from the cache: {held:?}");
    let store = reopened(store);
    let since = PruneOptions { unused_since: Some(1), ..PruneOptions::default() };
    assert!(store.prune(&since).unwrap().items.is_empty());
    let gone: Vec<String> =
        store.prune(&keep(0)).unwrap().items.into_iter().map(|item| item.id).collect();
    assert_eq!(gone, [new.as_str(), base.as_str()]);
}

#[test]
fn cache_mounts_go_when_asked_for_and_not_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mounts = store.cache_mounts();
    let fill = |id: &str| {
        let (guard, _) = mounts.acquire(id, Sharing::Locked).unwrap();
        fs::write(guard.path().join("file"), vec![1; 100_000]).unwrap();
        guard
    };
    drop(fill("idle"));
    let used = fill("used");
    layer(&store, None, ("kept", 10));
    let store = reopened(store);
    assert!(
        store
            .prune(&PruneOptions { ids: vec!["none".into()], ..PruneOptions::default() })
            .unwrap()
            .items
            .is_empty()
    );
    let only = PruneOptions { kinds: vec![CacheKind::CacheMount], ..PruneOptions::default() };
    let pruned = store.prune(&only).unwrap();
    assert_eq!(pruned.items.len(), 1, "{pruned:?}");
    assert!(pruned.items[0].kind == Some(CacheKind::CacheMount) && pruned.bytes >= 100_000);
    assert!(used.path().join("file").exists());
    drop(used);
    assert_eq!(store.disk_usage().unwrap().cache.len(), 2);
    let (again, new) = mounts.acquire("idle", Sharing::Locked).unwrap();
    assert!(new && !again.path().join("file").exists());
    let (_, new) = mounts.acquire("used", Sharing::Locked).unwrap();
    assert!(!new);
}

//! Tests of several processes at once, and of the state after they are killed.
//!
//! The child processes run this same program. An environment variable selects their task.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kiln_oci::{Digest, media_type};
use kiln_store::{Error, FileStamp, ImageRow, LayerBlob, LayerId, Store};
use rusqlite::Connection;

const ROOT: &str = "KILN_STORE_TEST_ROOT";

/// Starts this program as a child that runs one test, with `ROOT` set.
fn child(test: &str, root: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1", "--nocapture"])
        .env(ROOT, root)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn root_of_child() -> Option<PathBuf> {
    std::env::var_os(ROOT).map(PathBuf::from)
}

fn commit(store: &Store, parent: Option<&LayerId>, text: &str) -> LayerId {
    let layers = store.layers();
    let tree = layers.begin().unwrap();
    fs::create_dir(tree.fs().join("dir")).unwrap();
    fs::write(tree.fs().join("dir/file"), text).unwrap();
    layers.commit(tree, parent).unwrap()
}

fn count(dir: PathBuf) -> usize {
    fs::read_dir(dir).unwrap().count()
}

fn index(root: &Path) -> Connection {
    Connection::open(root.join("kiln.db")).unwrap()
}

/// Asserts that every row has its files, every file has its row, and nothing unfinished is left.
fn assert_whole(root: &Path) {
    let index = index(root);
    let mut statement = index.prepare("SELECT id FROM layers WHERE has_tree").unwrap();
    let rows: HashSet<String> =
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let dirs: HashSet<String> = fs::read_dir(root.join("snapshots"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(rows, dirs);
    for id in &dirs {
        assert!(root.join("snapshots").join(id).join("fs/dir/file").exists(), "{id} is whole");
    }
    let mut statement = index.prepare("SELECT digest, size FROM blobs").unwrap();
    let blobs: Vec<(Digest, u64)> = statement
        .query_map([], |row| Ok((Digest::from_bytes(row.get(0)?), row.get::<_, i64>(1)? as u64)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(count(root.join("content/blobs/sha256")), blobs.len());
    for (digest, size) in blobs {
        let bytes = fs::read(root.join("content/blobs/sha256").join(digest.hex())).unwrap();
        assert_eq!((Digest::of(&bytes), bytes.len() as u64), (digest, size));
    }
    let parents = "SELECT count(*) FROM layers WHERE parent NOT IN (SELECT id FROM layers)";
    assert_eq!(index.query_row(parents, [], |row| row.get(0)), Ok(0));
    let check = index.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
    assert_eq!(check.as_deref(), Ok("ok"));
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The task of a child: stores layers, blobs and records until it is killed.
#[test]
fn child_that_commits() {
    let Some(root) = root_of_child() else { return };
    let store = Store::open(&root).unwrap();
    let mut parent = None;
    for number in 0.. {
        let text = format!("{} {number}", std::process::id());
        let layer = commit(&store, parent.as_ref(), &text);
        let blob = store.content().put(text.repeat(1000).as_bytes()).unwrap();
        let packed = LayerBlob {
            media_type: media_type::OCI_LAYER.to_owned(),
            digest: blob.digest,
            size: blob.size,
            origin: None,
        };
        store.layers().add_blob(&layer, &blob.digest, &packed).unwrap();
        store.cache().put(&Digest::of(text.as_bytes()), &[Some(layer.clone())], "").unwrap();
        drop(store.layers().begin().unwrap());
        if number % 5 == 0 {
            store.images().put(&image("app", &blob.digest, blob.size)).unwrap();
        }
        let _key = store.lock(&format!("key-{}", number % 3)).unwrap();
        parent = (number % 20 != 0).then_some(layer);
    }
}

fn image(name: &str, digest: &Digest, size: u64) -> ImageRow {
    ImageRow {
        name: Some(name.to_owned()),
        media_type: media_type::OCI_MANIFEST.to_owned(),
        digest: *digest,
        size,
        created_at: 1,
    }
}

#[test]
fn killed_processes_leave_a_whole_store() {
    if root_of_child().is_some() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for round in 0..20_u64 {
        let mut children: Vec<Child> =
            (0..2).map(|_| child("child_that_commits", dir.path())).collect();
        // The odd numbers vary the moments from round to round.
        std::thread::sleep(Duration::from_micros(9_000 + 7_919 * round));
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let store = Store::open(dir.path()).unwrap();
        assert_whole(dir.path());
        until("leftovers are removed", || {
            let own = fs::read_dir(dir.path().join("tmp")).unwrap().next().unwrap().unwrap();
            count(dir.path().join("tmp")) == 1 && count(own.path()) == 1
        });
        drop(store);
        assert_eq!(count(dir.path().join("tmp")), 0);
    }
    let store = Store::open(dir.path()).unwrap();
    assert!(count(dir.path().join("snapshots")) > 10, "the children did something");
    store.cache().clear().unwrap();
    let named = store.images().list().unwrap();
    for image in &named {
        store.images().remove(&image.digest).unwrap();
    }
    let collected = store.collect().unwrap();
    assert!(collected.layers > 10 && collected.blobs > 10 && collected.bytes > 10 * 4096);
    assert_eq!(count(dir.path().join("snapshots")), 0);
    assert_eq!(count(dir.path().join("content/blobs/sha256")), 0);
}

/// The task of a child: increments a number in a file under a lock.
#[test]
fn child_that_counts() {
    let Some(root) = root_of_child() else { return };
    for _ in 0..50 {
        // Each round opens its own store, so that opening and closing happen concurrently too.
        let store = Store::open(&root).unwrap();
        let _guard = store.lock("counter").unwrap();
        let path = root.join("counter");
        let number: u32 = fs::read_to_string(&path).map_or(0, |text| text.parse().unwrap());
        fs::write(&path, (number + 1).to_string()).unwrap();
        commit(&store, None, "x");
    }
}

#[test]
fn processes_open_one_store_at_once() {
    if root_of_child().is_some() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    fs::create_dir(&root).unwrap();
    let children: Vec<Child> = (0..4).map(|_| child("child_that_counts", &root)).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(fs::read_to_string(root.join("counter")).unwrap(), "200");
    let store = Store::open(&root).unwrap();
    assert_whole(&root);
    assert_eq!(count(root.join("snapshots")), 200);
    assert_eq!(store.collect().unwrap().layers, 200);
}

#[test]
fn handles_in_one_process_work_at_once() {
    if root_of_child().is_some() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let store = Store::open(dir.path()).unwrap();
                let mut parent = None;
                for number in 0..50 {
                    let key = Digest::of(format!("{number}").as_bytes());
                    let _guard = store.lock(&key.hex()).unwrap();
                    if store.cache().get(&key).unwrap().is_none() {
                        let layer = commit(&store, parent.as_ref(), "x");
                        store.cache().put(&key, &[Some(layer)], "").unwrap();
                    }
                    parent = store.cache().get(&key).unwrap().unwrap().pop().unwrap();
                }
            });
        }
    });
    assert_eq!(count(dir.path().join("snapshots")), 50);
    assert_whole(dir.path());
}

#[test]
fn what_was_not_synced_is_distrusted_after_a_power_loss() {
    if root_of_child().is_some() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (cache, content) = (store.cache(), store.content());
    let [early, late] = [Digest::of(b"early"), Digest::of(b"late")];
    let base = commit(&store, None, "early");
    cache.put(&early, &[Some(base.clone())], "").unwrap();
    let time = kiln_tree::Timestamp::default();
    let stamp =
        |page: u64| FileStamp { device: 1, inode: page << 8, size: 1, mtime: time, ctime: time };
    cache.put_file_digests(&[(stamp(1), [1; 32])]).unwrap();
    let blob = content.put(b"early").unwrap();
    store.images().put(&image("early", &blob.digest, blob.size)).unwrap();
    assert!(store.has_unsynced());
    store.sync().unwrap();
    assert!(!store.has_unsynced());
    let top = commit(&store, Some(&base), "late");
    cache.put(&late, &[Some(top)], "").unwrap();
    cache.put_file_digests(&[(stamp(2), [2; 32])]).unwrap();
    let blob = content.put(b"late").unwrap();
    store.images().put(&image("late", &blob.digest, blob.size)).unwrap();
    drop((store, cache, content));
    index(dir.path()).execute("UPDATE meta SET value = 'other' WHERE key = 'boot'", []).unwrap();
    let store = Store::open(dir.path()).unwrap();
    let cache = store.cache();
    assert_eq!(cache.get(&early).unwrap(), Some(vec![Some(base)]));
    assert_eq!(cache.get(&late).unwrap(), None);
    let found = cache.file_digests(&[stamp(1), stamp(2)]).unwrap();
    assert_eq!(found, [Some([1; 32]), None]);
    assert!(store.content().size(&early).unwrap().is_some());
    assert!(store.content().size(&late).unwrap().is_none());
    assert!(store.images().get("early").unwrap().is_some());
    assert!(store.images().get("late").unwrap().is_none());
    let listed = fs::read_to_string(dir.path().join("content/index.json")).unwrap();
    assert!(!listed.contains("late"), "{listed}");
    assert_whole(dir.path());
}

#[test]
fn collection_keeps_what_is_reached() {
    if root_of_child().is_some() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let first = Store::open(dir.path()).unwrap();
    let base = commit(&first, None, "base");
    let leased = commit(&first, Some(&base), "leased");
    let cached = commit(&first, Some(&base), "cached");
    let lost = commit(&first, Some(&base), "lost");
    let imaged = commit(&first, Some(&base), "imaged");
    let key = Digest::of(b"key");
    first.cache().put(&key, &[Some(cached.clone())], "").unwrap();
    let mut diff_ids = Vec::new();
    for layer in [&base, &imaged] {
        let blob = first.content().put(layer.as_str().as_bytes()).unwrap();
        let media_type = media_type::OCI_LAYER.to_owned();
        let packed = LayerBlob { media_type, digest: blob.digest, size: blob.size, origin: None };
        first.layers().add_blob(layer, &blob.digest, &packed).unwrap();
        diff_ids.push(blob.digest);
    }
    let config = serde_json::json!({ "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let config = first.content().put(config.to_string().as_bytes()).unwrap();
    let part =
        |digest: &Digest| serde_json::json!({ "mediaType": "x", "digest": digest, "size": 1 });
    let manifest = serde_json::json!({
        "config": part(&config.digest), "layers": diff_ids.iter().map(part).collect::<Vec<_>>(),
    });
    let manifest = first.content().put(manifest.to_string().as_bytes()).unwrap();
    first.images().put(&image("app", &manifest.digest, manifest.size)).unwrap();
    let lost_blob = first.content().put(b"lost").unwrap();
    let other = Store::open(dir.path()).unwrap();
    assert_eq!(other.collect().unwrap().layers, 0, "its maker lives");
    let lease = other.lease().unwrap();
    lease.add_layer(&leased).unwrap();
    drop(first);
    let collected = other.collect().unwrap();
    assert_eq!((collected.layers, collected.blobs), (1, 1));
    assert!(collected.bytes >= 8192, "{collected:?}");
    assert!(matches!(lease.add_layer(&lost), Err(Error::Missing { .. })));
    assert!(other.content().size(&lost_blob.digest).unwrap().is_none());
    for layer in [&base, &leased, &cached, &imaged] {
        assert!(other.layers().exists(layer).unwrap(), "{layer}");
    }
    drop(lease);
    other.cache().clear().unwrap();
    assert_eq!(other.collect().unwrap().layers, 2);
    assert!(other.layers().exists(&base).unwrap() && other.layers().exists(&imaged).unwrap());
    other.images().remove(&manifest.digest).unwrap();
    let collected = other.collect().unwrap();
    assert_eq!((collected.layers, collected.blobs), (2, 4));
    assert_whole(dir.path());
}

#[test]
fn a_newer_store_is_refused() {
    if root_of_child().is_some() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    index(dir.path()).pragma_update(None, "user_version", 99).unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, Error::Version { found: 99, .. }), "{error}");
    assert_eq!(count(dir.path().join("tmp")), 0);
}

#[test]
fn links_in_leftovers_are_not_followed() {
    if root_of_child().is_some() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let canary = dir.path().join("canary");
    fs::write(&canary, "kept").unwrap();
    let root = dir.path().join("store");
    drop(Store::open(&root).unwrap());
    for name in ["1-dead", "not-a-process"] {
        let dead = root.join("tmp").join(name).join("0/fs");
        fs::create_dir_all(&dead).unwrap();
        std::os::unix::fs::symlink(&canary, dead.join("link")).unwrap();
        std::os::unix::fs::symlink(dir.path(), dead.join("dir")).unwrap();
    }
    std::os::unix::fs::symlink(dir.path(), root.join("snapshots/orphan")).unwrap();
    let store = Store::open(&root).unwrap();
    assert!(!root.join("snapshots/orphan").exists());
    drop(store);
    // What isn't removed within the time that closing takes is left to the next process.
    let begun = Instant::now();
    while count(root.join("tmp")) > 0 && begun.elapsed() < Duration::from_mins(1) {
        drop(Store::open(&root).unwrap());
    }
    assert_eq!(count(root.join("tmp")), 0);
    assert_eq!(fs::read_to_string(&canary).unwrap(), "kept");
}

#[test]
fn what_the_dead_left_is_removed_where_it_lies() {
    if root_of_child().is_some() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let living = Store::open(dir.path()).unwrap();
    let kept = living.temp_dir().unwrap();
    fs::write(kept.join("file"), "").unwrap();
    let dead = dir.path().join("tmp/1-dead");
    fs::create_dir_all(dead.join("7/fs/deep")).unwrap();
    fs::write(dead.join("7/fs/deep/file"), "").unwrap();
    fs::write(dead.join("lock"), "").unwrap();
    store.clear_dead().unwrap();
    let left: Vec<_> =
        fs::read_dir(&dead).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);
    assert!(kept.join("file").exists());
}

use super::*;
use crate::Store;

fn blob(text: &str) -> LayerBlob {
    LayerBlob {
        media_type: kiln_oci::media_type::OCI_LAYER_GZIP.to_owned(),
        digest: Digest::of(text.as_bytes()),
        size: text.len() as u64,
        origin: Some("example.com/x".to_owned()),
    }
}

fn opened() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

#[test]
fn trees_become_layers() {
    use std::os::unix::fs::PermissionsExt;

    let (_dir, store) = opened();
    let layers = store.layers();
    let base = layers.begin().unwrap();
    std::fs::write(base.fs().join("a"), "a").unwrap();
    // Overlayfs leaves such a directory.
    let inner = base.work().join("work");
    std::fs::create_dir(&inner).unwrap();
    std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(0o000)).unwrap();
    let base = layers.commit(base, None).unwrap();
    let top = layers.commit(layers.begin().unwrap(), Some(&base)).unwrap();
    assert_eq!(std::fs::read_to_string(layers.tree_path(&base).join("a")).unwrap(), "a");
    let mode = std::fs::metadata(layers.tree_path(&base)).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
    assert!(!layers.trees_dir().join(base.as_str()).join("work").exists());
    let chain = layers.chain(&top).unwrap();
    assert_eq!(chain.iter().map(|layer| &layer.id).collect::<Vec<_>>(), [&base, &top]);
    assert!(chain[1].has_tree && chain[1].chain_id.is_none());
    let nobody = "0".parse().unwrap();
    assert!(matches!(layers.chain(&nobody), Err(Error::Missing { .. })));
    let lost = layers.commit(layers.begin().unwrap(), Some(&nobody));
    assert!(matches!(lost, Err(Error::Missing { .. })));
    assert_eq!(std::fs::read_dir(layers.trees_dir()).unwrap().count(), 2);
}

#[test]
fn chain_ids_follow_from_diff_ids_in_any_order() {
    let (_dir, store) = opened();
    let layers = store.layers();
    let base = layers.commit(layers.begin().unwrap(), None).unwrap();
    let middle = layers.commit(layers.begin().unwrap(), Some(&base)).unwrap();
    let top = layers.commit(layers.begin().unwrap(), Some(&middle)).unwrap();
    let (a, b, c) = (Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"c"));
    layers.add_blob(&top, &c, &blob("c")).unwrap();
    layers.add_blob(&middle, &b, &blob("b")).unwrap();
    assert_eq!(layers.get(&top).unwrap().unwrap().chain_id, None);
    layers.add_blob(&base, &a, &blob("a")).unwrap();
    let expected = chain_id(Some(&chain_id(Some(&a), &b)), &c);
    assert_eq!(
        expected,
        Digest::of(format!("{} {c}", Digest::of(format!("{a} {b}").as_bytes())).as_bytes())
    );
    assert_eq!(layers.get(&top).unwrap().unwrap().chain_id, Some(expected));
    assert_eq!(layers.by_chain_id(&expected).unwrap().unwrap().id, top);
    assert_eq!(layers.blobs(&top).unwrap(), [blob("c")]);
    assert!(matches!(layers.add_blob(&top, &a, &blob("a")), Err(Error::DigestMismatch { .. })));
}

#[test]
fn declared_layers_are_found_again_and_get_trees() {
    let (_dir, store) = opened();
    let layers = store.layers();
    let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
    let base = layers.declare(None, &a, &blob("a")).unwrap();
    assert_eq!(layers.declare(None, &a, &blob("a")).unwrap(), base);
    let top = layers.declare(Some(&base), &b, &blob("b")).unwrap();
    let all = [(a, blob("a")), (b, blob("b"))];
    assert_eq!(layers.declare_all(&all).unwrap().as_ref(), Some(&top));
    assert_eq!(layers.declare_all(&[]).unwrap(), None);
    assert_ne!(layers.declare(None, &b, &blob("b")).unwrap(), top);
    assert!(!layers.get(&top).unwrap().unwrap().has_tree);
    let tree = layers.begin().unwrap();
    std::fs::write(tree.fs().join("x"), "1").unwrap();
    layers.attach(tree, &top).unwrap();
    let second = layers.begin().unwrap();
    std::fs::write(second.fs().join("x"), "2").unwrap();
    layers.attach(second, &top).unwrap();
    assert!(layers.get(&top).unwrap().unwrap().has_tree);
    assert_eq!(std::fs::read(layers.tree_path(&top).join("x")).unwrap(), b"1");
}

#[test]
fn what_an_image_says_of_a_blob_is_not_believed_of_others() {
    let (_dir, store) = opened();
    let layers = store.layers();
    let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
    // An image states that its own blob is a layer that other images also have, and likewise for
    // the layer above.
    let false_base = layers.declare(None, &a, &blob("false")).unwrap();
    let false_top = layers.declare(Some(&false_base), &b, &blob("b")).unwrap();
    let base = layers.declare(None, &a, &blob("a")).unwrap();
    let top = layers.declare(Some(&base), &b, &blob("b")).unwrap();
    assert!(base != false_base && top != false_top);
    assert_eq!(layers.blobs(&base).unwrap(), [blob("a")]);
    // Once the contents are verified, the layer is known without its blob.
    let tree = layers.begin().unwrap();
    std::fs::write(tree.fs().join("x"), "1").unwrap();
    layers.attach(tree, &base).unwrap();
    assert_eq!(layers.declare(None, &a, &blob("another")).unwrap(), base);
    assert_eq!(layers.blobs(&base).unwrap(), [blob("a")]);
    assert_eq!(layers.declare(None, &a, &blob("false")).unwrap(), false_base);
    let made = layers.commit_blob(Some(&base), &b, &blob("b, made here")).unwrap();
    assert!(made != top && made != false_top);
}

#[test]
fn blobs_become_layers_whatever_is_known_of_those_below() {
    let (_dir, store) = opened();
    let layers = store.layers();
    let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
    let base = layers.commit(layers.begin().unwrap(), None).unwrap();
    let top = layers.commit_blob(Some(&base), &b, &blob("b")).unwrap();
    let found = layers.get(&top).unwrap().unwrap();
    assert_eq!((found.diff_id, found.chain_id, found.has_tree), (Some(b), None, false));
    layers.add_blob(&base, &a, &blob("a")).unwrap();
    let chain = chain_id(Some(&chain_id(None, &a)), &b);
    assert_eq!(layers.get(&top).unwrap().unwrap().chain_id, Some(chain));
    // Creating it again returns the same layer.
    assert_eq!(layers.commit_blob(Some(&base), &b, &blob("b")).unwrap(), top);
    let nobody = "0".parse().unwrap();
    assert!(matches!(
        layers.commit_blob(Some(&nobody), &b, &blob("b")),
        Err(Error::Missing { .. })
    ));
}

#[test]
fn hostile_ids_are_refused() {
    for text in ["", "..", "a/b", "A", &"a".repeat(65)] {
        assert!(text.parse::<LayerId>().is_err(), "{text}");
    }
}

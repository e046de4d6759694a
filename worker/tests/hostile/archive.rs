// Arbitrary bytes as the files of an image archive of all three kinds.
//
// The sections of the input are the files of the archive. The first one is the list of images. A
// byte before it selects its name: `index.json`, `manifest.json` or `repositories`. Each other file
// has two names: `f1`, `f2`, … and the path of a blob. A JSON object is also the config of an old
// image, `f1/json`.
//
// A loaded image is complete. If loading fails, no image gets a name.

use std::cell::RefCell;

use kiln_images::{LoadOptions, LoadedImage, load};
use kiln_oci::Digest;
use kiln_store::Store;
use kiln_tree::ArchiveLimits;

use super::support::{append, files, place};

/// Valid inputs, which the tests try unchanged and damaged.
#[allow(dead_code, reason = "fuzz targets have none")]
pub(crate) const SEEDS: &[&[u8]] = &[
    b"m[{\"Config\":\"f1\",\"RepoTags\":[\"a/b:c\"],\"Layers\":[\"f2\"]}]\0{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"@2\"]}}\0LAYER",
    b"i{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"@1\",\"size\":#1,\"annotations\":{\"org.opencontainers.image.ref.name\":\"a:b\"}}]}\0{\"schemaVersion\":2,\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"@2\",\"size\":#2},\"layers\":[{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"@3\",\"size\":#3}]}\0{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"@3\"]}}\0LAYER",
    b"r{\"a\":{\"b\":\"f1\"}}\0{\"id\":\"f1\",\"os\":\"linux\"}\0LAYER",
];

/// A store that is reused for all inputs.
struct Place {
    _directory: tempfile::TempDir,
    options: LoadOptions,
}

thread_local! {
    static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) };
}

/// Loads an archive and checks the result.
pub(crate) fn check(input: &[u8]) {
    count(input);
}

/// Does the same as [`check`], and returns the number of images.
pub(crate) fn count(input: &[u8]) -> usize {
    let Some((kind, rest)) = input.split_first() else { return 0 };
    let files = files(rest);
    let mut archive = tar::Builder::new(Vec::new());
    let list = match kind {
        b'r' => "repositories",
        b'm' => "manifest.json",
        _ => "index.json",
    };
    append(&mut archive, list, &files[0]);
    for (number, file) in files.iter().enumerate().skip(1) {
        append(&mut archive, &format!("blobs/sha256/{}", Digest::of(file).hex()), file);
        append(&mut archive, &format!("f{number}"), file);
        if file.starts_with(b"{") {
            append(&mut archive, &format!("f{number}/json"), file);
            append(&mut archive, &format!("f{number}/layer.tar"), files.last().unwrap_or(file));
        }
    }
    let archive = archive.into_inner().expect("write to memory");
    PLACE.with_borrow_mut(|place| {
        let options = &place.get_or_insert_with(new_place).options;
        let images = options.store.images();
        let before = images.list().expect("list images");
        let Ok(loaded) = load(&archive[..], options) else {
            assert_eq!(images.list().expect("list images"), before);
            return 0;
        };
        assert!(!loaded.is_empty());
        for image in &loaded {
            check_image(image, options);
        }
        loaded.len()
    })
}

fn check_image(image: &LoadedImage, options: &LoadOptions) {
    let content = options.store.content();
    assert!(content.size(&image.id).expect("look for a blob").is_some());
    for name in &image.names {
        let row = options.store.images().get(&name.name.to_string()).expect("look for a name");
        let row = row.expect("the name is there");
        let bytes = content.read(&row.digest, 4 << 20).expect("its manifest is there");
        assert_eq!(bytes.len() as u64, row.size);
        assert!(kiln_registry::check_document(&bytes, Some(&row.media_type)).is_ok());
        // The names of earlier inputs would make later checks slow.
        options.store.images().remove_name(&name.name.to_string()).expect("remove a name");
    }
    if image.names.is_empty() {
        options.store.images().remove(&image.id).expect("remove an image");
    }
}

fn new_place() -> Place {
    let directory = place();
    let store = Store::open(directory.path()).expect("open a store");
    let limits =
        ArchiveLimits { max_ratio: Some(100), free_bytes: 1 << 20, max_entries: Some(200) };
    Place { _directory: directory, options: LoadOptions { store, limits, now: 7 } }
}

use kiln_testkit::Publishings;
use serde_json::json;

use super::*;

/// An archive under construction.
struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn file(mut self, name: &str, content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        self.0.append_data(&mut header, name, content).unwrap();
        self
    }

    fn link(mut self, kind: tar::EntryType, name: &str, target: &str) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        self.0.append_link(&mut header, name, target).unwrap();
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn layer(name: &str) -> Vec<u8> {
    Archive::new().file(name, name.as_bytes()).bytes()
}

fn config(layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    config.to_string().into_bytes()
}

/// Returns the `manifest.json` of an image whose config is `c.json`.
fn manifest(tags: &[&str], layers: &[&str]) -> Vec<u8> {
    json!([{"Config": "c.json", "RepoTags": tags, "Layers": layers}]).to_string().into_bytes()
}

struct Place {
    _directory: tempfile::TempDir,
    options: LoadOptions,
}

fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let options = LoadOptions { store, limits: ArchiveLimits::default(), now: 7 };
    Place { _directory: directory, options }
}

impl Place {
    /// Loads an invalid archive and returns the error. Checks that it leaves no image in the store.
    #[track_caller]
    fn refusal(&self, archive: &[u8]) -> String {
        let error = load(archive, &self.options).unwrap_err();
        assert!(self.options.store.images().list().unwrap().is_empty());
        kiln_oci::error::chain(&error)
    }
}

#[test]
fn old_archives_share_layers_by_links() {
    let place = place();
    let (one, two) = (layer("one"), layer("two"));
    let archive = Archive::new()
        .file("x/layer.tar", &one)
        .link(tar::EntryType::Symlink, "y/layer.tar", "../x/layer.tar")
        .link(tar::EntryType::Link, "z/layer.tar", "./y/layer.tar")
        .file("w/layer.tar", &two)
        .file("c.json", &config(&[&one, &two, &one]))
        .file(
            "manifest.json",
            &manifest(&["a:1", "b"], &["z/layer.tar", "w/layer.tar", "y/layer.tar"]),
        )
        .bytes();
    let loaded = load(&archive[..], &place.options).unwrap();
    let names: Vec<String> = loaded[0].names.iter().map(|name| name.name.to_string()).collect();
    assert_eq!(names, ["docker.io/library/a:1", "docker.io/library/b:latest"]);
    assert_eq!(loaded[0].id, Digest::of(&config(&[&one, &two, &one])));
    let row = place.options.store.images().get("docker.io/library/a:1").unwrap().unwrap();
    assert_eq!(
        (row.created_at, row.media_type.as_str()),
        (7, kiln_oci::media_type::DOCKER_MANIFEST)
    );
    let again = load(&archive[..], &place.options).unwrap();
    assert_eq!((again[0].id, &again[0].names[0].previous), (loaded[0].id, &None));
    // Another image takes over the name.
    let other = Archive::new()
        .file("l", &two)
        .file("c.json", &config(&[&two]))
        .file("manifest.json", &manifest(&["a:1"], &["l"]))
        .bytes();
    let loaded = load(&other[..], &place.options).unwrap();
    assert_eq!(loaded[0].names[0].previous, Some(row.digest));
}

#[test]
fn links_lead_nowhere_but_into_the_archive() {
    let place = place();
    let one = layer("one");
    for (kind, target) in [
        (tar::EntryType::Symlink, "/etc/passwd"),
        (tar::EntryType::Symlink, "../../../../etc/passwd"),
        (tar::EntryType::Symlink, "layer.tar"),
        (tar::EntryType::Link, "/etc/passwd"),
        (tar::EntryType::Link, "../../etc/passwd"),
    ] {
        let archive = Archive::new()
            .link(kind, "x/layer.tar", target)
            .file("c.json", &config(&[&one]))
            .file("manifest.json", &manifest(&["a"], &["x/layer.tar"]))
            .bytes();
        let refusal = place.refusal(&archive);
        assert!(refusal.contains("x/layer.tar: is not in the archive"), "{target}: {refusal}");
    }
    let outside = Archive::new()
        .file("c.json", &config(&[&one]))
        .file("manifest.json", &manifest(&["a"], &["../../../../etc/passwd"]))
        .bytes();
    assert!(place.refusal(&outside).contains("is not in the archive"));
}

#[test]
fn what_is_not_what_it_says_is_refused() {
    let place = place();
    let (one, two) = (layer("one"), layer("two"));
    let with = |manifest: &[u8], layer: &[u8]| {
        let archive = Archive::new().file("l", layer).file("c.json", &config(&[&one]));
        archive.file("manifest.json", manifest).bytes()
    };
    let good = manifest(&["a"], &["l"]);
    let mut torn = with(&good, &one);
    torn.truncate(700);
    for (archive, problem) in [
        (with(&good, &two), "its config calls it"),
        (with(&manifest(&["a"], &[]), &one), "layers length mismatch: expected 1, got 0"),
        (with(&manifest(&["A:*"], &["l"]), &one), "invalid tag"),
        (with(b"[]", &one), "its list is empty"),
        (with(b"{", &one), "manifest.json: "),
        (Archive::new().file("x", b"").bytes(), "neither an index.json nor a manifest.json"),
        (Archive::new().file("repositories", b"{}").bytes(), "its list is empty"),
        (Vec::new(), "neither an index.json nor a manifest.json"),
        (b"nonsense".repeat(100), "read the archive"),
        (torn, "read "),
    ] {
        let refusal = place.refusal(&archive);
        assert!(refusal.contains(problem), "{problem}: {refusal}");
    }
    assert!(load(&with(&good, &one)[..], &place.options).is_ok());
}

#[test]
fn archives_are_bounded() {
    let mut place = place();
    let one = layer("one");
    place.options.limits.max_entries = Some(3);
    let many = ["a", "b", "c", "d"].iter().fold(Archive::new(), |all, name| all.file(name, b"x"));
    assert!(place.refusal(&many.bytes()).contains("exceeds the limit of entries"));
    let large = Archive::new()
        .file("c.json", &vec![b' '; (crate::document::CONFIG_LIMIT + 1) as usize])
        .file("l", &one)
        .file("manifest.json", &manifest(&["a"], &["l"]))
        .bytes();
    assert!(place.refusal(&large).contains("c.json: is larger than"));
}

/// Returns a layout of an image with one layer, and with additional `blobs`.
fn layout(layer: &[u8], annotations: &serde_json::Value, blobs: &[(Digest, &[u8])]) -> Archive {
    let config = config(&[layer]);
    let descriptor = |kind: &str, bytes: &[u8]| {
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": Digest::of(bytes), "size": bytes.len(),
        })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": kiln_oci::media_type::OCI_MANIFEST,
        "config": descriptor("config.v1+json", &config),
        "layers": [descriptor("layer.v1.tar", layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let mut entry = descriptor("manifest.v1+json", &manifest);
    entry["annotations"] = annotations.clone();
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    let mut archive = Archive::new().file("index.json", index.to_string().as_bytes());
    for bytes in [&config[..], &manifest] {
        archive = archive.file(&format!("blobs/sha256/{}", Digest::of(bytes).hex()), bytes);
    }
    for (digest, bytes) in blobs {
        archive = archive.file(&format!("blobs/sha256/{}", digest.hex()), bytes);
    }
    archive
}

#[test]
fn layouts_keep_digests_and_names() {
    let one = layer("one");
    let blob = (Digest::of(&one), &one[..]);
    for (annotations, names) in [
        (
            json!({"io.containerd.image.name": "docker.io/library/a:1"}),
            &["docker.io/library/a:1"][..],
        ),
        (json!({"org.opencontainers.image.ref.name": "example.com/a:1"}), &["example.com/a:1"]),
        (json!({"org.opencontainers.image.ref.name": "latest"}), &[]),
        (json!({}), &[]),
    ] {
        let place = place();
        let archive = layout(&one, &annotations, &[blob]).bytes();
        let loaded = load(&archive[..], &place.options).unwrap();
        let found: Vec<String> = loaded[0].names.iter().map(|name| name.name.to_string()).collect();
        assert_eq!(found, names);
        assert_eq!(loaded[0].id, Digest::of(&config(&[&one])));
    }
    // A layout may have names in an additional `manifest.json`.
    let place = place();
    let list = json!([{
        "Config": format!("blobs/sha256/{}", Digest::of(&config(&[&one])).hex()),
        "RepoTags": ["beside:1"], "Layers": [],
    }]);
    let archive = layout(&one, &json!({}), &[blob]);
    let archive = archive.file("manifest.json", list.to_string().as_bytes()).bytes();
    let loaded = load(&archive[..], &place.options).unwrap();
    assert_eq!(loaded[0].names[0].name.to_string(), "docker.io/library/beside:1");
}

#[test]
fn blobs_of_layouts_are_verified() {
    let place = place();
    let (one, two) = (layer("one"), layer("two"));
    let named = json!({"io.containerd.image.name": "docker.io/library/a:1"});
    let lies = layout(&one, &named, &[(Digest::of(&one), &two)]).bytes();
    assert!(place.refusal(&lies).contains("content has digest"));
    let lacks = layout(&one, &named, &[]).bytes();
    assert!(place.refusal(&lacks).contains("is not in the archive"));
    let path = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let link = layout(&one, &named, &[])
        .file("elsewhere", &two)
        .link(tar::EntryType::Symlink, &path(&one), "../../elsewhere")
        .bytes();
    assert!(place.refusal(&link).contains("content has digest"));
    let confused = Archive::new().file("index.json", br#"{"manifests":[],"layers":[]}"#).bytes();
    assert!(place.refusal(&confused).contains("both a manifest and an index"));
}

/// Returns an archive in the format of Docker before 1.10. Each image has an ID, a parent and a
/// layer.
fn old_archive(images: &[(&str, Option<&str>, &[u8])]) -> Archive {
    images.iter().fold(Archive::new(), |archive, (id, parent, layer)| {
        let mut config = json!({
            "id": id, "architecture": "amd64", "os": "linux", "created": "2015-09-01T01:02:03Z",
            "docker_version": "1.9.1", "Size": 7, "config": {"Env": ["A=<b>"], "Cmd": ["sh"]},
            "container_config": {"Cmd": ["/bin/sh", "-c", format!("#(nop) ADD {id}")]},
        });
        if let Some(parent) = parent {
            config["parent"] = json!(parent);
        }
        let config = serde_json::to_string_pretty(&config).unwrap();
        archive
            .file(&format!("{id}/VERSION"), b"1.0")
            .file(&format!("{id}/json"), config.as_bytes())
            .file(&format!("{id}/layer.tar"), layer)
    })
}

#[test]
fn archives_from_before_docker_1_10_load() {
    let place = place();
    let (one, two) = (layer("one"), layer("two"));
    let (base, top) = ("0".repeat(64), "1".repeat(64));
    let names = json!({"a": {"1": top, "2": base}, "r.example:5000/b": {"latest": top}});
    let images = [(&*base, None, &one[..]), (&*top, Some(&*base), &two[..])];
    let archive = old_archive(&images).file("repositories", names.to_string().as_bytes());
    let loaded = load(&archive.bytes()[..], &place.options).unwrap();
    let names = |image: &LoadedImage| -> Vec<String> {
        image.names.iter().map(|name| name.name.familiar()).collect()
    };
    assert_eq!(names(&loaded[0]), ["a:2"]);
    assert_eq!(names(&loaded[1]), ["a:1", "r.example:5000/b:latest"]);
    // The members are sorted, those of the old format are removed, and special characters of HTML
    // are escaped as in Go.
    let nop = |id: &str| {
        format!(
            "{{\"created\":\"2015-09-01T01:02:03Z\",\"created_by\":\"/bin/sh -c #(nop) ADD {id}\"}}"
        )
    };
    let expected = format!(
        "{{\"architecture\":\"amd64\",\
         \"config\":{{\"Cmd\":[\"sh\"],\"Env\":[\"A=\\u003cb\\u003e\"]}},\
         \"container_config\":{{\"Cmd\":[\"/bin/sh\",\"-c\",\"#(nop) ADD {top}\"]}},\
         \"created\":\"2015-09-01T01:02:03Z\",\"docker_version\":\"1.9.1\",\
         \"history\":[{},{}],\"os\":\"linux\",\
         \"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"{}\",\"{}\"]}}}}",
        nop(&base),
        nop(&top),
        Digest::of(&one),
        Digest::of(&two),
    );
    let config = place.options.store.content().read(&loaded[1].id, 1 << 20).unwrap();
    assert_eq!(String::from_utf8(config).unwrap(), expected);

    // An image without a name is loaded if it is no other image's parent.
    let named = json!({"a": {"2": base}}).to_string().into_bytes();
    let with_base = old_archive(&images).file("repositories", &named).bytes();
    for (archive, count) in [(old_archive(&images).bytes(), 1), (with_base, 2)] {
        let loaded = load(&archive[..], &place.options).unwrap();
        assert_eq!(loaded.len(), count);
        let last = loaded.last().unwrap();
        assert_eq!((last.names.len(), last.id), (0, Digest::of(expected.as_bytes())));
    }
}

#[test]
fn layers_of_old_archives_may_be_links_and_compressed() {
    let place = place();
    let one = layer("one");
    let zipped = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, &one).unwrap();
        encoder.finish().unwrap()
    };
    let config = |parent: &str| format!("{{\"parent\":\"{parent}\"}}").into_bytes();
    let archive = old_archive(&[("base", None, &zipped)])
        .file("soft/json", &config("base"))
        .link(tar::EntryType::Symlink, "soft/layer.tar", "../base/layer.tar")
        .file("hard/json", &config("soft"))
        .link(tar::EntryType::Link, "hard/layer.tar", "soft/layer.tar")
        .file("repositories", br#"{"a":{"b":"hard"}}"#)
        .bytes();
    let loaded = load(&archive[..], &place.options).unwrap();
    let config = place.options.store.content().read(&loaded[0].id, 1 << 20).unwrap();
    let config = kiln_oci::ImageConfig::parse(&config).unwrap();
    assert_eq!(config.rootfs.diff_ids(), [Digest::of(&one); 3]);
}

#[test]
fn old_archives_are_hostile() {
    let place = place();
    let one = layer("one");
    let named = |id: &str| json!({"a": {"b": id}}).to_string().into_bytes();
    let loops = || old_archive(&[("x", Some("y"), &one), ("y", Some("x"), &one)]);
    let image = || old_archive(&[("x", None, &one)]);
    let ids: Vec<String> = (0..=1000).map(|number| format!("i{number}")).collect();
    let endless: Vec<_> = ids
        .iter()
        .enumerate()
        .map(|(number, id)| (&**id, ids.get(number + 1).map(|next| &**next), &one[..]))
        .collect();
    let bad_parent = |parent: &str| old_archive(&[("x", Some(parent), &one)]);
    let linked = |target: &str| {
        let archive = Archive::new().file("x/json", b"{}").file("repositories", &named("x"));
        archive.link(tar::EntryType::Symlink, "x/layer.tar", target).bytes()
    };
    for (archive, problem) in [
        (loops().file("repositories", &named("x")).bytes(), "is a parent of itself"),
        (loops().bytes(), "each of its images is another one's parent"),
        (
            old_archive(&[("x", Some("x"), &one)]).file("repositories", &named("x")).bytes(),
            "is a parent of itself",
        ),
        (
            old_archive(&endless).file("repositories", &named("i0")).bytes(),
            "has more than 1000 parents",
        ),
        (image().file("repositories", &named("y")).bytes(), "y/json: is not in the archive"),
        (
            bad_parent("gone").file("repositories", &named("x")).bytes(),
            "gone/json: is not in the archive",
        ),
        (
            bad_parent("../../etc").file("repositories", &named("x")).bytes(),
            "invalid image ID \"../../etc\"",
        ),
        (image().file("repositories", &named("../x")).bytes(), "invalid image ID \"../x\""),
        (
            Archive::new().file("x/json", b"{}").file("repositories", &named("x")).bytes(),
            "x/layer.tar: is not in the archive",
        ),
        (image().file("x/json", b"[").file("repositories", &named("x")).bytes(), "x/json: "),
        (image().file("repositories", b"[]").bytes(), "repositories: "),
        (image().file("repositories", br#"{"A*":{"b":"x"}}"#).bytes(), "invalid tag"),
        (linked("/etc/passwd"), "x/layer.tar: is not in the archive"),
        (linked("../../../etc/passwd"), "x/layer.tar: is not in the archive"),
        (linked("layer.tar"), "x/layer.tar: is not in the archive"),
    ] {
        let refusal = place.refusal(&archive);
        assert!(refusal.contains(problem), "{problem}: {refusal}");
    }
}

#[test]
fn a_layer_that_is_named_again_and_again_is_unpacked_once() {
    let place = place();
    let zeros = vec![0; 128 << 20];
    let image = json!({"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["l"]});
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &zeros).unwrap();
    let archive = Archive::new()
        .file("l", &encoder.finish().unwrap())
        .file("c.json", &config(&[&zeros]))
        .file("manifest.json", json!(vec![image; 500]).to_string().as_bytes())
        .bytes();
    let begun = std::time::Instant::now();
    assert_eq!(load(&archive[..], &place.options).unwrap().len(), 500);
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}

#[test]
fn nested_indexes_that_name_the_same_again_and_again_end() {
    let place = place();
    let one = layer("one");
    let manifest = json!({
        "schemaVersion": 2, "config": described(kiln_oci::media_type::OCI_CONFIG, &config(&[&one])),
        "layers": [described(kiln_oci::media_type::OCI_LAYER, &one)],
    });
    let mut archive = layout(&one, &json!({}), &[(Digest::of(&one), &one)]);
    let (mut document, mut kind) = (manifest, kiln_oci::media_type::OCI_MANIFEST);
    for _ in 0..4 {
        let bytes = document.to_string();
        let path = format!("blobs/sha256/{}", Digest::of(bytes.as_bytes()).hex());
        archive = archive.file(&path, bytes.as_bytes());
        let entries = vec![described(kind, bytes.as_bytes()); 300];
        document = json!({"schemaVersion": 2, "manifests": entries});
        kind = kiln_oci::media_type::OCI_INDEX;
    }
    let bytes = document.to_string();
    let path = format!("blobs/sha256/{}", Digest::of(bytes.as_bytes()).hex());
    let top = json!({"schemaVersion": 2, "manifests": [described(kind, bytes.as_bytes())]});
    let archive = archive.file(&path, bytes.as_bytes());
    let archive = archive.file("index.json", top.to_string().as_bytes()).bytes();
    assert_eq!(load(&archive[..], &place.options).unwrap().len(), 1);
    place.options.store.disk_usage().unwrap();
}

fn described(kind: &str, bytes: &[u8]) -> serde_json::Value {
    json!({"mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len()})
}

#[test]
fn descriptors_that_lie_about_sizes_are_refused() {
    let place = place();
    let one = layer("one");
    let config = config(&[&one]);
    let honest = layout(&one, &json!({}), &[(Digest::of(&one), &one)]);
    for size in [0, config.len() as u64 + 1, i64::MAX as u64] {
        let mut described_config = described(kiln_oci::media_type::OCI_CONFIG, &config);
        described_config["size"] = size.into();
        let manifest = json!({"schemaVersion": 2, "config": described_config, "layers": []});
        let manifest = manifest.to_string();
        let index = |size: u64| {
            let mut entry = described(kiln_oci::media_type::OCI_MANIFEST, manifest.as_bytes());
            entry["size"] = size.into();
            json!({"schemaVersion": 2, "manifests": [entry]}).to_string()
        };
        let path = format!("blobs/sha256/{}", Digest::of(manifest.as_bytes()).hex());
        for (entry_size, lie) in [(manifest.len() as u64, "config"), (size, "manifest")] {
            let archive = Archive::new()
                .file(&format!("blobs/sha256/{}", Digest::of(&config).hex()), &config)
                .file(&path, manifest.as_bytes())
                .file("index.json", index(entry_size).as_bytes());
            let refusal = place.refusal(&archive.bytes());
            assert!(refusal.contains(&format!("says {size} bytes")), "{lie}: {refusal}");
        }
    }
    assert!(load(&honest.bytes()[..], &place.options).is_ok());
}

#[test]
fn the_number_of_images_is_limited() {
    let image = json!({"Config": "c.json", "Layers": []});
    let list = json!(vec![image; MAX_NAMES + 1]).to_string();
    let archive = Archive::new().file("manifest.json", list.as_bytes()).bytes();
    assert!(place().refusal(&archive).contains("it lists 10001 images"));
}

#[test]
fn an_archive_gives_so_many_names_and_publishes_them_once() {
    let place = place();
    let content = layer("one");
    let named = |count: usize| {
        let tags: Vec<String> = (0..count).map(|number| format!("a:{number}")).collect();
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        Archive::new()
            .file("manifest.json", &manifest(&tags, &["one.tar"]))
            .file("c.json", &config(&[&content]))
            .file("one.tar", &content)
            .bytes()
    };
    let text = place.refusal(&named(MAX_NAMES + 1));
    assert!(text.contains("it gives 10001 names, more than 10000"), "{text}");
    let publishings = Publishings::of(place.options.store.root());
    let loaded = load(named(1000).as_slice(), &place.options).unwrap();
    assert_eq!((loaded[0].names.len(), publishings.count()), (1000, 1));
}

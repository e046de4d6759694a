//! Tests of every output type. Third-party tools check the results if they are installed.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by it, or says why not"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use kiln_event::{Event, EventReceiver, EventSender, Reporter};
use kiln_exporter::{ExportContext, ExportRequest, Exported, ImageSource, Output, export};
use kiln_images::{
    Compression, Fetcher, ImageResolver, ImageResolverOptions, Packer, Packing, Snapshots,
};
use kiln_oci::{Digest, History, ImageConfig, Platform, media_type};
use kiln_store::{LayerBlob, LayerId, Store};
use kiln_tree::ArchiveLimits;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

struct Fixture {
    dir: tempfile::TempDir,
    store: Store,
    /// An OCI layout in place of a registry.
    layout: tempfile::TempDir,
    fetcher: Fetcher,
    events: EventReceiver,
    _runtime: Runtime,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("root")).unwrap();
        let layout = tempfile::tempdir().unwrap();
        fs::create_dir_all(layout.path().join("blobs/sha256")).unwrap();
        let options = ImageResolverOptions::new(store.clone(), kiln_registry::Client::default());
        let snapshots = Snapshots::new(store.clone(), &ImageResolver::new(options));
        let (runtime, (sender, events)) = (Runtime::new().unwrap(), EventSender::channel());
        let reporter = Reporter::new(0, sender, CancellationToken::new());
        let fetcher = Fetcher::new(snapshots, runtime.handle().clone(), reporter);
        Self { dir, store, layout, fetcher, events, _runtime: runtime }
    }

    /// Returns the names of the blobs that were fetched since the last call.
    fn fetched(&mut self) -> Vec<String> {
        let events = std::iter::from_fn(|| self.events.try_recv());
        let name = |event| match event {
            Event::Status { name, done: true, .. } => Some(name),
            _ => None,
        };
        events.filter_map(name).collect()
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn layer(&self, parent: Option<&LayerId>, fill: impl FnOnce(&Path)) -> LayerId {
        let tree = self.store.layers().begin().unwrap();
        fill(tree.fs());
        self.store.layers().commit(tree, parent).unwrap()
    }

    /// Creates two layers. The upper one deletes and replaces files.
    fn two_layers(&self) -> LayerId {
        let base = self.layer(None, |fs| {
            fs::create_dir_all(fs.join("etc/sub")).unwrap();
            fs::write(fs.join("etc/keep"), "kept").unwrap();
            fs::write(fs.join("etc/change"), "old").unwrap();
            fs::write(fs.join("etc/delete"), "gone").unwrap();
            fs::write(fs.join("etc/sub/large"), vec![b'x'; 3_000_000]).unwrap();
            std::os::unix::fs::symlink("keep", fs.join("etc/link")).unwrap();
        });
        self.layer(Some(&base), |fs| {
            fs::create_dir(fs.join("etc")).unwrap();
            fs::write(fs.join("etc/change"), "new").unwrap();
            if rustix::process::geteuid().is_root() {
                use rustix::fs::{CWD, FileType, Mode, mknodat};
                let kind = FileType::CharacterDevice;
                mknodat(CWD, fs.join("etc/delete"), kind, Mode::empty(), 0).unwrap();
            }
        })
    }

    fn export(&self, layer: &LayerId, outputs: Vec<Output>) -> (Exported, Vec<u8>) {
        let request = ExportRequest {
            images: vec![ImageSource { epoch: Some(1_700_000_000), ..source(Some(layer.clone())) }],
            outputs,
            has_index: false,
            attester: None,
        };
        let mut stdout = Vec::new();
        let mut context = ExportContext {
            store: &self.store,
            fetcher: &self.fetcher,
            limits: ArchiveLimits::default(),
            progress: &Reporter::silent(),
            remote: None,
            stdout: &mut stdout,
        };
        let exported = export(&request, &mut context).unwrap();
        (exported, stdout)
    }
}

fn source(layer: Option<LayerId>) -> ImageSource {
    let platform = Platform::new("linux", "amd64", None);
    let made = |by: &str| History { created_by: by.to_owned(), ..History::default() };
    let history = if layer.is_some() { vec![made("base"), made("top")] } else { Vec::new() };
    let config = ImageConfig {
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
        history,
        ..ImageConfig::default()
    };
    ImageSource { config, layer, platform, epoch: None }
}

fn output(text: &str) -> Output {
    Output::parse(text).unwrap()
}

/// Runs a tool and returns its output. Prints a note and returns `None` if the tool isn't
/// installed.
fn tool(name: &str, arguments: &[&str]) -> Option<String> {
    let output = match Command::new(name).args(arguments).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: {name} is not installed");
            return None;
        }
        output => output.unwrap(),
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments:?}: {errors}");
    Some(String::from_utf8(output.stdout).unwrap())
}

fn entries(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    tar::Archive::new(tar)
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().display().to_string(), bytes)
        })
        .collect()
}

#[test]
fn an_oci_archive_is_read_by_skopeo_and_umoci() {
    let fixture = Fixture::new();
    let layer = fixture.two_layers();
    let file = fixture.path("image.tar");
    let text = format!(r#"type=oci,"name=app:1,app:2",dest={file},annotation.who=me"#);
    let (exported, _) = fixture.export(&layer, vec![output(&text)]);
    assert_eq!(exported.names, ["docker.io/library/app:1", "docker.io/library/app:2"]);
    let Some(inspected) = tool("skopeo", &["inspect", &format!("oci-archive:{file}:2")]) else {
        return;
    };
    let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["Digest"], exported.manifest.unwrap().to_string());
    assert_eq!(inspected["Layers"].as_array().unwrap().len(), 2);
    assert_eq!(inspected["Created"], "2023-11-14T22:13:20Z");
    let dir = fixture.path("dir");
    tool("skopeo", &["copy", &format!("oci-archive:{file}:1"), &format!("dir:{dir}")]);
    let layout = fixture.path("layout");
    tool("skopeo", &["copy", &format!("oci-archive:{file}:1"), &format!("oci:{layout}:x")]);
    let bundle = fixture.path("bundle");
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: unpacking needs root");
    }
    if tool("umoci", &["unpack", "--image", &format!("{layout}:x"), &bundle]).is_some() {
        let etc = Path::new(&bundle).join("rootfs/etc");
        assert_eq!(fs::read_to_string(etc.join("change")).unwrap(), "new");
        assert_eq!(fs::read_to_string(etc.join("link")).unwrap(), "kept");
        assert_eq!(fs::metadata(etc.join("sub/large")).unwrap().len(), 3_000_000);
        assert!(!etc.join("delete").exists());
    }
}

#[test]
fn a_layout_directory_is_written_too() {
    let fixture = Fixture::new();
    let layer = fixture.two_layers();
    let dir = fixture.path("layout");
    let text = format!("type=oci,name=app,tar=false,dest={dir},compression=zstd");
    let (exported, _) = fixture.export(&layer, vec![output(&text)]);
    assert!(Path::new(&dir).join("oci-layout").exists());
    let inspected = tool("skopeo", &["inspect", "--raw", &format!("oci:{dir}:latest")]);
    if let Some(raw) = inspected {
        assert_eq!(Digest::of(raw.as_bytes()), exported.manifest.unwrap());
        assert!(raw.contains(media_type::OCI_LAYER_ZSTD), "{raw}");
    }
}

#[test]
fn a_docker_archive_is_read_by_skopeo() {
    let fixture = Fixture::new();
    let layer = fixture.two_layers();
    let file = fixture.path("image.tar");
    let text = format!("type=docker,name=docker.io/library/app:1,dest={file}");
    let (exported, _) = fixture.export(&layer, vec![output(&text)]);
    let files = entries(&fs::read(&file).unwrap());
    let manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    assert_eq!(manifest[0]["RepoTags"], serde_json::json!(["app:1"]));
    let config = manifest[0]["Config"].as_str().unwrap();
    assert_eq!(config, format!("blobs/sha256/{}", exported.image_id.unwrap().hex()));
    for layer in manifest[0]["Layers"].as_array().unwrap() {
        assert!(files.contains_key(layer.as_str().unwrap()));
    }
    assert!(files.contains_key("index.json") && files.contains_key("oci-layout"));
    tool("skopeo", &["inspect", &format!("docker-archive:{file}")]);
}

#[test]
fn an_image_in_the_store_is_a_layout_for_others() {
    let fixture = Fixture::new();
    let layer = fixture.two_layers();
    let (exported, _) = fixture.export(&layer, vec![output("type=image,name=app")]);
    let row = fixture.store.images().get("docker.io/library/app:latest").unwrap().unwrap();
    assert_eq!(Some(row.digest), exported.manifest);
    let content = fixture.store.root().join("content");
    let name = format!("oci:{}:docker.io/library/app:latest", content.display());
    tool("skopeo", &["inspect", &name]);
    // All parts of the image survive a garbage collection by another process.
    let Fixture { dir, store, fetcher, .. } = fixture;
    drop(fetcher);
    let root = store.root().to_owned();
    drop(store);
    let store = Store::open(&root).unwrap();
    assert_eq!(store.collect().unwrap().layers, 0);
    assert_eq!(store.layers().chain(&layer).unwrap().len(), 2);
    tool("skopeo", &["inspect", &name]);
    drop(dir);
}

#[test]
fn the_same_image_has_the_same_bytes() {
    let archives: Vec<Vec<u8>> = [1, 2, 8]
        .into_iter()
        .map(|threads| {
            let fixture = Fixture::new();
            let layer = fixture.two_layers();
            let root = fixture.store.root().join("snapshots");
            for entry in fs::read_dir(root).unwrap() {
                let fs = entry.unwrap().path().join("fs");
                tool("find", &[fs.to_str().unwrap(), "-exec", "touch", "-hd", "@1", "{}", "+"]);
            }
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| fixture.export(&layer, vec![output("type=oci,dest=-")]).1)
        })
        .collect();
    assert!(!archives[0].is_empty());
    assert!(archives.iter().all(|archive| *archive == archives[0]));
}

#[test]
fn files_are_merged_into_a_tar() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: mounting needs root");
    }
    let fixture = Fixture::new();
    let layer = fixture.two_layers();
    let (exported, stdout) = fixture.export(&layer, vec![output("-")]);
    assert_eq!(exported, Exported::default());
    let files = entries(&stdout);
    assert_eq!(files["etc/change"], b"new");
    assert_eq!(files["etc/keep"], b"kept");
    assert!(!files.keys().any(|name| name.contains("delete")), "{:?}", files.keys());
}

#[test]
fn files_are_copied_into_a_directory() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: mounting needs root");
    }
    let fixture = Fixture::new();
    let layer = fixture.two_layers();
    let dest = fixture.path("out/deep");
    fs::create_dir_all(&dest).unwrap();
    fs::write(Path::new(&dest).join("stays"), "").unwrap();
    for round in 0..2 {
        fixture.export(&layer, vec![output(&dest)]);
        let etc = Path::new(&dest).join("etc");
        assert_eq!(fs::read_to_string(etc.join("change")).unwrap(), "new", "{round}");
        assert_eq!(fs::read_link(etc.join("link")).unwrap(), Path::new("keep"));
        assert_eq!(fs::metadata(etc.join("sub/large")).unwrap().len(), 3_000_000);
        assert!(!etc.join("delete").exists() && Path::new(&dest).join("stays").exists());
    }
}

#[test]
fn an_image_without_files_can_be_exported() {
    let fixture = Fixture::new();
    let outputs = vec![
        output("type=image,name=empty"),
        output(&format!("type=docker,name=empty,dest={}", fixture.path("empty.tar"))),
    ];
    let request =
        ExportRequest { images: vec![source(None)], outputs, has_index: false, attester: None };
    let mut context = ExportContext {
        store: &fixture.store,
        fetcher: &fixture.fetcher,
        limits: ArchiveLimits::default(),
        progress: &Reporter::silent(),
        remote: None,
        stdout: &mut std::io::sink(),
    };
    let exported = export(&request, &mut context).unwrap();
    assert!(exported.size.unwrap() > 0);
}

#[test]
fn platforms_lie_beside_each_other_or_share_a_place() {
    let fixture = Fixture::new();
    let file = |name: &str| {
        fixture.layer(None, |fs| {
            fs::create_dir(fs.join("d")).unwrap();
            fs::write(fs.join("d").join(name), name).unwrap();
        })
    };
    let image = |platform: &str, layer: LayerId| ImageSource {
        platform: platform.parse().unwrap(),
        ..source(Some(layer))
    };
    let run = |names: [&str; 2], outputs: Vec<Output>| {
        let images =
            vec![image("linux/arm/v6", file(names[0])), image("linux/amd64", file(names[1]))];
        let request = ExportRequest { images, outputs, has_index: false, attester: None };
        let mut stdout = Vec::new();
        let mut context = ExportContext {
            store: &fixture.store,
            fetcher: &fixture.fetcher,
            limits: ArchiveLimits::default(),
            progress: &Reporter::silent(),
            remote: None,
            stdout: &mut stdout,
        };
        let exported = export(&request, &mut context);
        exported.map(|exported| (exported, stdout)).map_err(|error| error.to_string())
    };
    let to = fixture.path("split");
    let (_, tar) = run(["a", "a"], vec![output(&to), output("-")]).unwrap();
    assert_eq!(fs::read_to_string(Path::new(&to).join("linux_arm_v6/d/a")).unwrap(), "a");
    let names: Vec<String> = entries(&tar).into_keys().collect();
    assert!(names.contains(&"linux_amd64/d/a".to_owned()), "{names:?}");

    let to = fixture.path("merged");
    let merged = format!("type=local,dest={to},platform-split=false");
    let tar = "type=tar,dest=-,platform-split=false";
    let (_, bytes) = run(["a", "b"], vec![output(&merged), output(tar)]).unwrap();
    assert_eq!(fs::read_to_string(Path::new(&to).join("d/b")).unwrap(), "b");
    let names: Vec<String> = entries(&bytes).into_keys().collect();
    assert_eq!(names.iter().filter(|name| !name.ends_with('/')).count(), 2, "{names:?}");
    for output_text in [merged.as_str(), tar] {
        let error = run(["a", "a"], vec![output(output_text)]).unwrap_err();
        let expected = "cannot overwrite d/a from linux/arm/v6 with linux/amd64 when split";
        assert!(error.starts_with(expected), "{error}");
    }

    let error = run(["a", "b"], vec![output("type=docker,dest=-")]).unwrap_err();
    assert!(error.contains("does not currently support exporting manifest lists"), "{error}");
    let (exported, stdout) = run(["a", "b"], vec![output("type=oci")]).unwrap();
    assert_eq!(exported.image_id, exported.manifest);
    let files = entries(&stdout);
    let index = &files[&format!("blobs/sha256/{}", exported.manifest.unwrap().hex())];
    let index: serde_json::Value = serde_json::from_slice(index).unwrap();
    let platforms = index["manifests"].as_array().unwrap().iter().map(|entry| &entry["platform"]);
    let variants: Vec<_> = platforms.map(|platform| platform["variant"].as_str()).collect();
    assert_eq!(variants, [Some("v6"), None]);
}

/// Returns a base layer that only the registry has, and its digest.
fn distant_layer(fixture: &Fixture) -> (LayerId, Digest) {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    tar.append_data(&mut header, "base", &b"base"[..]).unwrap();
    let tar = tar.into_inner().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    let gzip = gzip.finish().unwrap();
    let blob = LayerBlob {
        media_type: media_type::DOCKER_LAYER_GZIP.to_owned(),
        digest: Digest::of(&gzip),
        size: gzip.len() as u64,
        origin: Some(fixture.layout.path().display().to_string()),
    };
    let id = fixture.store.layers().declare(None, &Digest::of(&tar), &blob).unwrap();
    fs::write(kiln_images::blob_path(fixture.layout.path(), &blob.digest), gzip).unwrap();
    (id, blob.digest)
}

#[test]
fn layers_of_base_images_are_used_as_they_are() {
    let mut fixture = Fixture::new();
    let (base, digest) = distant_layer(&fixture);
    let top = fixture.layer(Some(&base), |fs| fs::write(fs.join("top"), "top").unwrap());
    let (_, stdout) = fixture.export(&top, vec![output("type=oci,compression=zstd")]);
    assert_eq!(fixture.fetched(), [digest.to_string()]);
    let files = entries(&stdout);
    let name = format!("blobs/sha256/{}", digest.hex());
    assert_eq!(Digest::of(&files[&name]), digest);
    let manifest = files.values().find(|bytes| bytes.starts_with(b"{\n  \"schemaVersion\": 2"));
    let manifests: Vec<String> = files
        .values()
        .filter_map(|bytes| String::from_utf8(bytes.clone()).ok())
        .filter(|text| text.contains("\"layers\": ["))
        .collect();
    assert!(manifest.is_some() && manifests.len() == 1);
    assert!(manifests[0].contains(media_type::OCI_LAYER_GZIP), "converted from docker's");
    assert!(manifests[0].contains(media_type::OCI_LAYER_ZSTD), "the new one is as asked for");
    assert!(fixture.store.layers().get(&top).unwrap().unwrap().chain_id.is_some());
}

#[test]
fn forced_compression_keeps_diff_ids() {
    let mut fixture = Fixture::new();
    let (base, digest) = distant_layer(&fixture);
    let packing = Packing { compression: Compression::Uncompressed, level: None, force: true };
    let progress = Reporter::silent();
    let packer = |packing, limits| Packer {
        store: &fixture.store,
        packing,
        limits,
        fetcher: &fixture.fetcher,
        progress: &progress,
    };
    // The limits of unpacking apply to decompression in the packer, too.
    let tight = ArchiveLimits { max_ratio: Some(1), free_bytes: 0, max_entries: None };
    let error = packer(packing, tight).pack(&base).unwrap_err();
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(cause.contains("exceeds the limit"), "{error}: {cause}");
    let limits = ArchiveLimits::default();
    let packed = packer(packing, limits).pack(&base).unwrap();
    assert_ne!(packed.digest, digest);
    assert_eq!(packed.digest, packed.diff_id, "uncompressed, the two are the same");
    let zstd = Packing { compression: Compression::Zstd, ..packing };
    let again = packer(zstd, limits).pack(&base).unwrap();
    assert_eq!(again.diff_id, packed.diff_id);
    assert_eq!(fixture.fetched().len(), 1);
}

#[test]
fn a_layer_that_nobody_has_is_an_error() {
    let fixture = Fixture::new();
    let (base, digest) = distant_layer(&fixture);
    fs::remove_file(kiln_images::blob_path(fixture.layout.path(), &digest)).unwrap();
    let request = ExportRequest {
        images: vec![source(Some(base))],
        outputs: vec![output(&format!("type=oci,dest={}", fixture.path("out.tar")))],
        has_index: false,
        attester: None,
    };
    let mut context = ExportContext {
        store: &fixture.store,
        fetcher: &fixture.fetcher,
        limits: ArchiveLimits::default(),
        progress: &Reporter::silent(),
        remote: None,
        stdout: &mut std::io::sink(),
    };
    let error = export(&request, &mut context).unwrap_err();
    assert_eq!(error.to_string(), format!("fetch layer {digest}"));
    assert_eq!(fs::read_dir(fixture.dir.path()).unwrap().count(), 1, "no file is left");
}

#[test]
fn a_layer_is_packed_once_by_many() {
    let fixture = Fixture::new();
    let layer = fixture.two_layers();
    let root = fixture.store.root();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let store = Store::open(root).unwrap();
                let packer = Packer {
                    store: &store,
                    packing: Packing::default(),
                    limits: ArchiveLimits::default(),
                    fetcher: &fixture.fetcher,
                    progress: &Reporter::silent(),
                };
                packer.pack(&layer).unwrap()
            });
        }
    });
    assert_eq!(fixture.store.layers().blobs(&layer).unwrap().len(), 1);
}

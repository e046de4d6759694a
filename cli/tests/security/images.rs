//! Hostile archives and images.

use std::io::Write as _;
use std::path::Path;

use kiln_oci::Digest;
use kiln_testkit::environment::base_layout;
use serde_json::{Value, json};
use tar::EntryType;

use crate::arena::Arena;

/// A tar under construction, with unchecked names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    fn add(mut self, kind: EntryType, (name, link): (&str, &str), mode: u32, data: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        let fields = header.as_gnu_mut().unwrap();
        let long = |text: &str| text.len() > 100;
        for (text, kind) in [(name, b'L'), (link, b'K')] {
            if long(text) {
                let data = [text.as_bytes(), b"\0"].concat();
                let kind = EntryType::new(kind);
                self = self.add(kind, ("././@LongLink", ""), 0, &data);
            }
        }
        let cut = |text: &str| text.as_bytes()[..text.len().min(100)].to_vec();
        fields.name[..cut(name).len()].copy_from_slice(&cut(name));
        fields.linkname[..cut(link).len()].copy_from_slice(&cut(link));
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        self.add(EntryType::Regular, (name, ""), 0o644, content.as_bytes())
    }

    pub(crate) fn program(self, name: &str, content: &str) -> Self {
        self.add(EntryType::Regular, (name, ""), 0o755, content.as_bytes())
    }

    pub(crate) fn dir(self, name: &str, mode: u32) -> Self {
        self.add(EntryType::Directory, (name, ""), mode, b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.add(EntryType::Symlink, (name, target), 0o777, b"")
    }

    pub(crate) fn link(self, name: &str, target: &str) -> Self {
        self.add(EntryType::Link, (name, target), 0o666, b"")
    }

    pub(crate) fn fifo(self, name: &str) -> Self {
        self.add(EntryType::Fifo, (name, ""), 0o666, b"")
    }

    pub(crate) fn device(mut self, name: &str, (major, minor): (u32, u32)) -> Self {
        let start = self.0.len();
        self = self.add(EntryType::Char, (name, ""), 0o666, b"");
        let mut header = tar::Header::from_byte_slice(&self.0[start..start + 512]).clone();
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        header.set_cksum();
        self.0[start..start + 512].copy_from_slice(header.as_bytes());
        self
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

/// Compresses bytes with gzip.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An OCI layout that a test may damage.
pub(crate) struct Layout {
    pub(crate) config: Value,
    pub(crate) manifest: Value,
}

impl Layout {
    /// Starts with the base image.
    pub(crate) fn of_base() -> Self {
        let index = read(&base_layout().join("index.json"));
        let manifest = read(&blob_path(base_layout(), &index["manifests"][0]["digest"]));
        let config = read(&blob_path(base_layout(), &manifest["config"]["digest"]));
        Self { config, manifest }
    }

    /// Adds a layer and writes its blob to `directory`.
    pub(crate) fn layer(&mut self, directory: &Path, tar: &[u8], is_packed: bool) {
        let blob = if is_packed { gzip(tar) } else { tar.to_vec() };
        let suffix = if is_packed { "+gzip" } else { "" };
        let media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
        let descriptor = json!({
            "mediaType": media_type, "digest": put(directory, &blob), "size": blob.len()
        });
        let diff_id = Digest::of(tar).to_string();
        self.manifest["layers"].as_array_mut().unwrap().push(descriptor);
        self.config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(json!(diff_id));
        let step = json!({"created_by": "test"});
        self.config["history"].as_array_mut().unwrap().push(step);
    }

    /// Writes the layout to a directory.
    pub(crate) fn write(&mut self, directory: &Path) {
        let config = serde_json::to_vec(&self.config).unwrap();
        self.manifest["config"]["digest"] = json!(put(directory, &config));
        self.manifest["config"]["size"] = json!(config.len());
        let manifest = serde_json::to_vec(&self.manifest).unwrap();
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": put(directory, &manifest),
                "size": manifest.len(),
                "annotations": {"org.opencontainers.image.ref.name": "latest"},
            }],
        });
        std::fs::write(directory.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
        std::fs::write(directory.join("index.json"), index.to_string()).unwrap();
        for entry in std::fs::read_dir(base_layout().join("blobs/sha256")).unwrap() {
            let entry = entry.unwrap();
            let _ =
                std::fs::copy(entry.path(), directory.join("blobs/sha256").join(entry.file_name()));
        }
    }
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn blob_path(directory: &Path, digest: &Value) -> std::path::PathBuf {
    let hex = digest.as_str().unwrap().trim_start_matches("sha256:");
    directory.join("blobs/sha256").join(hex)
}

fn put(directory: &Path, blob: &[u8]) -> String {
    let digest = Digest::of(blob);
    let path = directory.join("blobs/sha256").join(digest.hex());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, blob).unwrap();
    digest.to_string()
}

impl Arena {
    /// Creates an image of the base and a layer. Returns the argument that adds it to a build as
    /// `name`.
    pub(crate) fn image(&self, name: &str, layer: &[u8]) -> String {
        self.image_with(name, layer, |_| {})
    }

    /// Creates an image of the base, a layer and a changed config.
    pub(crate) fn image_with(
        &self,
        name: &str,
        layer: &[u8],
        change: impl FnOnce(&mut Value),
    ) -> String {
        let directory = self.kiln.path(name);
        let mut layout = Layout::of_base();
        layout.layer(&directory, layer, false);
        change(&mut layout.config);
        layout.write(&directory);
        context(name, &directory)
    }
}

/// Returns the argument that adds a layout to a build.
pub(crate) fn context(name: &str, directory: &Path) -> String {
    format!("--build-context={name}=oci-layout://{}:latest", directory.display())
}

//! OCI layouts that are named by their directory. A layout may be hostile: links can't lead outside
//! the directory, and only regular files are opened.

#![expect(clippy::disallowed_methods, reason = "the user names the directory")]

use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use kiln_oci::{Descriptor, Digest, ImageIndex, Platform};
use kiln_registry::platform::select_platform;
use kiln_tree::Dir;

use crate::document::{DOCUMENT_LIMIT, digest_of};
use crate::error::{Error, Result};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// A reference to an image in an OCI layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LayoutReference {
    /// The path of the layout's directory.
    pub(crate) directory: PathBuf,
    /// The tag of the image.
    pub(crate) tag: Option<String>,
    /// The digest of the manifest or index.
    pub(crate) digest: Option<Digest>,
}

impl LayoutReference {
    /// Parses `DIR[:TAG][@DIGEST]`. An existing directory with a colon in its name takes precedence
    /// over a tag.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (rest, digest) = match text.rsplit_once('@') {
            Some((rest, digest)) if digest.starts_with("sha256:") => {
                let digest = digest.parse().map_err(|error| Error::image(text, error))?;
                (rest, Some(digest))
            }
            _ => (text, None),
        };
        let (directory, tag) = match rest.rsplit_once(':') {
            Some((directory, tag)) if !tag.contains('/') && !Path::new(rest).is_dir() => {
                (directory, Some(tag.to_owned()))
            }
            _ => (rest, None),
        };
        if directory.is_empty() {
            return Err(Error::image(text, "oci layout has no directory"));
        }
        Ok(Self { directory: PathBuf::from(directory), tag, digest })
    }

    /// Returns the digest of the image. Of several images with the same tag, it returns the best
    /// match for `platform`.
    pub(crate) fn find(&self, platform: &Platform) -> Result<Digest> {
        if let Some(digest) = self.digest {
            return Ok(digest);
        }
        let mut index = self.index()?;
        let wanted = self.tag.as_deref().unwrap_or("latest");
        let named = |descriptor: &Descriptor| names(descriptor).any(|name| fits(name, wanted));
        let is_only = self.tag.is_none() && index.manifests.len() == 1;
        let found = index.manifests.iter().filter(|entry| is_only || named(entry)).cloned();
        let found: Vec<Descriptor> = found.collect();
        index.manifests = found;
        let best = select_platform(&index, platform).or(index.manifests.first());
        let best = best.ok_or_else(|| {
            let name = self.directory.display();
            Error::image(name, format!("no image is tagged {wanted} in this oci layout"))
        })?;
        digest_of(best)
    }

    fn index(&self) -> Result<ImageIndex> {
        let path = self.directory.join("index.json");
        let file = Dir::open(&self.directory)?.open_file(Path::new("index.json"))?;
        let bytes = read_limited(file, &path.display(), DOCUMENT_LIMIT)?;
        ImageIndex::parse(&bytes)
            .map_err(|error| Error::image(path.display(), format!("invalid index: {error}")))
    }
}

fn names(descriptor: &Descriptor) -> impl Iterator<Item = &str> {
    [REF_NAME, CONTAINERD_NAME]
        .into_iter()
        .filter_map(|key| descriptor.annotations.get(key).map(String::as_str))
}

/// Returns `true` if an image's name in a layout is `wanted`, or has the tag `wanted`.
fn fits(name: &str, wanted: &str) -> bool {
    name == wanted
        || name.strip_suffix(wanted).is_some_and(|rest| rest.ends_with(':') && !rest.contains('@'))
}

/// Returns the path of a blob in an OCI layout.
pub fn blob_path(layout: &Path, digest: &Digest) -> PathBuf {
    layout.join("blobs/sha256").join(digest.hex())
}

/// Opens a blob of a layout that may be hostile, if it exists: links can't lead outside the layout, and
/// only a regular file is opened. The caller must verify the content.
///
/// # Errors
/// Fails if the blob can't be opened.
pub fn open_blob(directory: &Path, digest: &Digest) -> Result<Option<File>> {
    let path = Path::new("blobs/sha256").join(digest.hex());
    let opened = Dir::open(directory).and_then(|root| root.open_file(&path));
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(kiln_tree::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Reads and verifies a blob of a layout.
pub(crate) fn read_blob(directory: &Path, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>> {
    let Some(file) = open_blob(directory, digest)? else { return Ok(None) };
    let bytes = read_limited(file, digest, limit)?;
    let actual = Digest::of(&bytes);
    if actual == *digest {
        Ok(Some(bytes))
    } else {
        Err(kiln_store::Error::DigestMismatch { expected: *digest, actual }.into())
    }
}

fn read_limited(file: File, name: &dyn Display, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::kernel("read", name))?;
    if bytes.len() as u64 > limit {
        return Err(Error::image(name, format!("is larger than {limit} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_references_are_split() {
        let zeros = format!("sha256:{}", "0".repeat(64));
        let parse = |text: &str| {
            let r = LayoutReference::parse(text).unwrap();
            (r.directory.display().to_string(), r.tag, r.digest.is_some())
        };
        assert_eq!(parse("/a/b"), ("/a/b".into(), None, false));
        assert_eq!(parse("/a/b:v1"), ("/a/b".into(), Some("v1".into()), false));
        assert_eq!(parse(&format!("/a/b:v1@{zeros}")), ("/a/b".into(), Some("v1".into()), true));
        assert_eq!(parse(&format!("a@{zeros}")), ("a".into(), None, true));
        assert_eq!(parse("/x:y/b"), ("/x:y/b".into(), None, false));
        assert!(LayoutReference::parse("").is_err());
        assert!(LayoutReference::parse("/a@sha256:../x").is_err());
    }

    #[test]
    fn a_tag_may_stand_for_an_image_of_each_platform() {
        let temp = tempfile::tempdir().unwrap();
        let entry = |number: usize, architecture: &str, tag: &str| {
            serde_json::json!({
                "mediaType": kiln_oci::media_type::OCI_MANIFEST,
                "digest": format!("sha256:{number:064}"),
                "size": 1,
                "platform": { "os": "linux", "architecture": architecture },
                "annotations": { REF_NAME: tag },
            })
        };
        let write = |entries: &[serde_json::Value]| {
            let index = serde_json::json!({ "schemaVersion": 2, "manifests": entries });
            std::fs::write(temp.path().join("index.json"), index.to_string()).unwrap();
        };
        let find = |suffix: &str, platform: &str| {
            let text = format!("{}{suffix}", temp.path().display());
            let found = LayoutReference::parse(&text).unwrap().find(&platform.parse().unwrap());
            found.ok().map(|digest| digest.hex().trim_start_matches('0').to_owned())
        };
        let [one, two, other] =
            [entry(1, "amd64", "a"), entry(2, "arm64", "a"), entry(3, "arm64", "latest")];
        write(&[one.clone(), two, other]);
        assert_eq!(find(":a", "linux/amd64").as_deref(), Some("1"));
        assert_eq!(find(":a", "linux/arm64").as_deref(), Some("2"));
        assert_eq!(find("", "linux/amd64").as_deref(), Some("3"));
        assert_eq!(find(":b", "linux/amd64"), None);
        // Without a tag, the only image is selected, whatever its tag and platform.
        write(&[one]);
        assert_eq!(find("", "linux/s390x").as_deref(), Some("1"));
        assert_eq!(find(":b", "linux/amd64"), None);
    }

    #[test]
    fn links_to_outside_and_fifos_are_not_opened() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let (temp, outside) =
            (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
        let blobs = temp.path().join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        let digest = Digest::of(b"");
        let fifo = |path: &Path| mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        std::os::unix::fs::symlink(outside.path(), blobs.join(digest.hex())).unwrap();
        assert!(open_blob(temp.path(), &digest).unwrap().is_none());
        std::fs::remove_file(blobs.join(digest.hex())).unwrap();
        fifo(&blobs.join(digest.hex()));
        assert!(open_blob(temp.path(), &digest).is_err());
        fifo(&temp.path().join("index.json"));
        let layout = LayoutReference::parse(&temp.path().display().to_string()).unwrap();
        assert!(layout.find(&Platform::host()).is_err());
    }

    #[test]
    fn names_end_in_tags() {
        assert!(fits("latest", "latest"));
        assert!(fits("docker.io/library/base:latest", "latest"));
        assert!(!fits("notlatest", "latest"));
    }
}

//! Caches in directories: OCI layouts that may be hostile.
//!
//! Links can't lead outside the directory, and only regular files are opened. (OCI image
//! specification, "Image Layout".)

#![expect(clippy::disallowed_methods, reason = "the user names the directory")]

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use kiln_images::{DOCUMENT_LIMIT, digest_of, open_blob};
use kiln_oci::{Descriptor, Digest, ImageIndex};
use kiln_tree::Dir;

use crate::error::{Error, Result};

const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Returns `true` if a blob exists with that size.
pub(crate) fn has_cached(directory: &Path, digest: &Digest, size: u64) -> bool {
    let file = open_blob(directory, digest).ok().flatten();
    file.and_then(|file| file.metadata().ok()).is_some_and(|file| file.len() == size)
}

/// Reads and verifies a blob of at most `limit` bytes.
pub(crate) fn read_cached(directory: &Path, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
    let name = digest.to_string();
    let missing = || Error::image(directory.display(), format!("no blob {name}"));
    let file = open_blob(directory, digest)?.ok_or_else(missing)?;
    let bytes = read_limited(file, &name, limit)?;
    let actual = Digest::of(&bytes);
    if actual == *digest {
        Ok(bytes)
    } else {
        Err(kiln_store::Error::DigestMismatch { expected: *digest, actual }.into())
    }
}

/// Returns the digest of the index entry with a tag.
pub(crate) fn find_tag(directory: &Path, tag: &str) -> Result<Digest> {
    let shown = || directory.join("index.json");
    let file = Dir::open(directory)?.open_file(Path::new("index.json"))?;
    let bytes = read_limited(file, "index.json", DOCUMENT_LIMIT)?;
    let index = ImageIndex::parse(&bytes)
        .map_err(|error| Error::image(shown().display(), format!("invalid index: {error}")))?;
    let is_tagged =
        |entry: &&Descriptor| entry.annotations.get(REF_NAME).is_some_and(|name| name == tag);
    let found = index.manifests.iter().find(is_tagged).ok_or_else(|| {
        Error::image(directory.display(), format!("no cache is tagged {tag} in this directory"))
    })?;
    Ok(digest_of(found)?)
}

fn read_limited(file: File, name: &str, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::kernel("read", name))?;
    if bytes.len() as u64 > limit {
        return Err(Error::image(name, format!("is larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// Returns the absolute path of a directory, which the store records.
pub(crate) fn absolute(directory: &Path) -> Result<PathBuf> {
    std::fs::canonicalize(directory).map_err(Error::path("open the cache", directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_blobs_of_the_directory_is_read() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("cache");
        let blobs = root.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        let at = |content: &[u8]| blobs.join(Digest::of(content).hex());
        std::fs::write(at(b"good"), "good").unwrap();
        std::fs::write(at(b"bad"), "baf").unwrap();
        std::fs::write(temp.path().join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink("../../../secret", at(b"secret")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at(b"fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        let read = |content: &[u8]| read_cached(&root, &Digest::of(content), 4);
        assert_eq!(read(b"good").unwrap(), b"good");
        for content in [&b"bad"[..], b"secret", b"fifo", b"missing"] {
            assert!(read(content).is_err());
        }
        assert!(read_cached(&root, &Digest::of(b"good"), 3).is_err());
        assert!(has_cached(&root, &Digest::of(b"good"), 4));
        assert!(!has_cached(&root, &Digest::of(b"good"), 5));
        assert!(open_blob(&root, &Digest::of(b"missing")).unwrap().is_none());
    }

    #[test]
    fn tags_are_found() {
        let temp = tempfile::tempdir().unwrap();
        let entry = |number: usize, tag: &str| {
            serde_json::json!({
                "mediaType": kiln_oci::media_type::OCI_MANIFEST,
                "digest": format!("sha256:{number:064}"),
                "size": 1,
                "annotations": { REF_NAME: tag },
            })
        };
        let index = serde_json::json!({
            "schemaVersion": 2, "manifests": [entry(1, "a"), entry(2, "latest")],
        });
        std::fs::write(temp.path().join("index.json"), index.to_string()).unwrap();
        let find = |tag| find_tag(temp.path(), tag).ok().map(|digest| digest.hex());
        assert!(find("latest").unwrap().ends_with('2') && find("a").unwrap().ends_with('1'));
        assert_eq!(find("b"), None);
    }
}

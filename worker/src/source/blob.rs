//! Blob sources: a layer with one file, a blob of a registry or of an OCI layout.
//!
//! The reference has a digest, which is the identity of the content. So the source's key is known without
//! a request. The file has mode 0600 unless the op sets another one, and the time 1970.

use std::io;
use std::path::Path;

use kiln_event::Reporter;
use kiln_images::{ImageResolver, blocking, open_blob};
use kiln_llb::op::SourceOp;
use kiln_oci::{Digest, HashingWriter, Reference};
use kiln_registry::{Length, Repository};
use kiln_store::LayerId;
use kiln_tree::{Attributes, Dir, Owner, Timestamp};

use super::file_name;
use super::http::number;
use super::remote::Remotes;
use crate::error::{Error, Result};

/// The scheme of blobs in registries.
pub(crate) const IMAGE_BLOB: &str = "docker-image+blob";
/// The scheme of blobs in OCI layouts.
pub(crate) const LAYOUT_BLOB: &str = "oci-layout+blob";

/// The most bytes of a blob without a limit of the user's.
const MOST: u64 = 64 << 30;

/// The file that a blob source makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlobSource {
    reference: Reference,
    digest: Digest,
    /// The name of the layout; `None` for a registry.
    layout: Option<String>,
    name: String,
    mode: u32,
    owner: Owner,
}

impl BlobSource {
    /// Parses a source op with one of the two schemes.
    pub(crate) fn parse(op: &SourceOp, scheme: &str, rest: &str) -> Result<Self> {
        let identifier = &op.identifier;
        let reference: Reference = rest.parse().map_err(|error| Error::image(identifier, error))?;
        let Some(digest) = reference.digest() else {
            return Err(Error::image(identifier, "a blob source has no digest"));
        };
        if reference.tag().is_some() {
            return Err(Error::image(identifier, "a blob source has a tag"));
        }
        let layout =
            (scheme == LAYOUT_BLOB).then(|| op.attrs.get("oci.store").cloned().unwrap_or_default());
        let (name, owner) = (digest.hex(), Owner::default());
        let mut source = Self { reference, digest, layout, name, mode: 0o600, owner };
        for (key, value) in &op.attrs {
            let invalid = || Error::Invalid(format!("{identifier}: invalid {key} {value:?}"));
            match key.as_str() {
                "http.filename" if !value.is_empty() => {
                    source.name = file_name::of_download(value, None, "");
                }
                "http.perm" => match number(value).ok_or_else(invalid)? {
                    // Zero stands for the default.
                    0 => {}
                    mode => source.mode = mode & 0o7777,
                },
                "http.uid" => source.owner.uid = number(value).ok_or_else(invalid)?,
                "http.gid" => source.owner.gid = number(value).ok_or_else(invalid)?,
                "http.filename" | "image.recordtype" | "oci.session" | "oci.store" => {}
                key => {
                    let what = format!("attribute {key} of {identifier}");
                    return Err(Error::Unsupported(what));
                }
            }
        }
        Ok(source)
    }

    /// Returns the part of keys that stands for the source. The location of the blob isn't in it.
    pub(crate) fn key(&self) -> Vec<u8> {
        let Self { digest, name, mode, owner: Owner { uid, gid }, .. } = self;
        format!("blob\n{digest}\n{mode:o}\n{uid}:{gid}\n{name}").into()
    }

    /// Returns the digest of the blob.
    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Fetches the blob and makes its layer.
    pub(crate) async fn load(
        &self,
        remotes: &Remotes,
        images: &ImageResolver,
        reporter: &Reporter,
    ) -> Result<LayerId> {
        let snapshots = &remotes.snapshots;
        let pending = snapshots.begin(None)?;
        let dir = Dir::open(pending.fs())?;
        let growing = vec![pending.growing()];
        let path = Path::new("/").join(&self.name);
        let mut writer = HashingWriter::new(dir.create_file(&path, 0o600)?);
        let mut part = reporter.part(self.digest.to_string(), None);
        let copy = async {
            let Some(layout) = &self.layout else {
                let repository = Repository::from(&self.reference);
                let limit = Length::AtMost(remotes.options.max_bytes.unwrap_or(MOST));
                let blob = remotes.client.blob(&repository, &self.digest, limit).await?;
                blob.copy_to(&mut writer, |bytes| part.advance(bytes)).await?;
                return Ok(writer);
            };
            let (mut file, name) = (self.open(layout, images)?, self.digest);
            blocking(move || {
                let failed = |error| Error::Invalid(format!("read {name}: {error}"));
                io::copy(&mut file, &mut writer).map_err(failed)?;
                Ok::<_, Error>(writer)
            })
            .await
        };
        let writer = kiln_images::with_room(&snapshots.store, growing, copy).await?;
        let (_, digest, _) = writer.finish();
        if digest != self.digest {
            let problem = format!("digest mismatch {digest}: {}", self.digest);
            return Err(Error::image(&self.reference, problem));
        }
        part.finish();
        let epoch = Some(Timestamp::default());
        let (mode, owner) = (Some(self.mode), Some(self.owner));
        dir.set_attributes(&path, &Attributes { mode, owner, mtime: epoch })?;
        dir.set_attributes(Path::new("/"), &Attributes { mtime: epoch, ..Attributes::default() })?;
        Ok(snapshots.commit_pending(pending)?)
    }

    fn open(&self, layout: &str, images: &ImageResolver) -> Result<std::fs::File> {
        let unknown = |problem: String| Error::image(&self.reference, problem);
        let directory = images
            .layout(layout, &self.digest)
            .ok_or_else(|| unknown(format!("no oci layout is known as {layout:?}")))?;
        let file = open_blob(&directory, &self.digest)?;
        file.ok_or_else(|| unknown(format!("the oci layout {layout:?} doesn't have the blob")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(identifier: &str, attrs: &[(&str, &str)]) -> Result<BlobSource> {
        let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let op = SourceOp { identifier: identifier.to_owned(), attrs };
        let (scheme, rest) = identifier.split_once("://").unwrap();
        BlobSource::parse(&op, scheme, rest)
    }

    #[test]
    fn attributes_are_read() {
        let digest = Digest::of(b"x");
        let plain = parse(&format!("docker-image+blob://h:1/a@{digest}"), &[]).unwrap();
        assert_eq!((plain.name.as_str(), plain.mode), (digest.hex().as_str(), 0o600));
        let attributes = [("http.filename", "a/b.tar"), ("http.perm", "0644"), ("http.uid", "7")];
        let named = parse(&format!("docker-image+blob://h:1/b@{digest}"), &attributes).unwrap();
        assert_eq!((named.name.as_str(), named.mode, named.owner.uid), ("b.tar", 0o644, 7));
        assert_ne!(plain.key(), named.key());
        let layout =
            parse(&format!("oci-layout+blob://a@{digest}"), &[("oci.store", "s")]).unwrap();
        assert_eq!((layout.layout.as_deref(), layout.key()), (Some("s"), plain.key()));
    }

    #[test]
    fn blobs_have_a_digest_and_no_tag() {
        let digest = Digest::of(b"x");
        for identifier in ["docker-image+blob://a", "docker-image+blob://a:1"] {
            assert!(parse(identifier, &[]).is_err(), "{identifier}");
        }
        assert!(parse(&format!("docker-image+blob://a:1@{digest}"), &[]).is_err());
        let blob = format!("docker-image+blob://a@{digest}");
        assert!(parse(&blob, &[("http.perm", "rw")]).is_err());
        assert!(parse(&blob, &[("http.checksum", "x")]).is_err());
    }
}

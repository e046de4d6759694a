//! The parser of `--cache-to` and `--cache-from`.
//!
//! A value is a list of `key=value` fields, as for outputs. Fields without a key are references:
//! `--cache-from REF` stands for `type=registry,ref=REF`.

use std::path::PathBuf;

use kiln_images::Packing;
use kiln_oci::{Digest, Reference};

use crate::csv;
use crate::error::{Error, Result};
use crate::output::keys::{Checked, Keys, nearest};
use crate::output::options::packing;
use crate::receiver::BlobSink;

/// A cache that a build exports.
#[expect(clippy::struct_excessive_bools, reason = "each is an attribute of its own")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheTo {
    /// The place that the cache is written to.
    pub target: CacheTarget,
    /// `true` for `mode=max`: the cache has the results of all steps, not just those in the images.
    pub is_max: bool,
    /// The compression of layers and mounts.
    pub packing: Packing,
    /// `true` for OCI's media types, `false` for Docker's.
    pub oci_types: bool,
    /// `true` if the cache is an image manifest, `false` if it is an index.
    pub image_manifest: bool,
    /// `true` if the build succeeds even if the export of the cache fails.
    pub ignore_error: bool,
    /// `true` if the cache includes cache mounts.
    pub mounts: bool,
}

/// The destination of a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheTarget {
    /// An OCI layout in a directory.
    Local {
        /// The directory of the layout.
        dest: PathBuf,
        /// The tag of the cache in the layout.
        tag: String,
    },
    /// A repository of a registry.
    Registry {
        /// The name that the cache is pushed to.
        reference: Reference,
    },
    /// A receiver of the blobs.
    Receiver(BlobSink),
    /// The configs of the images that the build exports.
    Inline,
}

/// A cache that a build imports results from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheFrom {
    /// The location of the cache.
    pub place: CachePlace,
    /// `true` if the build imports cache mounts, too.
    pub mounts: bool,
}

/// The location of a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CachePlace {
    /// An OCI layout in a directory.
    Local {
        /// The directory of the layout.
        src: PathBuf,
        /// The tag of the cache in the layout.
        tag: String,
        /// The digest of the manifest. It takes precedence over the tag.
        digest: Option<Digest>,
    },
    /// A repository of a registry, with a cache manifest or an image with an inline cache.
    Registry {
        /// The name of the cache or image.
        reference: Reference,
    },
}

const TYPES: &[&str] = &["inline", "local", "registry"];
const DEFAULT_TAG: &str = "latest";

impl CacheTo {
    /// Creates a cache of a type from attributes, as a client of a server sends them. Returns the
    /// keys that the type doesn't know, too: BuildKit ignores them.
    ///
    /// # Errors
    /// Fails on unknown types and on invalid values.
    pub fn of_attributes(
        kind: &str,
        attributes: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(Self, Vec<String>)> {
        let mut keys = Keys::of(kind, attributes);
        let text = format!("type={kind}");
        let to = Self::read(&mut keys).map_err(|problem| Error::CacheSpec { text, problem })?;
        Ok((to, keys.into_names()))
    }

    /// Changes the destination of the cache to a receiver of its blobs. The options stay.
    pub fn give_to(&mut self, sink: BlobSink) {
        self.target = CacheTarget::Receiver(sink);
    }

    /// Parses the value of `--cache-to`.
    ///
    /// # Errors
    /// Fails on unknown types and keys and on invalid values. The error names them.
    pub fn parse(text: &str) -> Result<Vec<Self>> {
        read(text, Self::read)
    }

    fn read(keys: &mut Keys) -> Checked<Self> {
        let target = match keys.kind() {
            "local" => {
                let dest = required(keys, "dest")?.into();
                CacheTarget::Local { dest, tag: tag(keys)? }
            }
            "registry" => CacheTarget::Registry { reference: reference(keys)? },
            "inline" => CacheTarget::Inline,
            other => return Err(unknown(other)),
        };
        let is_max = match keys.take("mode").as_deref() {
            None | Some("min") => false,
            Some("max") if target == CacheTarget::Inline => {
                return Err("an image has room for mode=min only".to_owned());
            }
            Some("max") => true,
            Some(other) => return Err(format!("mode is {other:?}, expected min or max")),
        };
        let ignore_error = keys.flag("ignore-error")?.unwrap_or_default();
        let mut to = Self {
            target,
            is_max,
            packing: Packing::default(),
            oci_types: true,
            image_manifest: true,
            ignore_error,
            mounts: false,
        };
        if to.target != CacheTarget::Inline {
            to.read_form(keys)?;
        }
        Ok(to)
    }

    /// Reads the keys that inline caches don't have.
    fn read_form(&mut self, keys: &mut Keys) -> Checked<()> {
        keys.default("compression", "zstd");
        (self.packing, _) = packing(keys)?;
        self.oci_types = keys.flag("oci-mediatypes")?.unwrap_or(true);
        self.image_manifest = keys.flag("image-manifest")?.unwrap_or(self.oci_types);
        if self.image_manifest && !self.oci_types {
            return Err("image-manifest=true needs oci-mediatypes=true".to_owned());
        }
        self.mounts = keys.flag("cache-mounts")?.unwrap_or_default();
        Ok(())
    }
}

impl CacheFrom {
    /// Parses the value of `--cache-from`.
    ///
    /// # Errors
    /// Fails on unknown types and keys and on invalid values. The error names them.
    pub fn parse(text: &str) -> Result<Vec<Self>> {
        read(text, Self::read)
    }

    fn read(keys: &mut Keys) -> Checked<Self> {
        let place = match keys.kind() {
            "local" => {
                let src = required(keys, "src")?.into();
                let digest = keys.take("digest").map(|text| text.parse()).transpose();
                let digest = digest.map_err(|error| format!("{error}"))?;
                CachePlace::Local { src, tag: tag(keys)?, digest }
            }
            "registry" => CachePlace::Registry { reference: reference(keys)? },
            "inline" => {
                return Err("an inline cache is read with type=registry,ref=IMAGE".to_owned());
            }
            other => return Err(unknown(other)),
        };
        let mounts = keys.flag("cache-mounts")?.unwrap_or(true);
        Ok(Self { place, mounts })
    }
}

/// Parses an option's value. Its short form may name several caches.
fn read<T>(text: &str, one: impl Fn(&mut Keys) -> Checked<T>) -> Result<Vec<T>> {
    let fail = |problem: String| Error::CacheSpec { text: text.to_owned(), problem };
    let fields = csv::fields(text).map_err(fail)?;
    let whole = |fields: &[String]| {
        let mut keys = Keys::read(fields)?;
        let cache = one(&mut keys)?;
        keys.nothing_left()?;
        Ok(cache)
    };
    if fields.iter().any(|field| field.contains('=')) {
        return Ok(vec![whole(&fields).map_err(fail)?]);
    }
    let short = |field: &String| whole(&["type=registry".to_owned(), format!("ref={field}")]);
    fields.iter().map(|field| short(field).map_err(fail)).collect()
}

fn required(keys: &mut Keys, key: &'static str) -> Checked<String> {
    keys.take(key).filter(|value| !value.is_empty()).ok_or_else(|| format!("{key} is required"))
}

fn reference(keys: &mut Keys) -> Checked<Reference> {
    let text = required(keys, "ref")?;
    text.parse().map_err(|error| format!("ref {text:?}: {error}"))
}

fn tag(keys: &mut Keys) -> Checked<String> {
    match keys.take("tag") {
        None => Ok(DEFAULT_TAG.to_owned()),
        Some(tag) if tag.is_empty() => Err("tag is empty".to_owned()),
        Some(tag) => Ok(tag),
    }
}

fn unknown(kind: &str) -> String {
    match kind {
        "gha" | "s3" | "azblob" => format!("type {kind} is not supported yet"),
        other => {
            let hint = nearest(other, TYPES)
                .map_or_else(|| format!("one of {}", TYPES.join(", ")), ToOwned::to_owned);
            format!("unknown type {other:?}, expected {hint}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_images::Compression;

    fn to(text: &str) -> CacheTo {
        CacheTo::parse(text).unwrap().remove(0)
    }

    #[test]
    fn caches_to_make_are_read() {
        let local = to("type=local,dest=/x");
        let (dest, tag) = ("/x".into(), "latest".to_owned());
        assert_eq!(local.target, CacheTarget::Local { dest, tag });
        assert_eq!(local.packing.compression, Compression::Zstd);
        assert!(!local.is_max && local.oci_types && local.image_manifest && !local.mounts);
        let text = "type=registry,ref=h:5000/x,mode=max,compression=gzip,compression-level=9,\
                    force-compression=1,oci-mediatypes=false,ignore-error=true,cache-mounts=true";
        let registry = to(text);
        assert!(registry.is_max && registry.ignore_error && registry.mounts);
        assert!(!registry.oci_types && !registry.image_manifest);
        let (compression, level) = (Compression::Gzip, Some(9));
        assert_eq!(registry.packing, Packing { compression, level, force: true });
        assert_eq!(to("type=inline").target, CacheTarget::Inline);
        assert!(matches!(&to("h.example/x:y").target, CacheTarget::Registry { reference }
            if reference.to_string() == "h.example/x:y"));
        assert_eq!(
            to(r#"type=local,"dest=a,b",tag=t"#).target,
            CacheTarget::Local { dest: "a,b".into(), tag: "t".to_owned() }
        );
    }

    #[test]
    fn caches_to_read_are_read() {
        let from = |text: &str| CacheFrom::parse(text).unwrap();
        let digest = format!("sha256:{}", "0".repeat(64));
        let place = from(&format!("type=local,src=d,digest={digest}")).remove(0).place;
        let (src, tag) = ("d".into(), "latest".to_owned());
        assert_eq!(place, CachePlace::Local { src, tag, digest: digest.parse().ok() });
        assert_eq!(from("user/app:cache,h/x").len(), 2);
        assert!(from("user/app:cache")[0].mounts);
        assert!(!from("type=registry,ref=x,cache-mounts=false")[0].mounts);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, problem) in [
            ("type=local", "dest is required"),
            ("type=registry", "ref is required"),
            ("type=registry,ref=A", "ref \"A\""),
            ("type=locl,dest=x", "expected local"),
            ("type=s3,bucket=x", "type s3 is not supported yet"),
            ("type=inline,mode=max", "mode=min only"),
            ("type=inline,dest=x", "unknown key \"dest\" for type inline"),
            ("type=local,dest=x,mod=max", "did you mean mode?"),
            ("type=local,dest=x,mode=all", "expected min or max"),
            ("type=local,dest=x,image-manifest=1,oci-mediatypes=0", "needs oci-mediatypes=true"),
            ("dest=x", "type is required"),
            ("", "ref is required"),
        ] {
            let error = CacheTo::parse(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
        for (text, problem) in [
            ("type=local", "src is required"),
            ("type=local,src=x,digest=sha256:../x", "invalid digest"),
            ("type=inline", "type=registry,ref=IMAGE"),
            ("type=local,src=x,mode=max", "unknown key \"mode\""),
        ] {
            let error = CacheFrom::parse(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}

//! The nouns of the OCI image and distribution specifications, as every other crate uses them.
//!
//! Digests, platforms, references and the image config are our own types: the config because the
//! bytes of a config are an image's identity and have to come out the same every time, the others
//! because hostile input meets them first. Descriptors, manifests and indexes are those of
//! `oci-spec`, written through [`json::to_vec`], which sorts what `oci-spec` keeps in hash order.

pub mod cache;
mod config;
mod digest;
pub mod json;
pub mod limits;
mod manifest;
pub mod media_type;
mod platform;
pub mod redact;
mod reference;
pub mod text;

pub use config::{ContainerConfig, Empty, HealthcheckConfig, History, ImageConfig, RootFs};
pub use digest::{Digest, DigestHasher, HashingReader, HashingWriter, ParseDigestError};
pub use limits::TooLarge;
pub use manifest::{parse_index, parse_manifest};
pub use oci_spec::image::{
    Descriptor, DescriptorBuilder, ImageIndex, ImageIndexBuilder, ImageManifest,
    ImageManifestBuilder, MediaType,
};
pub use platform::{ParsePlatformError, Platform};
pub use reference::{ParseReferenceError, Reference};

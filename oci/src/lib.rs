//! The nouns of the OCI image and distribution specifications, as every other crate uses them.
//!
//! The bytes of a config, a manifest and an index are an image's identity. So these types write their
//! members in one order. `null` is read as Go reads it: as nothing.

pub mod cache;
mod config;
mod descriptor;
mod digest;
pub mod error;
pub mod json;
pub mod limits;
pub mod media_type;
mod platform;
pub mod redact;
mod reference;
pub mod text;

pub use config::{ContainerConfig, Empty, HealthcheckConfig, History, ImageConfig, RootFs};
pub use descriptor::{Descriptor, Document, ImageIndex, ImageManifest};
pub use digest::{Digest, DigestHasher, HashingReader, HashingWriter, ParseDigestError};
pub use platform::{ParsePlatformError, Platform};
pub use reference::{ParseReferenceError, Reference};

//! All output types.
//!
//! [`export`] takes the result of a build (an image config and a chain of layers per platform) and
//! writes it to each output. It does the work once for all outputs: it packs a layer into a blob of
//! the store's content on first use and records the blob with the layer, so that the next export of
//! any build finds it. [`pack_ahead`] packs the layers of outputs while the build still runs.
//!
//! | module | content |
//! | --- | --- |
//! | `ahead` | packing of layers while the build still runs |
//! | `config` | the final config: layers, history, times |
//! | `assemble` | config, manifest and index as bytes |
//! | `rewrite` | layers with rewritten timestamps |
//! | `oci`, `docker`, `image`, `registry`, `local`, `tarball` | one output type each |
//! | [`cache`] | a build's results as a cache for other stores |
//! | [`load`] | loading of images into engines on this machine |
//! | [`push`] | uploads to registries |
//! | [`attest`] | attestations: provenance and bills of materials |
//! | [`save`] | an archive of images from the store |
//! | [`import`](mod@import) | an image of a root file system |
//! | [`spec`] | the parser of `--output` |
//! | [`annotations`] | annotations and their places |
//!
//! All functions here block, so call them on a thread that may block. The blobs of
//! layers come from `kiln_images`: its packer makes them, and the caller's
//! [`Fetcher`](kiln_images::Fetcher) downloads or unpacks layers of base images.
//!
//! Files appear in one step: an output is written beside its destination and renamed when it is
//! complete. All bytes are a function of layers, configs and options. Times come from the config's
//! history, the layers, or `SOURCE_DATE_EPOCH`.

pub mod annotations;
pub mod attest;
pub mod cache;
pub mod error;
pub mod export;
pub mod exported;
pub mod import;
pub mod load;
pub mod push;
pub mod save;
pub mod spec;

mod ahead;
mod archive;
mod assemble;
mod config;
mod csv;
mod destination;
mod docker;
mod image;
mod local;
mod merged;
mod mirror;
mod oci;
mod platforms;
mod registry;
mod rewrite;
mod tarball;

pub use ahead::pack_ahead;
pub use annotations::Annotations;
pub use attest::{Attestations, Provenance, SbomOptions};
pub use cache::spec::{CacheFrom, CachePlace, CacheTarget, CacheTo};
pub use cache::{CacheExported, CacheRequest, CachedResult, export_cache, inline_cache};
pub use csv::fields as csv_fields;
pub use destination::{NewFile, remove_old, write_file};
pub use error::{Error, Result};
pub use export::{ExportContext, ExportRequest, ImageSource, export};
pub use exported::Exported;
pub use import::{ImportRequest, import};
pub use load::{DockerEngine, Engine, EngineAddress, EngineTls};
pub use push::Remote;
pub use save::{SavedImage, save};
pub use spec::{Destination, EngineChoice, Output, OutputEpoch, OutputKind};

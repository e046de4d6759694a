//! Packing of layers, and all output types.
//!
//! [`export()`] takes the result of a build (an image config and a chain of layers per platform) and
//! writes it to each output. It does the work once for all outputs: it packs a layer into a blob of
//! the store's content on first use and records the blob with the layer, so that the next export of
//! any build finds it. [`Packer`] packs a single layer while the build still runs.
//!
//! | module | content |
//! | --- | --- |
//! | [`gzip`] | parallel gzip whose output doesn't depend on the number of threads |
//! | [`pack`] | the blob of a layer |
//! | [`ahead`] | packing of layers while the build still runs |
//! | `budget` | the limits of threads and memory for all packing |
//! | `config` | the final config: layers, history, times |
//! | `assemble` | config, manifest and index as bytes |
//! | `rewrite` | layers with rewritten timestamps |
//! | `oci`, `docker`, `image`, `registry`, `local`, `tarball` | one output type each |
//! | [`cache`] | a build's results as a cache for other stores |
//! | [`load`] | loading of images into engines on this machine |
//! | [`push`] | uploads to registries |
//! | [`attest`] | attestations: provenance and bills of materials |
//! | [`mod@save`] | an archive of images from the store |
//! | [`import`](mod@import) | an image of a root file system |
//! | [`spec`] | the parser of `--output` |
//! | [`annotations`] | annotations and their places |
//!
//! All functions here block, so call them on a thread that may block. This crate doesn't download
//! or unpack layers of base images: the caller passes a [`BlobFetcher`].
//!
//! Files appear in one step: an output is written beside its destination and renamed when it is
//! complete. All bytes are a function of layers, configs and options. Times come from the config's
//! history, the layers, or `SOURCE_DATE_EPOCH`.

pub mod ahead;
pub mod annotations;
pub mod attest;
pub mod cache;
pub mod compression;
pub mod error;
pub mod export;
pub mod exported;
pub mod gzip;
pub mod import;
pub mod load;
pub mod pack;
pub mod progress;
pub mod push;
pub mod save;
pub mod spec;

mod archive;
mod assemble;
mod budget;
mod config;
mod csv;
mod destination;
mod docker;
mod image;
mod local;
mod merged;
mod mirror;
mod noise;
mod oci;
mod platforms;
mod registry;
mod rewrite;
mod tarball;

pub use ahead::{AheadContext, PackAhead};
pub use annotations::Annotations;
pub use attest::{Attestations, Provenance, SbomOptions};
pub use budget::use_threads;
pub use cache::spec::{CacheFrom, CachePlace, CacheTarget, CacheTo};
pub use cache::{CacheExported, CacheRequest, CachedResult, export_cache, inline_cache};
pub use compression::{Compression, Packing};
pub use csv::fields as csv_fields;
pub use destination::{NewFile, remove_old, write_file};
pub use error::{Error, Result};
pub use export::{ExportContext, ExportRequest, ImageSource, export};
pub use exported::Exported;
pub use import::{ImportRequest, import};
pub use load::{DockerEngine, Engine, EngineAddress, EngineTls};
pub use pack::{PackedLayer, Packer, pack_stream};
pub use progress::{BlobFetcher, Progress, Silent};
pub use push::Remote;
pub use save::{SavedImage, save};
pub use spec::{Destination, EngineChoice, Output, OutputEpoch, OutputKind};

//! Layer packing and every output type.
//!
//! [`export`] takes what a build has made (an image config and a chain of layers for each platform)
//! and writes it where the outputs say. Work is done once, however many outputs there are: a layer
//! is packed into a blob of the store's content the first time that anybody needs it, and the blob is
//! recorded with the layer, so that the next export of any build finds it. [`Packer`] does the
//! same for a single layer while the build still runs.
//!
//! | module | what it makes |
//! | --- | --- |
//! | [`gzip`] | gzip in parallel, with bytes that don't depend on the number of threads |
//! | [`pack`] | a blob of a layer |
//! | [`ahead`] | blobs of layers while the build still runs |
//! | `budget` | how much of threads and memory all of that takes |
//! | `config` | the final config: layers, history, times |
//! | `assemble` | config, manifest and index, as bytes |
//! | `rewrite` | layers with other times |
//! | `oci`, `docker`, `image`, `registry`, `local`, `tarball` | one output type each |
//! | [`cache`] | what a build knows, for other stores |
//! | [`load`] | images for whoever runs images on this machine |
//! | [`push`] | what is brought into a registry, and how |
//! | [`attest`] | what is said about images: provenance and bills of materials |
//! | [`save`] | an archive of images of the store |
//! | [`import`](mod@import) | an image of a root file system |
//! | [`spec`] | outputs out of what is typed after `--output` |
//! | [`annotations`] | what is said of images, and where |
//!
//! Everything here blocks, and is to be called on a thread that may. Fetching and unpacking layers of
//! base images is not this crate's work: the caller lends a [`BlobFetcher`].
//!
//! Files appear whole: an output is written beside its destination and renamed when it is complete.
//! All bytes are a function of layers, configs and options; times come from the config's history, the
//! layers, or `SOURCE_DATE_EPOCH`.

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

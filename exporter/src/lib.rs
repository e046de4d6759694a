//! All output types.
//!
//! [`export()`] takes the result of a build (an image config and a chain of layers per platform) and
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
//! | `output` | the parser of `--output`, and one module for each output type |
//! | [`cache`] | a build's results as a cache for other stores |
//! | [`push`] | uploads to registries |
//! | `attest` | the port for attestations of images and files |
//! | [`save`] | an archive of images from the store |
//! | [`import`](mod@import) | an image of a root file system |
//! | [`annotations`] | annotations and their places |
//!
//! All functions here block, so call them on a thread that may block. The blobs of
//! layers come from `kiln_images`: its packer makes them, and the caller's
//! [`Fetcher`](kiln_images::Fetcher) downloads or unpacks layers of base images.
//!
//! Files appear in one step: an output is written beside its destination and renamed when it is
//! complete. All bytes are a function of layers, configs and options. Times come from the config's
//! history, the layers, or `SOURCE_DATE_EPOCH`.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests open the files that they create")
)]

mod annotations;
mod cache;
mod error;
mod export;
mod exported;
mod import;
pub mod push;
mod save;

mod ahead;
mod archive;
mod assemble;
mod attest;
mod config;
mod csv;
mod destination;
mod merged;
mod mirror;
mod output;
mod platforms;
mod receiver;
mod rewrite;

pub use ahead::pack_ahead;
pub use annotations::Annotations;
pub use archive::Destination;
pub use attest::{
    Attested, AttestedFiles, AttestedImage, Attester, FileAttestation, ImageAttestations,
};
pub use cache::spec::{CacheFrom, CachePlace, CacheTarget, CacheTo};
pub use cache::{CacheExported, CacheRequest, CachedResult, export_cache, inline_cache};
pub use csv::fields as csv_fields;
pub use destination::{NewFile, remove_old, write_file};
pub use error::{Error, Result};
pub use export::{ExportContext, ExportRequest, ImageSource, export};
pub use exported::Exported;
pub use import::{ImportRequest, import};
pub use merged::open_files;
pub use output::files::{ExportedFiles, FilesReceiver};
pub use output::load::{ApiError, DockerEngine, Engine, EngineAddress, EngineChoice, EngineTls};
pub use output::naming::Naming;
pub use output::{Output, OutputEpoch, OutputForm, OutputKind};
pub use receiver::{BlobReceiver, BlobSink, OpenBlob};
pub use save::{SavedImage, save};

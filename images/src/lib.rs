//! Images, and their layers in three forms.
//!
//! | form | content | made by |
//! | --- | --- | --- |
//! | tree | a directory that overlayfs can mount | [`Snapshots`]: unpacking, or the commit of a [`Draft`] |
//! | diff | the uncompressed tar, whose digest is the diff ID | read from a blob or planned from a tree; never stored |
//! | blob | the compressed tar, with a descriptor | [`Blobs`]: a download; [`Packer`]: a compression |
//!
//! Each form is made only on demand. [`ImageResolver`] resolves a reference and declares the layers
//! of the image, which downloads nothing. [`Snapshots`] unpacks a layer when its files are needed.
//! [`Packer`] creates a blob when an output needs one, and [`PackAhead`] does so while the build
//! still runs. [`load()`] takes images from archives, and [`ImageResolver::pull`] from registries.
//!
//! Functions that are not `async` block, so call them on a thread that may block. [`Fetcher`] brings
//! the two kinds together: it fetches layers for blocking code.
//!
//! ```
//! use kiln_images::{ImageResolver, ImageResolverOptions, Snapshots};
//! use kiln_registry::Client;
//! use kiln_store::Store;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! let store = Store::open(directory.path())?;
//! let resolver = ImageResolver::new(ImageResolverOptions::new(store.clone(), Client::default()));
//! let snapshots = Snapshots::new(store, &resolver);
//! assert!(snapshots.read(None)?.names()?.is_empty());
//! # Ok(())
//! # }
//! ```

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests open the files that they create")
)]

mod ahead;
mod below;
mod blobs;
mod budget;
mod compression;
mod compressor;
mod copied;
mod declare;
mod document;
mod draft;
mod error;
mod fetcher;
mod flight;
mod gzip;
mod inflate;
mod load;
mod lost;
mod noise;
mod oci_layout;
mod origin;
mod pack;
mod pull;
mod queue;
mod relink;
mod resolve;
mod restack;
mod segment;
mod snapshots;
mod stores;
mod trees;

pub use ahead::{AheadContext, PackAhead};
pub use below::Base;
pub use blobs::{Blobs, blocking};
pub use budget::use_threads;
pub use compression::{Compression, Packing};
pub use declare::{check_media_type, declare};
pub use document::{CONFIG_LIMIT, DOCUMENT_LIMIT, Document, digest_of};
pub use draft::{Draft, RootTree};
pub use error::{Error, Result};
pub use fetcher::Fetcher;
pub use flight::{cancellable, lock, with_room};
pub use load::{ArchivedImage, LoadOptions, LoadedImage, LoadedName, bring, load};
pub use lost::{LostBlob, LostBlobs};
pub use oci_layout::{blob_path, open_blob};
pub use origin::Origin;
pub use pack::{PackedLayer, Packer, locate_layer, pack_plan, pack_stream, packed_before};
pub use pull::{PullRequest, Pulled};
pub use relink::copy_attributes;
pub use resolve::{Image, ImageResolver, ImageResolverOptions, PullPolicy, Resolved};
pub use snapshots::{Snapshots, Writable};
pub use stores::{BlobStore, BlobStores};

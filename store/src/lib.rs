//! Blobs, layers, the index, leases, locks and garbage collection.
//!
//! ```text
//! content/            an OCI image layout: oci-layout, index.json, blobs/sha256/…
//! snapshots/ID/fs     a layer's tree, overlayfs whiteouts included; never changed once committed
//! kiln.db             SQLite, WAL: blobs, layers, images, cache records, cache mounts, builds
//! tmp/                everything unfinished; one directory per process, held by a lock
//! locks/              one file per key that somebody works on
//! mounts/             cache mounts
//! volumes/            volumes
//! ```

pub mod cache;
pub mod cache_mounts;
pub mod content;
pub mod error;
pub mod gc;
pub mod images;
pub mod layers;
pub mod lease;
pub mod lock;
pub mod volumes;

mod store;

pub use cache::CacheIndex;
pub use content::{Blob, BlobWriter, Content};
pub use error::{Error, Result};
pub use images::{ImageRow, Images};
pub use layers::{Layer, LayerBlob, LayerId, Layers, PendingTree};
pub use lease::Lease;
pub use lock::KeyGuard;
pub use store::Store;

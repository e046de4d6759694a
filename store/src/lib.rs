//! Blobs, layers, the index, leases, locks and garbage collection.
//!
//! ```text
//! content/            an OCI image layout: oci-layout, index.json, blobs/sha256/…
//! snapshots/ID/fs     a layer's tree, overlayfs whiteouts included; never changed once committed
//! ingest/DIGEST       blobs that are only partly there, left by downloads that broke off
//! kiln.db             SQLite, WAL: blobs, layers, images, cache records, leases, builds
//! tmp/PID-X/          everything unfinished of one process, with a file `lock` that it holds
//! keys                locks on its bytes are locks on keys that somebody works on
//! mounts/             cache mounts
//! volumes/            volumes
//! mount-points/       the lowest directory of programs' root file systems: what is mounted in each
//! anchor/             a directory that stays empty, for root file systems to be mounted on
//! builds/ID.log.zst   what the steps of a build have printed
//! lock                the root lock: see below
//! ```
//!
//! # What can be relied upon
//!
//! Any number of processes use a store at once, and each may be killed at any instant. Files come
//! first and the row last: a blob or a tree is made in `tmp/`, verified, renamed to its place, and
//! only then does a row name it. Nobody looks at files that no row names. So a killed process leaves
//! garbage at worst: a directory in `tmp/`, which the next process that opens the store removes, and
//! a tree or a blob without a row, which the same process finds (*sweeping*).
//!
//! # The root lock
//!
//! Between a rename and its row, a file looks like garbage. So whoever places files holds the root
//! lock shared from the rename to the row's commit, and whoever looks for garbage (opening a store
//! after a process died, [`Store::collect`]) holds it exclusively. The same lock orders the making of
//! process directories and their reaping. It is never held for long.
//!
//! # Order of locks
//!
//! 1. keys ([`Store::lock`]), in the order the caller chooses, cache mounts among them;
//! 2. the making of room (the `room` module);
//! 3. the root lock;
//! 4. the account of what this process has claimed;
//! 5. the connection's mutex, and with it SQLite's write lock.
//!
//! Who holds one takes none that stands above it.
//!
//! # Power loss
//!
//! Nothing is flushed to the disk while a build runs; it would cost more than the build. Instead
//! every row that vouches for files carries an *epoch*. [`Store::sync`] begins a new epoch, flushes
//! the file system, and then notes that everything up to the old epoch is durable. The index knows
//! the boot it was last used in; in another boot, rows of epochs that were not noted as durable are
//! dropped before anybody sees them, and their files swept. The index itself comes through a power
//! loss consistent (WAL), if perhaps without its last transactions.
//!
//! # Room
//!
//! What everything takes on the disk is in the index, measured when it was stored, so that the account
//! needs no walk (the `usage` module). Where the store has a cap, room is claimed before anything is
//! written, and the least recently used part of the cache gives way (`room`, `prune`); what programs
//! write is watched (`watch`).
//!
//! # Leases
//!
//! Garbage collection takes nothing that an image, a cache record or a lease of a living process
//! reaches. What a process stores or gets from the cache it holds by an implicit lease until it
//! closes the store, so that nothing is collected between being made and being referred to.

pub mod build_log;
pub mod builds;
pub mod cache;
pub mod cache_mounts;
pub mod cached_layers;
pub mod content;
pub mod error;
pub mod gc;
pub mod images;
pub mod integrity;
pub mod layers;
pub mod lease;
pub mod listings;
pub mod lock;
pub mod prune;
pub mod recipes;
pub mod usage;
pub mod volumes;
pub mod watch;

mod check;
mod durations;
mod file_digests;
mod index;
mod ingest;
mod inventory;
mod layer_changes;
mod layer_contents;
mod layer_rows;
mod layout;
mod measure;
mod name;
mod pending;
mod places;
mod private;
mod process;
mod publication;
mod recovery;
mod remove;
mod rename;
mod room;
mod schema;
mod snapshotter;
mod store;
mod sums;
mod trash;
mod tree_sizes;
mod views;

pub use build_log::{BuildLog, BuildLogWriter, LogRecord};
pub use builds::{BuildRow, BuildStatus, Builds};
pub use cache::{CacheIndex, CacheKind};
pub use cache_mounts::{CacheMountGuard, CacheMounts, Sharing};
pub use cached_layers::CachedLayer;
pub use check::{Damage, Damaged, check_index, replace_index};
pub use content::{Blob, BlobWriter, Content};
pub use error::{Error, Result};
pub use file_digests::FileStamp;
pub use gc::Collected;
pub use images::{ImageRow, Images};
pub use layers::{CACHE_ORIGIN, Layer, LayerBlob, LayerId, Layers, ParseLayerIdError, chain_id};
pub use lease::Lease;
pub use listings::Listings;
pub use lock::KeyGuard;
pub use pending::PendingTree;
pub use prune::{PruneOptions, Pruned, PrunedItem};
pub use publication::Together;
pub use recipes::{Recipes, Removal, RemovalReason};
pub use snapshotter::{Snapshotter, Snapshotting};
pub use store::{Store, StoreOptions};
pub use usage::{CacheUsage, DiskUsage, ImageUsage, VolumeUsage};
pub use views::AssembledTree;
pub use volumes::{VolumeGuard, Volumes};
pub use watch::{Growing, Watch};

//! Blobs, layers, the index, leases, locks and garbage collection.
//!
//! ```text
//! content/            an OCI image layout: oci-layout, index.json, blobs/sha256/…
//! snapshots/ID/fs     a layer's tree, with overlayfs whiteouts; never changes once committed
//! snapshots/ID/record what a tree was copied from, if later trees can be put on top of it
//! ingest/DIGEST       incomplete blobs, left by downloads that broke off
//! kiln.db             SQLite, WAL: blobs, layers, images, cache records, leases, builds
//! tmp/PID-X/          all unfinished files of one process, with a file `lock` that it holds
//! keys                a lock on a byte of it is a lock on a key
//! mounts/             cache mounts
//! volumes/            volumes
//! mount-points-2/     the lowest directory of programs' root file systems, with mount points
//! anchor/             an empty directory on which root file systems are mounted
//! builds/ID.log.zst   the output of a build's steps
//! history/            a server's records of its clients' builds, which the server defines
//! lock                the root lock: see below
//! ```
//!
//! # Floors
//!
//! The modules are floors. Each uses only the floors below it, and the errors and names on which
//! all stand; a test (`tests/floors.rs`) compares the sources with this table, which begins at the
//! top. [`Store`] is a facade over all of them.
//!
//! | floor | purpose |
//! | --- | --- |
//! | `upkeep` | recovery, garbage collection, pruning, checks, disk usage, watches |
//! | `builds` | records of builds and their logs |
//! | `cache` | cache records, file digests, durations, cache mounts, explanations of misses |
//! | `layers` | layers with their trees, diffs and packed forms; snapshotter, views, leases |
//! | `content` | blobs, incomplete downloads, images, volumes |
//! | `room` | the directories and who uses them: modes, locks, processes, trash, cap |
//! | `db` | the SQLite index: schema, connection, checksums of rows |
//!
//! A handle to a floor has private fields: an `Arc` of the `Room`, and the state that the floor's
//! handles share. The store is closed with the last handle. All tables belong to `db`, so a
//! statement of any floor may name any table. One call goes up: making room for a claim and closing
//! the store need the floors above. `room` declares the trait `Keeper` for them, and `upkeep`
//! implements it.
//!
//! # Guarantees
//!
//! Any number of processes can use a store at once, and each can be killed at any moment. Files
//! precede their row: a blob or a tree is created in `tmp/`, verified, and renamed to its place,
//! and only then a row names it. Files without a row are never read. So a killed process leaves
//! only garbage: a directory in `tmp/`, which the next process that opens the store removes, and a
//! tree or a blob without a row, which the same process finds (*sweeping*).
//!
//! # The root lock
//!
//! Between the rename and the commit of its row, a file looks like garbage. So a process that
//! places files holds the root lock shared from the rename to the commit. A process that looks for
//! garbage (when it opens a store after another process died, or in [`Store::collect`]) holds it
//! exclusively. The same lock orders the creation and the removal of process directories. It is
//! never held for long.
//!
//! # Lock order
//!
//! 1. keys ([`Store::lock`]), in the order that the caller chooses, including cache mounts;
//! 2. the lock for making room (`room::cap`);
//! 3. the root lock;
//! 4. the account of this process's claims;
//! 5. the mutex of the connection, and with it SQLite's write lock.
//!
//! A thread that holds one of these takes none that is listed before it.
//!
//! # Power loss
//!
//! Nothing is flushed to the disk during a build, since that would take longer than the build.
//! Instead, every row that refers to files has an *epoch*. [`Store::sync`] begins a new epoch,
//! flushes the file system, and records that everything up to the old epoch is durable. The index
//! stores the ID of the boot in which it was last used. In another boot, rows of epochs that aren't
//! recorded as durable are deleted before they are read, and their files are swept. The index
//! itself survives a power loss in a consistent state (WAL), possibly without its last
//! transactions.
//!
//! # The cap
//!
//! The index has the disk space of everything in the store, measured when it was stored, so the
//! account needs no walk (`upkeep::usage`). If the store has a cap, a process claims room before
//! it writes, and the least recently used parts of the cache are removed (`room::cap`,
//! `upkeep::prune`). The output of programs is watched (`upkeep::watch`).
//!
//! # Leases
//!
//! Garbage collection keeps everything that an image, a cache record or a lease of a living process
//! reaches. A process holds an implicit lease on everything that it stores or gets from the cache,
//! until it closes the store. So nothing is collected between its creation and the first reference
//! to it.

#![allow(clippy::disallowed_methods, reason = "all files of a store are kiln's own")]

mod builds;
mod cache;
mod content;
mod db;
mod error;
mod layers;
mod name;
mod room;
mod store;
mod upkeep;

pub use builds::log::{BuildLog, BuildLogWriter, LogRecord};
pub use builds::{BuildRow, BuildStatus, Builds};
pub use cache::file_digests::FileStamp;
pub use cache::listings::Listings;
pub use cache::mounts::{CLIENT_DIRECTORY, CacheMountGuard, CacheMounts, Sharing};
pub use cache::recipes::{Recipes, Removal, RemovalReason};
pub use cache::{CacheIndex, CacheKind};
pub use content::images::publication::Batch;
pub use content::images::{ImageRow, Images};
pub use content::segments::{BlobSegment, KeptSegment, common_start};
pub use content::volumes::{VolumeGuard, Volumes};
pub use content::{Blob, BlobWriter, Content};
pub use error::{Error, Result};
pub use layers::integrity::Sealer;
pub use layers::lease::Lease;
pub use layers::parts::CopiedTree;
pub use layers::pending::PendingTree;
pub use layers::remote::CachedLayer;
pub use layers::snapshotter::{Snapshotter, Snapshotting};
pub use layers::views::AssembledTree;
pub use layers::{CACHE_ORIGIN, Layer, LayerBlob, LayerId, Layers, ParseLayerIdError, chain_id};
pub use room::lock::KeyGuard;
pub use store::{Store, StoreOptions};
pub use upkeep::check::{Damage, Damaged, check_index, replace_index};
pub use upkeep::gc::Collected;
pub use upkeep::prune::{PruneOptions, Pruned, PrunedItem};
pub use upkeep::usage::{CacheUsage, DiskUsage, ImageUsage, VolumeUsage};
pub use upkeep::watch::{Watch, WatchedDirectory};

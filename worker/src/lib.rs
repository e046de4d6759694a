//! Sources, file operations and steps: the execution of a graph's ops.
//!
//! [`Worker`] implements the solver's [`Executor`](kiln_solver::Executor) and [`StoreCache`] its
//! [`Cache`](kiln_solver::Cache), both over kiln's store. [`ImageResolver`] resolves image
//! references for the frontend and the image sources.
//!
//! The result of a vertex is an [`Output`]: a chain of layers in the store, or a build context that
//! is read in place. A layer is unpacked only when an op needs its files: image sources declare the
//! layers of their image without downloading them.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests open the files that they create")
)]

pub mod blobs;
pub mod cache;
pub mod container;
pub mod emulation;
pub mod error;
pub mod load;
pub mod output;
pub mod pull;
pub mod remote_cache;
pub mod resolve;
pub mod worker;

mod bases;
mod below;
mod content;
mod context_index;
mod diff;
mod draft;
mod exec;
mod file;
mod flight;
mod inflate;
mod ingredients;
mod key;
mod merge;
mod progress;
mod relink;
mod snapshots;
mod source;
mod trees;

pub use blobs::Blobs;
pub use cache::{Redact, StoreCache};
pub use content::copied as selection_of_copy;
pub use error::{Error, Hint, Result};
pub use exec::FailedStep;
pub use exec::allowed::{Allowed, NETWORK_HOST, SECURITY_INSECURE};
pub use file::direct::{Fill, LayerPacker};
pub use output::Output;
pub use pull::{PullObserver, PullReport, PullRequest, Pulled};
pub use remote_cache::{
    CachePlace, CacheSource, ImportedCache, KnownResult, KnownResults, LostBlob, RemoteCache,
};
pub use resolve::{ImageResolver, ImageResolverOptions, PullPolicy, Resolved};
pub use source::git::GitLimits;
pub use source::local::LocalContext;
pub use source::remote::{Pin, RemoteOptions};
pub use worker::{CommittedLayers, DefaultNetwork, SecretSource, Worker, WorkerOptions};

//! BuildKit's gRPC API over kiln's engine.
//!
//! A [`Server`] is another door to the same library and the same store as `kiln build`. Clients of
//! BuildKit (`buildctl`, `docker buildx`) drive it as they drive `buildkitd`.
//!
//! | module | content |
//! | --- | --- |
//! | `server` | the listeners, and what all calls share |
//! | `control` | builds, workers, disk usage, history |
//! | `bridge` | the calls of a client's own frontend |
//! | [`session`] | the calls back to a client |
//! | `jobs`, `references` | the builds that are going on, and their graphs |
//! | `frontend` | the built-in frontend |
//! | `files`, `images` | files of results, and what is known of sources |
//! | `status`, `journal`, `errors` | progress and errors as clients expect them |
//! | `history`, `content` | the records of builds, and the documents that they refer to |
//! | `usage`, `filters` | the cache's disk usage, and containerd's filters |
//! | `exports` | outputs, which go to the client or to a registry |
//! | `caches`, `stores` | caches, and the stores of blobs of the client |
//! | `sources`, `layouts`, `credentials` | files, secrets, images and credentials of the client |
//!
//! Each build has an engine of its own on the store. What a build uses is held until it ends, and
//! builds share steps as processes do: by the cache, and by locks on keys.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests open the files that they create")
)]

mod bridge;
mod caches;
mod caps;
mod content;
mod control;
mod credentials;
mod errors;
mod exports;
mod files;
mod filters;
mod frontend;
mod health;
mod history;
mod images;
mod jobs;
mod journal;
mod layouts;
mod references;
mod server;
pub mod session;
mod sources;
mod status;
mod stores;
mod usage;
mod workers;

pub use history::HistoryLimits;
pub use server::{Options, Server};

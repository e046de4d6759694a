//! BuildKit's gRPC API over kiln's engine.
//!
//! A [`Server`] is another door to the same library and the same store as `kiln build`. Clients of
//! BuildKit (`buildctl`, `docker buildx`) drive it as they drive `buildkitd`.
//!
//! | module | content |
//! | --- | --- |
//! | `server` | what all calls share |
//! | `listener`, `activity` | sockets and TLS, and the server's idleness |
//! | `admission` | the bound on the memory of clients' messages |
//! | `queue`, `collection` | the builds at once, and garbage collection in the background |
//! | `control`, `info` | builds, workers, disk usage, history |
//! | `bridge` | the calls of a client's own frontend |
//! | `containers`, `processes`, `left` | a client's containers, their programs, and files of failed steps |
//! | [`session`] | the calls back to a client |
//! | `jobs`, `references` | the builds that are going on, and their graphs |
//! | `frontend`, `origins` | the built-in frontend, and the requests that made graphs |
//! | `files` | files of results |
//! | `images`, `metadata`, `chain` | answers about images and other sources |
//! | `policy` | the source policies of clients |
//! | `gateway` | the frontends that are programs of images |
//! | `frontends`, `relay` | the same for builds of this process, and their progress |
//! | `blocking` | work that blocks its thread |
//! | `status`, `journal`, `errors` | progress and errors as clients expect them |
//! | `history`, `content` | the records of builds, and the documents that they refer to |
//! | `traces` | the spans of clients, and the traces of builds |
//! | `client` | a client of `Control`, for `buildctl` |
//! | `usage`, `filters` | the cache's disk usage, and containerd's filters |
//! | `exports` | outputs, which go to the client or to a registry |
//! | `scanner` | the bills of materials that images of scanners write |
//! | `caches`, `stores` | caches, and the stores of blobs of the client |
//! | `sources`, `layouts`, `credentials` | files, secrets, images and credentials of the client |
//!
//! Each build has an engine of its own on the store. What a build uses is held until it ends, and
//! builds share steps as processes do: by the cache, and by locks on keys.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests open the files that they create")
)]

mod activity;
mod admission;
mod blocking;
mod bridge;
mod caches;
mod caps;
mod chain;
mod client;
mod collection;
mod containers;
mod content;
mod control;
mod credentials;
mod errors;
mod exports;
mod files;
mod filters;
mod frontend;
mod frontends;
mod gateway;
mod health;
mod history;
mod images;
mod info;
mod jobs;
mod journal;
mod layouts;
mod left;
mod listener;
mod metadata;
mod origins;
mod policy;
mod processes;
mod queue;
mod references;
mod relay;
mod scanner;
mod server;
pub mod session;
mod sources;
mod status;
mod stores;
mod traces;
mod usage;
mod workers;

pub use client::{
    CallError, Client, ClientTls, ConnectError, Device, Endpoint, Identity, PruneRule,
    ServerVersion, UsageRecord, WorkerDescription,
};
pub use collection::{GcPolicy, Space, total_space};
pub use frontend::Frontends;
pub use frontends::ImageFrontends;
pub use history::HistoryLimits;
pub use listener::{Certificates, Listener, Tls};
pub use server::{Options, Server};
pub use workers::buildkit_version;

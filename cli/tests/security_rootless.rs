//! The security suite with kiln as a user other than root.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "security/archives.rs"]
mod archives;
#[path = "security/arena.rs"]
mod arena;
#[path = "security/contexts.rs"]
mod contexts;
#[path = "security/documents.rs"]
mod documents;
#[path = "security/images.rs"]
mod images;
#[path = "security/integrity.rs"]
mod integrity;
#[path = "security/lifetimes.rs"]
mod lifetimes;
#[path = "security/mounts.rs"]
mod mounts;
#[path = "security/network.rs"]
mod network;
#[path = "security/races.rs"]
mod races;
#[path = "security/runtime.rs"]
mod runtime;
#[path = "security/secrets.rs"]
mod secrets;
#[path = "security/users.rs"]
mod users;

//! The distribution protocol: resolve, pull, push.
//!
//! A [`Client`] speaks to any number of registries (OCI distribution specification 1.1; Docker's
//! registry API, version 2). Creating one does no I/O: the client reads the configuration,
//! credentials and the system's root certificates when a request needs them.
//!
//! # Security
//!
//! The client trusts no registry. It verifies documents and blobs against digest and size while
//! they arrive. Documents are limited to 4 MiB. A document is either a manifest or an index, and
//! its declared type must agree. Redirects may lead to `http` and `https` only, and from `https` to
//! plain `http` only on this machine.
//!
//! Credentials belong to one registry. The client sends them, and the tokens that it gets for them,
//! only to the registry that requires them and to the token server in its own domain, whatever
//! redirects and challenges say. A mirror has its own credentials or none. Certificates that are
//! configured for a host are trusted for that host only, on each port on which it issues tokens.
//!
//! # Failures
//!
//! The client retries after refused connections, stalls and the statuses 408, 429 and 5xx. The
//! pauses grow, or follow the registry's `Retry-After`. Interrupted downloads and uploads resume
//! where they stopped. If a mirror fails, the client continues with the next server.
//!
//! | module | content |
//! | --- | --- |
//! | [`client`] | the client, its options, resolving and fetching documents |
//! | [`blob`] | verified downloads of blobs |
//! | [`push`] | uploads |
//! | [`login`] | checking credentials |
//! | [`credentials`] | the storage of credentials |
//! | [`hosts`] | the configuration of registries |
//! | [`fetch`] | downloads from plain URLs |
//! | [`document`] | the distinction between manifests and indexes |
//! | [`platform`] | the choice of a manifest from an index |
//! | `transport`, `retry`, `limits` | requests: redirects, the choice of scheme, pauses, limits |
//! | `auth` | challenges and tokens |
//! | `endpoint` | the servers of a registry |
//! | `verifier`, `resolver` | verification of certificates, host lookups |
//! | [`connection_error`], [`hint`] | explanations of failed connections, advice against failures |

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests open the files that they create")
)]

mod blob;
mod body;
mod client;
mod connection_error;
mod credentials;
mod document;
mod error;
mod fetch;
pub mod hint;
mod hosts;
mod http;
mod login;
pub mod platform;
mod push;
mod referrers;
mod repository;
mod warnings;

mod auth;
mod endpoint;
mod limits;
mod resolver;
mod retry;
mod transport;
mod verifier;

#[cfg(test)]
mod tests;

pub use blob::{BlobStream, Length, PartialBlob};
pub use body::{BlobSource, Sent};
pub use client::{Client, ManifestResponse, Options};
pub use connection_error::ConnectionError;
pub use credentials::key_of;
pub use credentials::{
    Anonymous, Credential, CredentialError, CredentialFiles, CredentialPlace, Credentials,
};
pub use document::check_document;
pub use error::{Error, Problem};
pub use fetch::redacted;
pub use fetch::{FetchAnswer, FetchRequest, FetchedFile};
pub use hosts::HostSources;
pub use http::{Peer, Proxies};
pub use limits::MinimumSpeed;
pub use login::registry_of;
pub use push::{BlobUpload, Pushed};
pub use repository::Repository;
pub use warnings::{Warnings, json_problem};

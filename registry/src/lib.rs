//! The distribution protocol: resolve, pull, push.
//!
//! A [`Client`] speaks to any number of registries (OCI distribution specification 1.1; Docker's
//! registry API, version 2). Making one costs nothing: configuration, credentials and the system's
//! root certificates are read when a request needs them.
//!
//! # What a registry is trusted with
//!
//! Nothing. Documents and blobs are verified against digest and size while they arrive; documents
//! are limited to 4 MiB; a document is either a manifest or an index, and its declared type has to
//! agree. Redirects lead to `http` and `https` only, and from `https` to plain `http` only on this
//! machine.
//!
//! Credentials belong to one registry. They, and the tokens that they are exchanged for, are sent to
//! the registry that asked for them and to the token server in its own domain, and to nobody else,
//! wherever a redirect leads and whatever a challenge names. A mirror has its own or none. Certificates
//! that are given for a host are trusted for that host alone, on each of its ports where it gives tokens.
//!
//! # What goes wrong on the way
//!
//! Refused connections, stalls, and the answers 408, 429 and 5xx are tried again with growing
//! pauses, or after as long as the registry asks for; a blob goes on where it was cut off, in both
//! directions. A mirror that is of no use is passed over.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`client`] | the client, its options, resolving and fetching documents |
//! | [`blob`] | blobs as verified streams |
//! | [`push`] | uploads |
//! | [`login`] | checking credentials |
//! | [`credentials`] | where credentials are kept |
//! | [`hosts`] | what is configured about registries |
//! | [`fetch`] | files behind plain URLs |
//! | [`document`] | what is a manifest, what an index |
//! | [`platform`] | which manifest of an index a platform gets |
//! | `transport`, `retry`, `limits` | requests: redirects, the choice of scheme, pauses, bounds |
//! | `auth` | challenges and tokens |
//! | `endpoint` | where a registry and its mirrors are |
//! | `verifier`, `resolver` | judging certificates, looking up hosts |
//! | [`connection_error`] | why a request got no answer |

pub mod blob;
pub mod body;
pub mod client;
pub mod connection_error;
pub mod credentials;
pub mod document;
pub mod error;
pub mod fetch;
pub mod hosts;
pub mod http;
pub mod login;
pub mod platform;
pub mod push;
pub mod repository;
pub mod warnings;

mod auth;
mod endpoint;
mod limits;
mod resolver;
mod retry;
mod transport;
mod verifier;

#[cfg(test)]
mod tests;

pub use blob::{Beginning, BlobStream, Length};
pub use body::{BlobSource, Sent};
pub use client::{Client, ManifestResponse, Options};
pub use connection_error::ConnectionError;
pub use credentials::{Anonymous, Credential, CredentialFiles, Credentials, Kept};
pub use document::check_document;
pub use error::{Error, Problem};
pub use fetch::{FetchAnswer, FetchRequest, FetchedFile};
pub use hosts::HostSources;
pub use http::{Peer, Proxies};
pub use limits::Pace;
pub use login::registry_of;
pub use platform::select_platform;
pub use push::{BlobUpload, Pushed};
pub use repository::Repository;
pub use warnings::{Warnings, json_problem};

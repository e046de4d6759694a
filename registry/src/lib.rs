//! The distribution protocol: resolve, pull, push.
//!
//! A [`Client`] speaks to any number of registries (OCI distribution specification 1.1; Docker's
//! registry API, version 2). Making one costs nothing: TLS is set up, and the system's root
//! certificates are read, when the first `https` request is made.
//!
//! # What a registry is trusted with
//!
//! Nothing. Documents and blobs are verified against digest and size while they arrive; documents
//! are limited to 4 MiB; a document is either a manifest or an index, and its declared type has to
//! agree. Tokens are sent to the registry that asked for them and to nobody else, wherever a
//! redirect leads. Redirects lead to `http` and `https` only, and from `https` to plain `http` only
//! on this machine.
//!
//! # What goes wrong on the way
//!
//! Refused connections, stalls, and the answers 408, 429 and 5xx are tried again with growing
//! pauses, or after as long as the registry asks for; a blob goes on where it was cut off.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`client`] | the client, its options, resolving and fetching documents |
//! | [`blob`] | blobs as verified streams |
//! | [`push`] | uploads |
//! | [`fetch`] | files behind plain URLs |
//! | [`document`] | what is a manifest, what an index |
//! | [`platform`] | which manifest of an index a platform gets |
//! | `transport` | requests: redirects, retries, the choice of scheme |
//! | `auth` | challenges and tokens |

pub mod blob;
pub mod client;
pub mod document;
pub mod error;
pub mod fetch;
pub mod platform;
pub mod push;
pub mod repository;

mod auth;
mod endpoint;
mod tls;
mod transport;

#[cfg(test)]
mod tests;

pub use blob::{BlobStream, Length};
pub use client::{Client, ManifestResponse, Options};
pub use document::check_document;
pub use error::{Error, Problem};
pub use fetch::{FetchAnswer, FetchRequest, FetchedFile};
pub use platform::select_platform;
pub use repository::Repository;

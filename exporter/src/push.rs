//! Uploads of images to registries.
//!
//! A [`Shipment`] contains the blobs of an image and the documents that refer to them, in the order
//! of upload: referenced documents come first. It is created from an export or from an image in the
//! store.
//!
//! Nothing is sent that the registry has. A blob that the store lacks as well (a layer of a base
//! image that no step has run on) is looked up in the registry first: if the repository has it or
//! can mount it from another repository of the same registry, it is never downloaded.

mod send;
mod shipment;

pub use send::{PUSHING, PushContext, push};
pub use shipment::{Document, PushBlob, Shipment};

use kiln_registry::Client;
use tokio::runtime::Handle;

/// The client for registries, and the runtime for its requests.
#[derive(Clone, Copy, Debug)]
pub struct Remote<'a> {
    /// The client that sends the requests.
    pub client: &'a Client,
    /// The runtime that a blocking function waits on.
    pub runtime: &'a Handle,
}

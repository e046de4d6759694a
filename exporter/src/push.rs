//! Images to registries.
//!
//! A [`Shipment`] is what is to be in a repository: blobs, and the documents that name them, those
//! that are named before those that name them. It is made of an export or of an image of the store.
//!
//! Nothing is sent that the registry has. A blob that is not in the store either, of a base image
//! that nobody has run anything in, is asked for first: where the repository has it, or can have it
//! mounted out of another of the same registry, it is never downloaded.

mod send;
mod shipment;

pub use send::{PushContext, PushObserver, push};
pub use shipment::{Document, Freight, Shipment};

use kiln_registry::Client;
use tokio::runtime::Handle;

/// Who speaks to registries, and on which runtime.
#[derive(Clone, Copy, Debug)]
pub struct Remote<'a> {
    /// Who.
    pub client: &'a Client,
    /// The runtime.
    pub runtime: &'a Handle,
}

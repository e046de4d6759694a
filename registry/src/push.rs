//! Uploads of blobs and of the manifests that name them.

mod blob;
mod manifest;
mod session;

pub use blob::{BlobUpload, Pushed};

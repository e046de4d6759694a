//! Uploads: blobs first, then the manifests that name them.

mod blob;
mod manifest;
mod session;

pub use blob::{BlobUpload, Pushed};

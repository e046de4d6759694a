//! Sources: ops that bring files into the graph from outside.

pub(crate) mod document;
mod file_name;
pub(crate) mod git;
pub(crate) mod http;
pub(crate) mod identifier;
pub(crate) mod image;
pub(crate) mod local;
pub(crate) mod oci_layout;
pub(crate) mod origin;
pub(crate) mod remote;

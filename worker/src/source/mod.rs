//! Sources: what brings files in from outside of the graph.

pub(crate) mod document;
pub(crate) mod identifier;
pub(crate) mod image;
pub(crate) mod local;
pub(crate) mod oci_layout;
pub(crate) mod origin;

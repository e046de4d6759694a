//! Sources: ops that bring files into the graph from outside.

pub(crate) mod blob;
mod file_name;
pub(crate) mod git;
pub(crate) mod http;
pub(crate) mod identifier;
pub(crate) mod local;
pub(crate) mod remote;

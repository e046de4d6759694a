//! `kiln system`: commands for the whole store.

pub(crate) mod check;
pub(crate) mod df;
pub(crate) mod prune;

//! Images of the store as docker describes and filters them.

pub(crate) mod description;
pub(crate) mod filter;

//! `kiln imagetools`: commands for images in registries.

pub(crate) mod create;
pub(crate) mod inspect;

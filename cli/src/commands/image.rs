//! `kiln image`: the commands for images that have no short name.

pub(crate) mod prune;

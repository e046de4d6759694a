//! `kiln builds`: the history of builds.

pub(crate) mod explain;
pub(crate) mod inspect;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod rm;

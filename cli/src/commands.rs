//! The commands, one per file.
//!
//! No command uses another: what several need is in a module outside of this one.

pub(crate) mod bake;
pub(crate) mod build;
pub(crate) mod buildctl;
pub(crate) mod builds;
pub(crate) mod completion;
pub(crate) mod debug;
pub(crate) mod diff;
pub(crate) mod history;
pub(crate) mod image;
pub(crate) mod images;
pub(crate) mod imagetools;
pub(crate) mod import;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod load;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod man;
pub(crate) mod manifest;
pub(crate) mod prune;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod rmi;
pub(crate) mod run;
pub(crate) mod save;
pub(crate) mod serve;
pub(crate) mod sync;
pub(crate) mod system;
pub(crate) mod tag;
pub(crate) mod version;

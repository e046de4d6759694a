//! The output of the commands: displays, tables, documents and reports.

pub(crate) mod about;
pub(crate) mod confirm;
pub(crate) mod description;
pub(crate) mod diff;
pub(crate) mod explanation;
pub(crate) mod format;
pub(crate) mod hints;
pub(crate) mod log;
pub(crate) mod metadata;
pub(crate) mod printer;
pub(crate) mod progress;
pub(crate) mod removal;
pub(crate) mod times;

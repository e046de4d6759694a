//! Answers about a Dockerfile that take no build: its targets, what it can be given, what the build
//! checks find.
//!
//! Each answer has the two forms of BuildKit's frontend: JSON, and a text for people. The JSON is
//! written as Go writes it, so that the bytes are those that other tools know.

mod json;
mod outline;
mod report;
mod table;
mod targets;

pub use json::Location;
pub use outline::{Outline, OutlineArg, OutlineNeed};
pub use report::Report;
pub use targets::{Target, Targets, targets};

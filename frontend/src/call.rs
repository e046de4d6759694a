//! Answers about a Dockerfile that need no build: its targets, the inputs that a build accepts, and
//! the results of the build checks.
//!
//! Each answer has the two forms of BuildKit's frontend: JSON, and text for people. The JSON is
//! formatted as Go formats it, so its bytes match BuildKit's.

mod json;
mod outline;
mod report;
mod table;
mod targets;

pub use json::Location;
pub use outline::{Outline, OutlineArg, OutlineNeed};
pub use report::Report;
pub use targets::{Target, Targets, targets};

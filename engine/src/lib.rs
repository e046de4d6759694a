//! Builds container images from Dockerfiles, without a daemon.
//!
//! An [`Engine`] opens a store. [`Engine::build`] takes a [`BuildSpec`](build::BuildSpec), executes the Dockerfile's
//! graph in sandboxed containers, and writes the outputs. Events tell what happens meanwhile.
//!
//! The engine never reads command lines, environment variables, the home directory or standard
//! streams, and never prints. What they hold arrives as [`Options`] or in the request.
//!
//! A process that runs steps or containers has to call [`init`] at the beginning of `main`.
//!
//! # Example
//!
//! ```no_run
#![doc = include_str!("../examples/embed.rs")]
//! ```

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests open the files that they create")
)]

pub mod build;
pub mod container;
pub mod diff;
pub mod explain;
pub mod image;
pub mod json;
pub mod records;
pub mod redact;
pub mod remote_image;

mod dns;
mod engine;
mod frontends;
mod monitor;

pub use dns::Dns;
pub use engine::{Engine, Options};
pub use frontends::{
    FrontendCall, FrontendEnd, FrontendError, FrontendImage, FrontendResult, Frontends,
};
pub use monitor::{Monitor, spool};

/// Becomes the sandbox's helper if this process was started as one, and returns otherwise. Call it
/// first in `main`, before other threads exist.
pub fn init() {
    kiln_sandbox::init_if_asked();
}

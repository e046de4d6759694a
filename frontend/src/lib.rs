//! Translation of a Dockerfile into a build graph and an image config.
//!
//! [`parser`] joins physical lines to logical lines and parses those into typed instructions
//! ([`instruction`]). [`expand`] substitutes variables. [`lower()`] dispatches the instructions of
//! every stage that the target reaches, and returns the nodes and the image config.
//!
//! The frontend does no I/O. It resolves images through [`Images`] and reads files of the build
//! context through [`ContextFiles`].

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests open the files that they create")
)]

pub mod call;
mod error;
pub mod expand;
pub mod hint;
pub mod ignore;
pub mod instruction;
pub mod lint;
mod lower;
pub mod parser;
mod resolve;
pub mod suggest;
mod syntax;
pub mod text;

/// The version of Docker's Dockerfile frontend (`docker/dockerfile`) whose behaviour this is.
pub const DOCKERFILE_VERSION: &str = "1.26.0";

pub use error::{Error, Span};
pub use error::{render, render_warning};
pub use lower::{
    ContextInput, Lowered, Options, ProcessLimits, ScanExtras, SpentText, check, is_remote_context,
    lower, lower_or_warn, outline, remote_context, repository,
};
pub use resolve::ImageLocation;
pub use resolve::{ContextFiles, ImageRequest, Images, ResolveError, ResolveMode, ResolvedImage};
pub use syntax::{BUILT_IN_FRONTEND, FrontendImage, SYNTAX_ARGUMENT, image_of, is_built_in};

//! Dockerfile text to build graph and image config.
//!
//! The stages, each a module: [`parser`] makes logical lines of physical ones, and typed
//! instructions of those ([`instruction`]); [`expand`] substitutes variables, [`lower`] dispatches
//! the instructions of every stage that the target reaches and yields nodes and an image config.
//!
//! The frontend does no I/O: images are resolved through [`Images`], files of the build context
//! read through [`ContextFiles`].

pub mod call;
pub mod error;
pub mod expand;
pub mod ignore;
pub mod instruction;
pub mod lint;
pub mod lower;
pub mod parser;
pub mod resolve;
pub mod suggest;
pub mod text;

pub use call::targets;
pub use error::{Error, Span};
pub use lint::Warning;
pub use lower::{
    Lowered, Options, ProcessLimits, SpentText, check, is_remote_context, lower, lower_or_warn,
    outline, remote_context,
};
pub use resolve::{ContextFiles, ImageRequest, Images, ResolveError, ResolveMode, ResolvedImage};

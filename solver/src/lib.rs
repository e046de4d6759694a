//! Cache keys, scheduling, single flight and progress events.
//!
//! The solver knows no op's meaning. It asks an [`Executor`] how a vertex is keyed, what selected
//! content digests to, and to run it; and a [`Cache`] what is known already.
//!
//! Solving is by demand. The *key* of a vertex is found without running anything where its op and
//! the keys of its inputs settle it (its definition key), else through the content of its inputs
//! (its content key), and the *result* of a vertex is asked for only by a user that has to run, or
//! by the caller. So a cached build of a hundred steps computes a hundred keys and loads one result.
//!
//! | key | made of |
//! | --- | --- |
//! | definition key | the rule's salt (or the op's digest), and for each input the canonical key of the vertex that makes it and the output's number |
//! | content key | the salt, for each input with content the digest of what is selected, for every other input as above |
//! | canonical key | the content key where the vertex has inputs with content, else the definition key |
//!
//! Results are stored under canonical keys; a definition key leads to its canonical key by a link,
//! so that a changed input with equal content leads everything above it to the results it had.

pub mod cache;
pub mod event;
pub mod executor;
pub mod key;
pub mod solve;

pub use cache::{Cache, CacheError, KeyRecord};
pub use event::{Event, EventSender, LogStream, VertexId};
pub use executor::{CacheRule, Executor, StepContext, StepError};
pub use key::Key;
pub use solve::{SolveError, SolveOptions, Solved, solve};

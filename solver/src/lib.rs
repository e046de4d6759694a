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
//! | definition key | the rule's salt (by default the op without its inputs), and for each input the canonical key of the vertex that makes it and the output's number |
//! | content key | the salt, for each input with content the digest of what is selected, for every other input as above |
//! | canonical key | the content key where the vertex has inputs with content, else the definition key |
//!
//! Results are stored under canonical keys; a definition key leads to its canonical key by a link,
//! so that a changed input with equal content leads everything above it to the results it had.
//!
//! # What is not looked up, and what is not stored
//!
//! A key can carry a taint, which it passes on to every key that is made of it; a content key is
//! made of contents, so it has only the taint of its inputs without content.
//!
//! - *ephemeral*: an ephemeral vertex made something of this build alone. Such a key is never
//!   looked up, linked or stored.
//! - *fresh*: a vertex runs although its result may be known (`ignore_cache`), so what was made of
//!   its old result is out of date. Such a key is not looked up, but stored and linked: the new
//!   record takes the place of the old.
//!
//! # Equal keys
//!
//! Vertices of one graph that turn out to have the same canonical key are one from then on: the first
//! whose inputs are there runs, and the others take over its result, even while it runs.
//!
//! # Looking ahead
//!
//! Where a definition key leads nowhere, results have to be made before the content key is known,
//! and so before the keys of whatever is built on the vertex are. Those are likely to lead nowhere
//! as well: the results that they will be settled by are demanded at once, so that what could run
//! side by side isn't found out step by step.
//!
//! # The order of waiting
//!
//! The results of all inputs first, then the lock on the key, then another look into the cache
//! (somebody else may have done the work meanwhile), then a free job, then the work; the lock is
//! freed after the result is saved. Whoever holds a lock therefore waits for nothing but a job, and
//! whoever has a job waits for no lock, so that no two builds can wait for each other.
//!
//! # Tasks
//!
//! One driver ([`solve()`]) owns all state and never recurses, however deep the graph is. Only what
//! waits for the world outside, as loading, digesting, locking and running, is a task, and the
//! driver returns after the last of them has ended.

pub mod cache;
pub mod event;
pub mod executor;
pub mod key;
pub mod made_of;
pub mod name;
pub mod solve;

mod drive;
mod plan;
mod task;
#[cfg(test)]
mod tests;

pub use cache::{Cache, CacheError, KeyRecord};
pub use event::{
    Event, EventReceiver, EventSender, LogLimits, LogStream, LogTail, NoEvent, Spool, VertexId,
};
pub use executor::{CacheRule, Executor, Remains, StepContext, StepError};
pub use key::Key;
pub use made_of::{Ingredients, InputPart, Lookup, StepInput, StepKey, VARIABLE};
pub use solve::{SolveError, SolveOptions, Solved, VertexKeys, solve};

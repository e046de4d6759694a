//! Cache keys, scheduling and single flight.
//!
//! The solver doesn't know what ops do. An [`Executor`] tells it how to key a vertex, digests
//! selected content and runs ops. A [`Cache`] holds the results of earlier builds.
//!
//! Solving is by demand. The *key* of a vertex is its definition key if the op and the keys of its
//! inputs determine the result; the solver computes it without running anything. Otherwise it is
//! the content key, which depends on the content of the inputs. The solver demands the *result* of
//! a vertex only for a user that has to run, or for the caller. A cached build of a hundred steps
//! computes a hundred keys and loads one result.
//!
//! | key | parts |
//! | --- | --- |
//! | definition key | the rule's salt (by default the op without its inputs), and for each input the canonical key of its vertex and the output's number |
//! | content key | the salt, the digest of the selected content for each content input, and the same as above for every other input |
//! | canonical key | the content key if the vertex has content inputs, else the definition key |
//!
//! The cache stores results under canonical keys. A link leads from a definition key to its
//! canonical key. If an input changes but its content doesn't, every vertex above it therefore
//! keeps its cached result.
//!
//! # Keys that are not looked up or stored
//!
//! A key can carry a taint, which it passes on to every key that depends on it. A content key
//! depends on the content of its content inputs, so it has only the taint of the other inputs.
//!
//! - *ephemeral*: an ephemeral vertex produced something that exists in this build only. The cache
//!   never looks up, links or stores such a key.
//! - *fresh*: a vertex runs although its result may be cached (`ignore_cache`), so results that
//!   depend on its old result are out of date. The cache doesn't look up such a key but stores and
//!   links it: the new record replaces the old one.
//!
//! # Equal keys
//!
//! Several vertices of one graph may turn out to have the same canonical key. The first one whose
//! inputs are done runs, and the others take over its result, even while it runs.
//!
//! # Looking ahead
//!
//! If a definition key has no link, results must be made before the content key is known, and
//! before the keys of all vertices above it. Those keys are likely to have no link either. The
//! solver therefore demands the results that determine them at once, and independent steps run side
//! by side.
//!
//! # The order of waiting
//!
//! A vertex waits for the results of all inputs, then for the lock on its key. It looks into the
//! cache again, because another build may have done the work in the meantime. Then it waits for a
//! free job, does the work, saves the result and releases the lock. A holder of a lock waits only
//! for a job, and a holder of a job waits for no lock, so two builds can't deadlock.
//!
//! # Tasks
//!
//! One driver ([`solve()`]) owns all state. It never recurses, however deep the graph is. Only
//! operations that wait for the outside world are tasks: loading, digesting, locking and running.
//! The driver returns after the last task has ended.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests open the files that they create")
)]

mod cache;
mod drive;
mod executor;
mod key;
mod name;
mod plan;
mod solve;
mod task;
#[cfg(test)]
mod tests;

pub use cache::{Cache, CacheError, KeyRecord};
pub use executor::{CacheRule, Executor, Remains, StepContext, StepError};
pub use solve::{SolveError, SolveOptions, Solved, VertexKeys, solve};

//! Attacks that have worked against other builders and runtimes, through the `kiln` binary.
//!
//! Each test runs in an [`arena::Arena`]. Beside the store is a canary, a tree that no build may
//! change and whose secret no build may read. A test attacks, shows that the harmless variant of
//! the attack works, and ends with [`arena::Arena::finish`], which checks the canary and searches
//! all files of kiln for the secret. `docs/internals/security.md` says which test stands for which promise.
//!
//! All tests run twice: as root, and as another user, who then owns the canary (the target
//! `security_rootless`).
//!
//! Races depend on chance: `KILN_SECURITY_ROUNDS` multiplies their rounds. An emulated machine is
//! slow: `KILN_SECURITY_PATIENCE` multiplies the time limits. `KILN_TEST_ISOLATION` names the isolation.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod archives;
mod arena;
mod contexts;
mod documents;
mod images;
mod integrity;
mod lifetimes;
mod mounts;
mod network;
mod races;
mod runtime;
mod secrets;
mod users;

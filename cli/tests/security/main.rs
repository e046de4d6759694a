//! Attacks that have worked against other builders and runtimes, through the `kiln` binary.
//!
//! Each test plays in an [`arena::Arena`]: beside the store lies a canary, a tree that no build may
//! change and whose secret none may see. A test attacks, shows that the innocent twin of the attack
//! works, and ends with [`arena::Arena::finish`], which looks at the canary and searches everything
//! that kiln has written. `docs/internals/security.md` says which test stands for which promise.
//!
//! All of it is run twice: as root, and (the target `security_rootless`) by a user who isn't, to whom
//! the canary belongs then.
//!
//! Races are lost or won by chance: `KILN_SECURITY_ROUNDS` multiplies how often they are run. On an
//! emulated machine everything takes long: `KILN_SECURITY_PATIENCE` multiplies what it may take.
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

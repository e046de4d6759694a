//! Locks that die with their process.

/// A key that is held; freed when dropped and when the process dies.
#[derive(Debug)]
pub struct KeyGuard {}

//! The rung that a command has chosen.

use kiln_sandbox::{Isolation, Obstacle};

/// A rung that a command has chosen.
#[derive(Clone, Debug)]
pub(crate) struct Rung {
    /// The way to isolate programs.
    pub(crate) isolation: Isolation,
    /// The reasons why stronger rungs can't be used, and this one if programs can't run at all.
    pub(crate) obstacles: Vec<Obstacle>,
}

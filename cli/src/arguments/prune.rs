//! The arguments of `kiln prune`.

use clap::Args;

/// Remove the build cache
///
/// Never removes what images, running builds and containers use. Layers go before those that
/// they stand on, and those first that were used the longest time ago.
#[derive(Debug, Args)]
pub(crate) struct PruneArguments {
    /// Remove cache mounts too, and what leads builds to the layers of images
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Don't ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Only what this holds for: until=TIME (not used since), type=regular|source.git.checkout|
    /// exec.cachemount, type!=TYPE, id=ID
    #[arg(long = "filter", value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
    /// Room that the cache keeps in any case, as 10g
    #[arg(long, visible_alias = "keep-storage", value_name = "SIZE")]
    pub(crate) reserved_space: Option<String>,
    /// Most room that the cache keeps
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_used_space: Option<String>,
    /// Room that is to be free on the file system
    #[arg(long, value_name = "SIZE")]
    pub(crate) min_free_space: Option<String>,
    /// Remove the volumes that no container uses, too
    #[arg(long)]
    pub(crate) volumes: bool,
}

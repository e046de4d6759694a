//! The resource limits that are part of the graph.

use anyhow::{Context, Result};
use kiln_frontend::ProcessLimits;

use crate::settings::limits;

/// Parses the size of `/dev/shm` and the ulimits.
pub(super) fn process_limits(
    shm_size: Option<&str>,
    ulimits: &[String],
    cgroup_parent: String,
) -> Result<ProcessLimits> {
    let shm_size = shm_size.map(limits::size).transpose().context("invalid --shm-size")?;
    let ulimit = |limit: limits::Ulimit| kiln_llb::op::Ulimit {
        name: limit.name,
        soft: limit.soft,
        hard: limit.hard,
    };
    Ok(ProcessLimits {
        shm_size: shm_size.unwrap_or_default(),
        ulimits: limits::ulimits(ulimits)?.into_iter().map(ulimit).collect(),
        cgroup_parent,
    })
}

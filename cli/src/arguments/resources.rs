//! The resource flags that `build` and `run` share with docker's.

use clap::Args;

/// The resource options that `build` and `run` share.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ResourceArguments {
    /// Most memory, as 512m; at least 6m
    #[arg(short, long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Most memory and swap together, as 1g; -1 for all the swap there is [default: twice --memory]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_swap: Option<String>,
    /// Processor time relative to that of others, who have 1024
    #[arg(short, long, value_name = "NUMBER")]
    pub(crate) cpu_shares: Option<u64>,
    /// Period over which processor time is counted, in microseconds [default: 100000]
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) cpu_period: Option<u64>,
    /// Most processor time of a period, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) cpu_quota: Option<i64>,
    /// Processors to run on, as 0-3 or 0,1
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes to use, as 0-3 or 0,1
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    /// Control group to run in, as /builds, or a systemd slice
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true)]
    pub(crate) cgroup_parent: String,
}

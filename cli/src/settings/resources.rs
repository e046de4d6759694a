//! The resource flags that `build` and `run` share with docker's.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::ops::RangeInclusive;

use anyhow::{Context, Result, bail};
use kiln_sandbox::cgroup::{Limits, Swap};

use super::limits;
use crate::arguments::resources::ResourceArguments;

/// docker's minimum for a memory limit, in bytes.
const LEAST_MEMORY: u64 = 6 << 20;
/// The minimum period and quota of CPU time, and the maximum period, in microseconds.
const LEAST_CPU_TIME: u64 = 1_000;
const LONGEST_CPU_PERIOD: u64 = 1_000_000;

/// The files in which the kernel lists the online processors and memory nodes.
const PROCESSORS: &str = "/sys/devices/system/cpu/online";
const MEMORY_NODES: &str = "/sys/devices/system/node/online";

/// Parses the arguments. As in docker, 0 means no limit.
pub(crate) fn limits(arguments: &ResourceArguments) -> Result<Limits> {
    let memory = arguments.memory.as_deref().map(limits::size_limit).transpose();
    let memory = memory.context("invalid --memory")?.flatten();
    if memory.is_some_and(|bytes| bytes < LEAST_MEMORY) {
        bail!("invalid --memory: it must be 6m at least");
    }
    let period = arguments.cpu_period.filter(|period| *period > 0);
    if period.is_some_and(|period| !(LEAST_CPU_TIME..=LONGEST_CPU_PERIOD).contains(&period)) {
        bail!("invalid --cpu-period: it must be from {LEAST_CPU_TIME} to {LONGEST_CPU_PERIOD}");
    }
    let quota = arguments.cpu_quota.and_then(|quota| u64::try_from(quota).ok());
    let quota = quota.filter(|quota| *quota > 0);
    if quota.is_some_and(|quota| quota < LEAST_CPU_TIME) {
        bail!("invalid --cpu-quota: it must be {LEAST_CPU_TIME} at least");
    }
    Ok(Limits {
        memory,
        swap: swap(arguments.memory_swap.as_deref(), memory)?,
        cpu_shares: arguments.cpu_shares.filter(|shares| *shares > 0),
        cpu_quota: quota,
        cpu_period: period,
        cpus: available(arguments.cpuset_cpus.as_deref(), PROCESSORS)
            .context("invalid --cpuset-cpus")?,
        memory_nodes: available(arguments.cpuset_mems.as_deref(), MEMORY_NODES)
            .context("invalid --cpuset-mems")?,
        ..Limits::default()
    })
}

fn swap(text: Option<&str>, memory: Option<u64>) -> Result<Option<Swap>> {
    let swap = match text {
        None => return Ok(None),
        Some("-1") => Swap::Unlimited,
        Some(text) => match limits::size_limit(text).context("invalid --memory-swap")? {
            None => return Ok(None),
            Some(bytes) => Swap::Total(bytes),
        },
    };
    match (swap, memory) {
        (_, None) => bail!("invalid --memory-swap: it needs --memory"),
        (Swap::Total(total), Some(memory)) if total < memory => {
            bail!("invalid --memory-swap: it includes the memory, and must be as large at least")
        }
        _ => Ok(Some(swap)),
    }
}

/// Returns the number of online processors of this machine.
pub(crate) fn processors() -> Option<usize> {
    let online = std::fs::read_to_string(PROCESSORS).ok()?;
    Some(ranges(online.trim())?.iter().map(|range| range.clone().count()).sum())
}

/// Checks a list of numbers and ranges against the processors or memory nodes of this machine.
/// docker rejects a list with others, as the kernel does with version 1 of control groups. With
/// version 2, the kernel would ignore them.
fn available(text: Option<&str>, online: &str) -> Result<Option<String>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let Some(requested) = ranges(text) else { bail!("{text:?} is no list as 0-3 or 0,1") };
    if let Ok(online) = std::fs::read_to_string(online)
        && let Some(there) = ranges(online.trim())
    {
        let is_there = |number: &u16| there.iter().any(|range| range.contains(number));
        if let Some(absent) = requested.into_iter().flatten().find(|number| !is_there(number)) {
            bail!("this machine has {}, and not {absent}", online.trim());
        }
    }
    Ok(Some(text.to_owned()))
}

/// Parses a list of numbers and ranges; returns `None` if it is invalid.
fn ranges(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last).then_some(first..=last)
    };
    text.split(',').map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::flags::tests::run as run_arguments;

    fn read(typed: &[&str]) -> Result<Limits> {
        limits(&run_arguments(&[typed, &["img"]].concat()).resources)
    }

    #[test]
    fn limits_are_dockers() {
        assert_eq!(read(&[]).unwrap(), Limits::default());
        let none = ["-m", "0", "--cpu-quota", "-1", "--cpu-period", "0", "-c", "0"];
        assert_eq!(read(&none).unwrap(), Limits::default());
        let all = ["-m", "64m", "--memory-swap", "-1", "-c", "512", "--cpu-quota", "50000"];
        let more = ["--cpu-period", "20000", "--cpuset-cpus", "0,0-0", "--cpuset-mems", "0"];
        let expected = Limits {
            memory: Some(64 << 20),
            swap: Some(Swap::Unlimited),
            cpu_shares: Some(512),
            cpu_quota: Some(50_000),
            cpu_period: Some(20_000),
            cpus: Some("0,0-0".to_owned()),
            memory_nodes: Some("0".to_owned()),
            ..Limits::default()
        };
        assert_eq!(read(&[&all[..], &more].concat()).unwrap(), expected);
        let swap = read(&["-m", "64m", "--memory-swap", "1g"]).unwrap().swap;
        assert_eq!(swap, Some(Swap::Total(1 << 30)));
    }

    #[test]
    fn what_can_not_be_is_refused() {
        for typed in [
            &["-m", "1m"][..],
            &["-m", "x"],
            &["--memory-swap", "1g"],
            &["-m", "64m", "--memory-swap", "32m"],
            &["--cpu-period", "5"],
            &["--cpu-quota", "5"],
            &["--cpuset-cpus", "0-"],
            &["--cpuset-cpus", "3-1"],
            &["--cpuset-mems", "all"],
            &["--cpuset-cpus", "0,60000"],
        ] {
            assert!(read(typed).is_err(), "{typed:?}");
        }
        assert_eq!(ranges("0-1,3"), Some(vec![0..=1, 3..=3]));
        let online = std::fs::read_to_string(PROCESSORS).unwrap();
        let expected =
            format!("invalid --cpuset-cpus: this machine has {}, and not 60000", online.trim());
        let error = read(&["--cpuset-cpus", "0,60000"]).unwrap_err();
        assert_eq!(format!("{error:#}"), expected);
    }
}

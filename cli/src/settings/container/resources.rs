//! The resource limits of a container.

use anyhow::{Context, Result, bail};
use kiln_sandbox::cgroup::Limits;

use crate::arguments::run::RunArguments;
use crate::settings::limits::size_limit;
use crate::settings::resources;

/// The period of the limit of `--cpus`, in microseconds.
const CPU_PERIOD: f64 = 100_000.0;

/// Parses the arguments.
pub(super) fn limits(arguments: &RunArguments) -> Result<Limits> {
    let mut limits = resources::limits(&arguments.resources)?;
    if let Some(cpus) = arguments.cpus.filter(|cpus| *cpus != 0.0) {
        if limits.cpu_quota.is_some() || limits.cpu_period.is_some() {
            bail!("--cpus says what --cpu-quota and --cpu-period say: they can't be combined");
        }
        let most = resources::processors().unwrap_or(usize::from(u16::MAX));
        if !(0.01..=most as f64).contains(&cpus) {
            bail!(
                "invalid --cpus {cpus}: it must be from 0.01 to {most}, as many processors as there are"
            );
        }
        limits.cpu_period = Some(CPU_PERIOD as u64);
        limits.cpu_quota = Some((cpus * CPU_PERIOD).round() as u64);
    }
    limits.reserved_memory = reserved(arguments.memory_reservation.as_deref(), limits.memory)?;
    limits.swappiness = swappiness(arguments.memory_swappiness)?;
    limits.waits_for_memory = arguments.oom_kill_disable;
    limits.pids = arguments.pids_limit.and_then(|number| u64::try_from(number).ok());
    limits.pids = limits.pids.filter(|number| *number > 0);
    Ok(limits)
}

/// Parses the swappiness, from 0 to 100; -1 means the system's default.
fn swappiness(typed: Option<i64>) -> Result<Option<u64>> {
    match typed {
        None | Some(-1) => Ok(None),
        Some(value @ 0..=100) => Ok(u64::try_from(value).ok()),
        Some(value) => bail!("invalid --memory-swappiness {value}: it must be from 0 to 100"),
    }
}

/// Parses the memory reservation, the number of bytes that the kernel reclaims last.
fn reserved(text: Option<&str>, memory: Option<u64>) -> Result<Option<u64>> {
    let reserved = text.map(size_limit).transpose().context("invalid --memory-reservation")?;
    let reserved = reserved.flatten();
    if let (Some(reserved), Some(memory)) = (reserved, memory)
        && reserved > memory
    {
        bail!("invalid --memory-reservation: it must be no more than --memory");
    }
    Ok(reserved)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::flags::tests::run as run_arguments;

    #[test]
    fn zero_and_less_are_no_limits() {
        let read = |typed: &[&str]| limits(&run_arguments(&[typed, &["img"]].concat()));
        assert_eq!(read(&[]).unwrap(), Limits::default());
        let none = ["-m", "0", "--cpus", "0", "--pids-limit", "-1"];
        assert_eq!(read(&none).unwrap(), Limits::default());
        let some = Limits {
            cpu_quota: Some(50_000),
            cpu_period: Some(100_000),
            pids: Some(9),
            reserved_memory: Some(64 << 20),
            ..Limits::default()
        };
        let typed = ["--cpus", "0.5", "--pids-limit", "9", "--memory-reservation", "64m"];
        assert_eq!(read(&typed).unwrap(), some);
        let typed = ["--memory-swappiness", "-1"];
        assert_eq!(read(&typed).unwrap(), Limits::default());
        assert_eq!(read(&["--memory-swappiness", "0"]).unwrap().swappiness, Some(0));
        assert!(read(&["--memory-swappiness", "101"]).is_err());
        let typed = ["-m", "32m", "--memory-reservation", "64m"];
        assert!(read(&typed).is_err());
        for typed in [
            &["--cpus", "0.001"][..],
            &["--cpus", "60000"],
            &["--cpus", "1", "--cpu-quota", "5000"],
        ] {
            assert!(read(typed).is_err(), "{typed:?}");
        }
    }
}

//! How much a container may use.

use anyhow::{Result, bail};
use kiln_worker::sandbox::cgroup::{Cgroup, Limits};

use crate::commands::run::RunArguments;
use crate::limits;
use crate::printer::Printer;

/// The least memory that a container can be limited to, docker's.
const LEAST_MEMORY: i64 = 6 << 20;

/// Makes out what was asked for.
pub(super) fn limits(arguments: &RunArguments) -> Result<Limits> {
    let memory = arguments.memory.as_deref().map(limits::size).transpose()?;
    if memory.is_some_and(|bytes| bytes != 0 && bytes < LEAST_MEMORY) {
        bail!("invalid --memory: it must be 6m at least");
    }
    let cpus = arguments.cpus.unwrap_or(0.0);
    if !(0.0..=1e6).contains(&cpus) || (cpus > 0.0 && cpus < 0.01) {
        bail!("invalid --cpus {cpus}: it must be 0.01 at least");
    }
    let positive = |number: i64| u64::try_from(number).ok().filter(|number| *number > 0);
    Ok(Limits {
        memory: memory.and_then(positive),
        millicpus: positive((cpus * 1000.0).round() as i64),
        pids: arguments.pids_limit.and_then(positive),
    })
}

/// Makes a container's groups, and says what can't be limited.
pub(super) fn groups(id: &str, limits: &Limits, printer: &Printer) -> Cgroup {
    let (groups, warnings) = Cgroup::create(&format!("kiln-{id}"), limits);
    for warning in warnings {
        printer.note(format_args!("WARNING: {warning}"));
    }
    groups
}

/// Tells of processes that the kernel has killed because the memory was used up.
pub(super) fn report(groups: &Cgroup, printer: &Printer) {
    let kills = groups.out_of_memory_kills();
    if kills > 0 {
        let noun = if kills == 1 { "process" } else { "processes" };
        printer.note(format_args!("out of memory: the kernel has killed {kills} {noun}"));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        run: RunArguments,
    }

    #[test]
    fn zero_and_less_are_no_limits() {
        let read =
            |typed: &[&str]| limits(&Typed::parse_from([&["run"], typed, &["img"]].concat()).run);
        assert_eq!(read(&[]).unwrap(), Limits::default());
        let none = ["-m", "0", "--cpus", "0", "--pids-limit", "-1"];
        assert_eq!(read(&none).unwrap(), Limits::default());
        let some = Limits { memory: Some(64 << 20), millicpus: Some(1500), pids: Some(9) };
        assert_eq!(read(&["-m", "64m", "--cpus", "1.5", "--pids-limit", "9"]).unwrap(), some);
        for typed in [["-m", "1m"], ["-m", "x"], ["--cpus", "0.001"]] {
            assert!(read(&typed).is_err(), "{typed:?}");
        }
    }
}

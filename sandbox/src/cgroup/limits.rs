//! Resource limits, and the files that set them in each version of control groups.

use super::DeviceRule;

/// The default period of processor time in microseconds.
const CPU_PERIOD: u64 = 100_000;

/// The resource limits of a program. `None` means no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The maximum memory in bytes.
    pub memory: Option<u64>,
    /// The maximum of memory and swap together. With `None`, the program may use as much swap as
    /// memory.
    pub swap: Option<Swap>,
    /// The weight of the program's processor time, from 2 to 262,144. The default is 1,024.
    pub cpu_shares: Option<u64>,
    /// The processor time per period in microseconds.
    pub cpu_quota: Option<u64>,
    /// The length of the period in microseconds.
    pub cpu_period: Option<u64>,
    /// The processors that the program may use, such as `0-2,5`.
    pub cpus: Option<String>,
    /// The memory nodes that the program may use, such as `0-1`.
    pub memory_nodes: Option<String>,
    /// The maximum number of processes and threads.
    pub pids: Option<u64>,
    /// The bytes of memory that the kernel reclaims last when memory is short.
    pub reserved_memory: Option<u64>,
    /// The kernel's tendency to swap, from 0 to 100. Only version 1 supports it.
    pub swappiness: Option<u64>,
    /// `true` if processes wait when the memory limit is reached, instead of being killed. Only
    /// version 1 supports it.
    pub waits_for_memory: bool,
    /// The devices that the program may open.
    pub devices: DeviceAccess,
}

/// The devices that a program may open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeviceAccess {
    /// The harmless devices, such as `/dev/null`.
    #[default]
    Harmless,
    /// The harmless devices and those of the rules.
    Also(Vec<DeviceRule>),
    /// All devices, without a filter.
    Any,
}

/// The limit on memory and swap together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// The number of bytes, memory included.
    Total(u64),
    /// All of the host's swap.
    Unlimited,
}

/// A file of a control group and its new content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) file: &'static str,
    pub(super) value: String,
    /// `true` if a failure to write the file is ignored.
    pub(super) optional: bool,
}

fn setting(file: &'static str, value: &impl ToString) -> Setting {
    Setting { file, value: value.to_string(), optional: false }
}

impl Limits {
    /// Returns the names of the controllers that the limits require.
    pub(super) fn controllers(&self) -> impl Iterator<Item = &'static str> {
        let cpu = self.cpu_shares.is_some() || self.cpu_quota.is_some();
        let memory = self.memory.is_some()
            || self.reserved_memory.is_some()
            || self.swappiness.is_some()
            || self.waits_for_memory;
        let cpuset = self.cpus.is_some() || self.memory_nodes.is_some();
        [
            ("memory", memory),
            ("cpu", cpu || self.cpu_period.is_some()),
            ("cpuset", cpuset),
            ("pids", self.pids.is_some()),
        ]
        .into_iter()
        .filter_map(|(controller, limits)| limits.then_some(controller))
    }

    /// Returns the limits that version 2 doesn't support, in words.
    pub(super) fn unknown_to_version_2(&self) -> impl Iterator<Item = &'static str> {
        [
            ("memory swappiness", self.swappiness.is_some()),
            ("the killing of processes that run out of memory", self.waits_for_memory),
        ]
        .into_iter()
        .filter_map(|(what, is_wanted)| is_wanted.then_some(what))
    }

    /// Returns the files that set a controller's limits, in the order of writing.
    pub(super) fn settings(&self, controller: &str, unified: bool) -> Vec<Setting> {
        match controller {
            "memory" => self.memory(unified),
            "cpu" if unified => self.cpu_unified(),
            "cpu" => self.cpu(),
            "cpuset" => {
                let cpus = self.cpus.iter().map(|cpus| setting("cpuset.cpus", cpus));
                cpus.chain(self.memory_nodes.iter().map(|nodes| setting("cpuset.mems", nodes)))
                    .collect()
            }
            _ => self.pids.iter().map(|pids| setting("pids.max", pids)).collect(),
        }
    }

    fn memory(&self, unified: bool) -> Vec<Setting> {
        let file = if unified { "memory.low" } else { "memory.soft_limit_in_bytes" };
        let mut settings: Vec<Setting> =
            self.reserved_memory.iter().map(|reserved| setting(file, reserved)).collect();
        if !unified {
            settings.extend(self.swappiness.map(|value| setting("memory.swappiness", &value)));
            settings.extend(self.waits_for_memory.then(|| setting("memory.oom_control", &1)));
        }
        let Some(memory) = self.memory else { return settings };
        let total = match self.swap {
            None => Some(memory.saturating_mul(2)),
            Some(Swap::Total(bytes)) => Some(bytes),
            Some(Swap::Unlimited) => None,
        };
        let (file, swap) = if unified {
            let swap =
                total.map_or("max".to_owned(), |total| (total - memory.min(total)).to_string());
            ("memory.swap.max", swap)
        } else {
            let total = total.map_or("-1".to_owned(), |total| total.to_string());
            ("memory.memsw.limit_in_bytes", total)
        };
        // Not every kernel counts swap.
        let swap = Setting { file, value: swap, optional: self.swap.is_none() };
        let file = if unified { "memory.max" } else { "memory.limit_in_bytes" };
        settings.extend([setting(file, &memory), swap]);
        settings
    }

    fn cpu(&self) -> Vec<Setting> {
        let shares = self.cpu_shares.map(|shares| setting("cpu.shares", &shares));
        let period = self.cpu_period.map(|period| setting("cpu.cfs_period_us", &period));
        let quota = self.cpu_quota.map(|quota| setting("cpu.cfs_quota_us", &quota));
        shares.into_iter().chain(period).chain(quota).collect()
    }

    fn cpu_unified(&self) -> Vec<Setting> {
        // Weights of version 2 range from 1 to 10,000.
        let weight = |shares: u64| 1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142;
        let shares = self.cpu_shares.map(|shares| setting("cpu.weight", &weight(shares)));
        let max = (self.cpu_quota.is_some() || self.cpu_period.is_some()).then(|| {
            let quota = self.cpu_quota.map_or("max".to_owned(), |quota| quota.to_string());
            setting("cpu.max", &format!("{quota} {}", self.cpu_period.unwrap_or(CPU_PERIOD)))
        });
        shares.into_iter().chain(max).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(limits: &Limits, controller: &str, unified: bool) -> Vec<String> {
        let settings = limits.settings(controller, unified);
        settings.iter().map(|setting| format!("{} {}", setting.file, setting.value)).collect()
    }

    #[test]
    fn limits_are_told_in_the_words_of_each_version() {
        let limits = Limits {
            memory: Some(8),
            cpu_shares: Some(1024),
            cpu_quota: Some(150_000),
            cpus: Some("0-1".to_owned()),
            pids: Some(5),
            ..Limits::default()
        };
        let all: Vec<_> = limits.controllers().collect();
        assert_eq!(all, ["memory", "cpu", "cpuset", "pids"]);
        let memory = ["memory.limit_in_bytes 8", "memory.memsw.limit_in_bytes 16"];
        assert_eq!(words(&limits, "memory", false), memory);
        assert_eq!(words(&limits, "memory", true), ["memory.max 8", "memory.swap.max 8"]);
        assert_eq!(words(&limits, "cpu", false), ["cpu.shares 1024", "cpu.cfs_quota_us 150000"]);
        assert_eq!(words(&limits, "cpu", true), ["cpu.weight 39", "cpu.max 150000 100000"]);
        assert_eq!(words(&limits, "cpuset", true), ["cpuset.cpus 0-1"]);
        assert_eq!(words(&limits, "pids", false), ["pids.max 5"]);
        assert_eq!(Limits::default().controllers().count(), 0);
        let reserved = Limits { reserved_memory: Some(4), ..Limits::default() };
        assert_eq!(words(&reserved, "memory", false), ["memory.soft_limit_in_bytes 4"]);
        assert_eq!(words(&reserved, "memory", true), ["memory.low 4"]);
    }

    #[test]
    fn some_limits_are_for_version_1_alone() {
        let limits = Limits { swappiness: Some(0), waits_for_memory: true, ..Limits::default() };
        assert_eq!(limits.controllers().collect::<Vec<_>>(), ["memory"]);
        assert_eq!(
            words(&limits, "memory", false),
            ["memory.swappiness 0", "memory.oom_control 1"]
        );
        assert_eq!(words(&limits, "memory", true), [""; 0]);
        assert_eq!(limits.unknown_to_version_2().count(), 2);
    }

    #[test]
    fn swap_is_what_is_left_of_the_total() {
        let limits = |swap| Limits { memory: Some(8), swap, ..Limits::default() };
        let swap = |swap, unified| words(&limits(swap), "memory", unified).remove(1);
        assert_eq!(swap(Some(Swap::Total(20)), false), "memory.memsw.limit_in_bytes 20");
        assert_eq!(swap(Some(Swap::Total(20)), true), "memory.swap.max 12");
        assert_eq!(swap(Some(Swap::Unlimited), false), "memory.memsw.limit_in_bytes -1");
        assert_eq!(swap(Some(Swap::Unlimited), true), "memory.swap.max max");
    }
}

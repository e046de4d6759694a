//! Control groups: how much memory, processor time and how many processes a program may have.
//!
//! A program's group lies below kiln's own where version 1 of control groups has the controller,
//! so that it can't have more than kiln; and beside kiln's own in version 2, where a group that
//! has processes can't have limited children. A host may have some controllers in either version.
//! The program joins its groups before it sets up anything. A controller that isn't there, or
//! can't be written, is a warning: the program runs without that limit.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The period over which processor time is counted, in microseconds.
const CPU_PERIOD: u64 = 100_000;
/// How often, and how long after each other, an emptied group is tried to be removed.
const REMOVALS: u32 = 50;
const REMOVAL_PAUSE: Duration = Duration::from_millis(10);

/// What a program may use; `None` for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory; as many again of swap.
    pub memory: Option<u64>,
    /// Processor time, in thousandths of a processor.
    pub millicpus: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// The groups of one program; dropped, they are removed.
#[derive(Debug, Default)]
pub struct Cgroup {
    directories: BTreeSet<PathBuf>,
    memory: Option<PathBuf>,
}

/// A controller's place in the file system.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    /// kiln's own group there.
    own: PathBuf,
    /// Where the hierarchy is mounted.
    mount: PathBuf,
    unified: bool,
}

impl Cgroup {
    /// Makes groups called `name` for a program, with limits; returns what could not be limited,
    /// too.
    pub fn create(name: &str, limits: &Limits) -> (Self, Vec<String>) {
        let (mut groups, mut warnings) = (Self::default(), Vec::new());
        let memory = limits.memory.map(|bytes| ("memory", bytes));
        let cpu = limits.millicpus.map(|millicpus| ("cpu", millicpus));
        let pids = limits.pids.map(|pids| ("pids", pids));
        for (controller, limit) in [memory, cpu, pids].into_iter().flatten() {
            if let Err(error) = groups.limit(name, controller, limit) {
                warnings.push(format!("{controller} can't be limited: {error}"));
            }
        }
        (groups, warnings)
    }

    /// Returns the directories that the program is to join.
    pub fn directories(&self) -> impl Iterator<Item = &PathBuf> {
        self.directories.iter()
    }

    /// Returns how many processes the kernel has killed because there was no memory left.
    pub fn out_of_memory_kills(&self) -> u64 {
        let Some(directory) = &self.memory else { return 0 };
        let count = |file: &str| {
            let text = std::fs::read_to_string(directory.join(file)).ok()?;
            text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
        };
        count("memory.events").or_else(|| count("memory.oom_control")).unwrap_or(0)
    }

    fn limit(&mut self, name: &str, controller: &'static str, limit: u64) -> io::Result<()> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let own = std::fs::read_to_string("/proc/self/cgroup")?;
        let hierarchy = find(controller, &mounts, &own)
            .ok_or_else(|| io::Error::other("this system has no such controller"))?;
        let directory = hierarchy.place(controller).join(name);
        match std::fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.directories.insert(directory.clone());
        for (file, value) in settings(controller, limit, hierarchy.unified) {
            let path = directory.join(file);
            // Swap is not counted everywhere.
            if file.contains("swap") || file.contains("memsw") {
                let _ = std::fs::write(path, value);
            } else {
                std::fs::write(path, value)?;
            }
        }
        if controller == "memory" {
            self.memory = Some(directory);
        }
        Ok(())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for directory in &self.directories {
            for _ in 0..REMOVALS {
                // The kernel may be a moment behind with those that have ended.
                match std::fs::remove_dir(directory) {
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                        std::thread::sleep(REMOVAL_PAUSE);
                    }
                    _ => break,
                }
            }
        }
    }
}

impl Hierarchy {
    /// Returns the group that programs' groups are made in.
    fn place(&self, controller: &str) -> PathBuf {
        if !self.unified {
            return self.own.clone();
        }
        let parent = match self.own.parent() {
            Some(parent) if self.own != self.mount => parent,
            _ => &self.mount,
        };
        // Where this fails, so does setting the limit, with a better message.
        let _ = std::fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
        parent.to_owned()
    }
}

/// Returns the files that set a limit, and what is written to them.
fn settings(controller: &str, limit: u64, unified: bool) -> Vec<(&'static str, String)> {
    let quota = || (limit.saturating_mul(CPU_PERIOD) / 1000).max(1000);
    match (controller, unified) {
        ("memory", false) => vec![
            ("memory.limit_in_bytes", limit.to_string()),
            ("memory.memsw.limit_in_bytes", limit.saturating_mul(2).to_string()),
        ],
        ("memory", true) => {
            vec![("memory.max", limit.to_string()), ("memory.swap.max", limit.to_string())]
        }
        ("cpu", false) => vec![
            ("cpu.cfs_period_us", CPU_PERIOD.to_string()),
            ("cpu.cfs_quota_us", quota().to_string()),
        ],
        ("cpu", true) => vec![("cpu.max", format!("{} {CPU_PERIOD}", quota()))],
        _ => vec![("pids.max", limit.to_string())],
    }
}

/// Finds a controller, in version 1 or else in version 2, by the texts of `/proc/self/mountinfo`
/// and `/proc/self/cgroup`.
fn find(controller: &str, mounts: &str, own: &str) -> Option<Hierarchy> {
    let group = |wanted: &str| {
        own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let has = fields.next()?.split(',').any(|name| name == wanted);
            fields.next().filter(|_| has)
        })
    };
    let mount = |kind: &str, wanted: &str| {
        mounts.lines().find_map(|line| {
            let (place, source) = line.split_once(" - ")?;
            let mut source = source.split(' ');
            let is_kind = source.next()? == kind;
            let has = wanted.is_empty() || source.nth(1)?.split(',').any(|name| name == wanted);
            let mut place = place.split(' ').skip(3);
            (is_kind && has).then_some((place.next()?, place.next()?))
        })
    };
    let hierarchy = |kind, wanted: &str, unified| {
        let ((root, mount), group) = (mount(kind, wanted)?, group(wanted)?);
        let below = Path::new(group).strip_prefix(root).ok()?;
        let mount = PathBuf::from(mount);
        let own = if below.as_os_str().is_empty() { mount.clone() } else { mount.join(below) };
        Some(Hierarchy { own, mount, unified })
    };
    hierarchy("cgroup", controller, false).or_else(|| hierarchy("cgroup2", "", true))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 24 0:26 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory
31 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
32 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn controllers_are_found_in_either_version() {
        let own = "4:memory:/a/b\n3:cpu,cpuacct:/\n0::/user/x\n";
        let found = |controller, mounts, own| {
            let hierarchy: Hierarchy = find(controller, mounts, own)?;
            Some((hierarchy.own.display().to_string(), hierarchy.unified))
        };
        let expect = |path: &str, unified| Some((path.to_owned(), unified));
        assert_eq!(found("memory", HYBRID, own), expect("/sys/fs/cgroup/memory/a/b", false));
        assert_eq!(found("cpu", HYBRID, own), expect("/sys/fs/cgroup/cpu,cpuacct", false));
        assert_eq!(found("pids", HYBRID, own), expect("/sys/fs/cgroup/unified/user/x", true));
        // A container sees its own part alone.
        let part = "9 8 0:26 /user /cg rw - cgroup2 cgroup rw\n";
        assert_eq!(found("memory", part, "0::/user/x\n"), expect("/cg/x", true));
        assert_eq!(found("memory", part, "0::/other\n"), None);
        assert_eq!(found("memory", "", own), None);
    }

    #[test]
    fn limits_are_told_in_the_words_of_each_version() {
        let cpu = |millicpus, unified| settings("cpu", millicpus, unified);
        assert_eq!(cpu(1500, true), [("cpu.max", "150000 100000".to_owned())]);
        assert_eq!(cpu(1500, false)[1], ("cpu.cfs_quota_us", "150000".to_owned()));
        assert_eq!(settings("pids", 5, false), settings("pids", 5, true));
        assert_eq!(settings("memory", 8, true)[0], ("memory.max", "8".to_owned()));
    }
}

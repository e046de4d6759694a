//! The hierarchies of control groups and kiln's own groups in them.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::io;
use std::path::{Component, Path, PathBuf};

/// A mounted hierarchy of control groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// The mount point of the hierarchy.
    pub(super) mount: PathBuf,
    /// The directory of kiln's own group.
    pub(super) own: PathBuf,
    /// `true` for version 2 of control groups.
    pub(super) unified: bool,
    /// The names of the hierarchy's controllers.
    pub(super) controllers: Vec<String>,
}

/// The mounted hierarchies of this system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) hierarchies: Vec<Hierarchy>,
}

impl Layout {
    /// Returns the hierarchies that this process sees.
    pub(super) fn of_this_process() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
    }

    /// Parses the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`.
    pub(super) fn parse(mounts: &str, own: &str) -> Self {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for hierarchy in mounts.lines().filter_map(|line| parse_mount(line, own)) {
            // A hierarchy that is mounted twice counts once.
            let is_same = |other: &Hierarchy| {
                other.unified == hierarchy.unified && other.controllers == hierarchy.controllers
            };
            if !hierarchies.iter().any(is_same) {
                hierarchies.push(hierarchy);
            }
        }
        Self { hierarchies }
    }

    /// Returns the hierarchy with a controller. Version 1 takes precedence: a controller in use
    /// there is not available in version 2.
    pub(super) fn of(&self, controller: &str) -> Option<&Hierarchy> {
        self.hierarchies
            .iter()
            .find(|hierarchy| hierarchy.has(controller) && !hierarchy.unified)
            .or_else(|| self.unified().filter(|hierarchy| hierarchy.has(controller)))
    }

    /// Returns the hierarchy of version 2.
    pub(super) fn unified(&self) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|hierarchy| hierarchy.unified)
    }
}

fn parse_mount(line: &str, own: &str) -> Option<Hierarchy> {
    let (place, source) = line.split_once(" - ")?;
    let mut source = source.split(' ');
    let unified = match source.next()? {
        "cgroup2" => true,
        "cgroup" => false,
        _ => return None,
    };
    let mut place = place.split(' ').skip(3);
    let (root, mount) = (place.next()?, PathBuf::from(place.next()?));
    let options = source.nth(1)?;
    let group = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        let is_it = if unified {
            controllers.is_empty()
        } else {
            !controllers.is_empty()
                && controllers
                    .split(',')
                    .all(|name| options.split(',').any(|option| option == name))
        };
        fields.next().filter(|_| is_it).map(|group| (group, controllers))
    });
    let (group, controllers) = group?;
    let below = Path::new(group).strip_prefix(root).ok()?;
    let own = if below.as_os_str().is_empty() { mount.clone() } else { mount.join(below) };
    let controllers = if unified {
        let text = std::fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    } else {
        controllers.split(',').map(str::to_owned).collect()
    };
    Some(Hierarchy { mount, own, unified, controllers })
}

impl Hierarchy {
    /// Returns `true` if the hierarchy has a controller.
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    /// Returns the group that houses are created in.
    ///
    /// `parent` has the format of docker's `--cgroup-parent`. An absolute path starts at the root
    /// of the hierarchy, a relative path at kiln's default place. The name of a systemd slice means
    /// the slice's path.
    pub(super) fn place(&self, parent: &str) -> PathBuf {
        let beside = match self.own.parent() {
            Some(above) if self.unified && self.own != self.mount => above,
            _ => &self.own,
        };
        if let Some(path) = slice(parent) {
            return self.mount.join(path);
        }
        let base = if parent.starts_with('/') { &self.mount } else { beside };
        // `..` is resolved in the text and can't lead out of the hierarchy.
        let mut below = PathBuf::new();
        for component in Path::new(parent).components() {
            match component {
                Component::Normal(name) => below.push(name),
                Component::ParentDir => {
                    below.pop();
                }
                _ => {}
            }
        }
        if below.as_os_str().is_empty() { base.to_owned() } else { base.join(below) }
    }

    /// Delegates a controller through all groups from the root down to the parent of `group`. Fails
    /// with the kernel's first error if `group` doesn't get the controller.
    pub(super) fn enable(&self, controller: &str, group: &Path) -> io::Result<()> {
        let mut refused = None;
        let above: Vec<&Path> =
            group.ancestors().skip(1).take_while(|path| path.starts_with(&self.mount)).collect();
        for path in above.into_iter().rev() {
            let file = path.join("cgroup.subtree_control");
            let has = std::fs::read_to_string(&file)
                .is_ok_and(|text| text.split_whitespace().any(|name| name == controller));
            if !has && let Err(error) = std::fs::write(&file, format!("+{controller}")) {
                let text = format!("write +{controller} to {}: {error}", file.display());
                refused.get_or_insert(io::Error::new(error.kind(), text));
            }
        }
        // A group that can't be written to matters only if it doesn't delegate the controller
        // already.
        let got = std::fs::read_to_string(group.join("cgroup.controllers"));
        let has = got.is_ok_and(|text| text.split_whitespace().any(|name| name == controller));
        refused.filter(|_| !has).map_or(Ok(()), Err)
    }
}

/// Returns the path of a systemd slice: `a-b.slice` is in `a.slice`.
fn slice(name: &str) -> Option<PathBuf> {
    let stem = name.strip_suffix(".slice").filter(|stem| !stem.is_empty())?;
    if name.contains('/') || stem.split('-').any(str::is_empty) {
        return None;
    }
    let mut path = PathBuf::new();
    for (end, _) in stem.match_indices('-').chain([(stem.len(), "")]) {
        path.push(format!("{}.slice", &stem[..end]));
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 24 0:26 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory
31 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
32 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
33 24 0:26 / /elsewhere/memory rw shared:9 - cgroup cgroup rw,memory
";

    #[test]
    fn controllers_are_found_in_either_version() {
        let layout = Layout::parse(HYBRID, "4:memory:/a/b\n3:cpu,cpuacct:/\n0::/user/x\n");
        assert_eq!(layout.hierarchies.len(), 3);
        let own = |controller| layout.of(controller).map(|found| found.own.display().to_string());
        assert_eq!(own("memory").unwrap(), "/sys/fs/cgroup/memory/a/b");
        assert_eq!(own("cpu").unwrap(), "/sys/fs/cgroup/cpu,cpuacct");
        assert_eq!(own("pids"), None, "nobody has it");
        let unified = layout.unified().unwrap();
        assert_eq!(unified.own, Path::new("/sys/fs/cgroup/unified/user/x"));
        // A container sees only its own part of the hierarchy.
        let part = "9 8 0:26 /user /cg rw - cgroup2 cgroup rw\n";
        let layout = Layout::parse(part, "0::/user/x\n");
        assert_eq!(layout.unified().unwrap().own, Path::new("/cg/x"));
        assert_eq!(Layout::parse(part, "0::/other\n"), Layout::default());
        assert_eq!(Layout::parse("", "0::/\n"), Layout::default());
    }

    #[test]
    fn parents_are_places_inside_the_hierarchy() {
        let layout = Layout::parse(HYBRID, "4:memory:/a/b\n3:cpu,cpuacct:/\n0::/user/x\n");
        let places = |parent: &str| {
            let place = |hierarchy: &Hierarchy| hierarchy.place(parent).display().to_string();
            (place(layout.of("memory").unwrap()), place(layout.unified().unwrap()))
        };
        let expect = |one: &str, two: &str| {
            (format!("/sys/fs/cgroup/memory{one}"), format!("/sys/fs/cgroup/unified{two}"))
        };
        assert_eq!(places(""), expect("/a/b", "/user"));
        assert_eq!(places("/builds/x"), expect("/builds/x", "/builds/x"));
        assert_eq!(places("builds"), expect("/a/b/builds", "/user/builds"));
        assert_eq!(places("/../../etc"), expect("/etc", "/etc"));
        assert_eq!(places("../../../etc"), expect("/a/b/etc", "/user/etc"));
        let slices = "/ci.slice/ci-jobs.slice/ci-jobs-a.slice";
        assert_eq!(places("ci-jobs-a.slice"), expect(slices, slices));
    }
}

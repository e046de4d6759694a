//! The devices of a step: the edits of its CDI devices, applied to the sandbox's specification.
//!
//! A device node of the host is mounted, so it keeps the host's owner and mode. Every mount of the
//! sandbox is `nodev`.

#![expect(clippy::disallowed_methods, reason = "the machine's administrator names the files")]

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use kiln_event::Reporter;
use kiln_sandbox::cgroup::{DeviceAccess, DeviceKind, DeviceRule};
use kiln_sandbox::{Mount, MountKind, Propagation, Spec, Tree};

use crate::cdi::{DeviceNode, Edits, MountEdit};
use crate::error::{Error, Result};

/// The edits of a step's devices in the sandbox's terms.
#[derive(Debug, Default)]
pub(super) struct StepDevices {
    env: Vec<String>,
    mounts: Vec<Mount>,
    groups: Vec<String>,
    rules: Vec<DeviceRule>,
}

impl StepDevices {
    /// Converts edits. Sends a warning for each hook, because hooks aren't run.
    ///
    /// # Errors
    /// Fails if an edit isn't possible here.
    pub(super) fn new(all: &[Edits], reporter: &Reporter) -> Result<Self> {
        let mut devices = Self::default();
        for edits in all {
            if !edits.net_devices.is_empty() || edits.intel_rdt.is_some() {
                let what = "CDI devices with network devices or cache limits";
                return Err(Error::Unsupported(what.to_owned()));
            }
            for hook in &edits.hooks {
                let (name, path) = (&hook.hook_name, &hook.path);
                reporter.warn(format!("CDI hook {path} ({name}) is not run"));
            }
            devices.env.extend(edits.env.iter().cloned());
            devices.groups.extend(edits.additional_gids.iter().map(ToString::to_string));
            for node in &edits.device_nodes {
                devices.add_node(node, reporter)?;
            }
            for mount in &edits.mounts {
                devices.mounts.push(to_mount(mount)?);
            }
        }
        Ok(devices)
    }

    /// Returns the devices that control groups let the program open.
    pub(super) fn access(&self) -> DeviceAccess {
        if self.rules.is_empty() {
            DeviceAccess::Harmless
        } else {
            DeviceAccess::Also(self.rules.clone())
        }
    }

    /// Applies the edits to a specification.
    pub(super) fn apply(&self, spec: &mut Spec) {
        for variable in &self.env {
            let name = variable.split_once('=').map_or(variable.as_str(), |(name, _)| name);
            let prefix = format!("{name}=");
            spec.process.env.retain(|other| !other.starts_with(&prefix));
            spec.process.env.push(variable.clone());
        }
        spec.mounts.extend(self.mounts.iter().cloned());
        spec.process.groups.extend(self.groups.iter().cloned());
        spec.devices.extend(self.rules.iter().cloned());
    }

    fn add_node(&mut self, node: &DeviceNode, reporter: &Reporter) -> Result<()> {
        let DeviceNode { path, host_path, .. } = node;
        let host = PathBuf::from(if host_path.is_empty() { path } else { host_path });
        let name = host.display().to_string();
        let found = std::fs::metadata(&host).map_err(Error::kernel("examine CDI device", &name))?;
        let kind = if found.file_type().is_block_device() {
            DeviceKind::Block
        } else if found.file_type().is_char_device() {
            DeviceKind::Character
        } else {
            return Err(Error::Invalid(format!("CDI device {name}: no device")));
        };
        let (major, minor) = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
        let differs = |wanted: Option<u32>, is: u32| wanted.is_some_and(|wanted| wanted != is);
        let is_other_kind = match node.kind.as_str() {
            "" => false,
            "b" => kind != DeviceKind::Block,
            "c" | "u" => kind != DeviceKind::Character,
            _ => true,
        };
        if is_other_kind || differs(node.major, major) || differs(node.minor, minor) {
            let problem = "the machine's node is another device than the description says";
            return Err(Error::Invalid(format!("CDI device {name}: {problem}")));
        }
        if differs(node.uid, found.uid())
            || differs(node.gid, found.gid())
            || differs(node.file_mode.map(|mode| mode & 0o777), found.mode() & 0o777)
        {
            reporter.warn(format!("CDI device {name} keeps the owner and mode that it has here"));
        }
        let may = |letter| node.permissions.is_empty() || node.permissions.contains(letter);
        self.rules.push(DeviceRule {
            kind,
            major: Some(major),
            minor: Some(minor),
            read: may('r'),
            write: may('w'),
            make: may('m'),
        });
        self.mounts.push(Mount { target: path.into(), kind: MountKind::Device(host) });
        Ok(())
    }
}

/// Converts a mount.
fn to_mount(edit: &MountEdit) -> Result<Mount> {
    let MountEdit { host_path, container_path, options, kind } = edit;
    let invalid = |what: String| Error::Invalid(format!("CDI mount {container_path}: {what}"));
    if !matches!(kind.as_str(), "" | "bind" | "none") {
        return Err(invalid(format!("type {kind} isn't supported")));
    }
    let (mut readonly, mut recursive) = (false, false);
    for option in options {
        match option.as_str() {
            "ro" => readonly = true,
            "rbind" => recursive = true,
            "rw" | "bind" | "nodev" | "nosuid" | "private" | "rprivate" => {}
            other => return Err(invalid(format!("option {other} isn't supported"))),
        }
    }
    if !Path::new(container_path).is_absolute() || !Path::new(host_path).is_absolute() {
        return Err(invalid("the paths must be absolute".to_owned()));
    }
    let kind = MountKind::Bind {
        tree: Tree::Directory(host_path.into()),
        selector: PathBuf::new(),
        readonly,
        recursive,
        propagation: Propagation::Private,
    };
    Ok(Mount { target: container_path.into(), kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits(json: &str) -> Edits {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn edits_become_parts_of_the_specification() {
        let edits = edits(
            r#"{"env": ["A=2"], "additionalGids": [44],
                "deviceNodes": [{"path": "/dev/empty", "hostPath": "/dev/null", "type": "c",
                                 "major": 1, "minor": 3, "permissions": "r"}],
                "mounts": [{"hostPath": "/usr", "containerPath": "/vendor",
                            "options": ["ro", "nosuid", "nodev", "rbind"]}]}"#,
        );
        let devices = StepDevices::new(&[edits], &Reporter::silent()).unwrap();
        let mut spec = Spec::new(Tree::Directory("/".into()), vec!["true".to_owned()]);
        spec.process.env = vec!["A=1".to_owned(), "B=1".to_owned()];
        devices.apply(&mut spec);
        assert_eq!(spec.process.env, ["B=1", "A=2"]);
        assert_eq!(spec.process.groups, ["44"]);
        assert_eq!(spec.devices[0].to_string(), "c 1:3 r");
        let node = MountKind::Device("/dev/null".into());
        assert_eq!(spec.mounts[0], Mount { target: "/dev/empty".into(), kind: node });
        assert!(matches!(
            spec.mounts[1].kind,
            MountKind::Bind { readonly: true, recursive: true, .. }
        ));
        assert!(matches!(devices.access(), DeviceAccess::Also(rules) if rules.len() == 1));
    }

    #[test]
    fn impossible_edits_are_errors() {
        for json in [
            r#"{"deviceNodes": [{"path": "/dev/no such device"}]}"#,
            r#"{"deviceNodes": [{"path": "/dev/null", "minor": 4}]}"#,
            r#"{"deviceNodes": [{"path": "/etc/passwd"}]}"#,
            r#"{"mounts": [{"hostPath": "/a", "containerPath": "/b", "options": ["noexec"]}]}"#,
            r#"{"mounts": [{"hostPath": "/a", "containerPath": "b"}]}"#,
            r#"{"netDevices": [{}]}"#,
        ] {
            assert!(StepDevices::new(&[edits(json)], &Reporter::silent()).is_err(), "{json}");
        }
    }
}

//! The translation of a specification into the OCI runtime specification.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use serde_json::{Value, json};

use super::init;
use crate::capabilities::Capabilities;
use crate::spec::{CallFilter, Mount, MountKind, Propagation, Security, Spec};
use crate::users::ResolvedUser;
use crate::wire::Failure;
use crate::{cgroup_view, insecure, masks, seccomp};

/// The version of the OCI runtime specification.
const VERSION: &str = "1.0.2";

/// The inputs of a runtime's `config.json`.
pub(super) struct Config<'a> {
    pub(super) spec: &'a Spec,
    pub(super) user: ResolvedUser,
    pub(super) home: Option<String>,
    /// The path of the root file system.
    pub(super) root: PathBuf,
    /// The container's control group, relative to the runtime's own.
    pub(super) cgroup: String,
    /// The mounts inside file systems that the runtime mounts itself: target and source.
    pub(super) mounts: Vec<(PathBuf, PathBuf)>,
}

impl Config<'_> {
    /// Returns the content of the `config.json`.
    pub(super) fn to_json(&self) -> Result<Vec<u8>, Failure> {
        let spec = self.spec;
        let mut document = json!({
            "ociVersion": VERSION,
            "process": self.process()?,
            "root": { "path": path(&self.root)?, "readonly": spec.readonly_rootfs },
            "mounts": self.mounts()?,
            "linux": self.linux()?,
        });
        if !spec.shared.uts {
            document["hostname"] = json!(spec.hostname);
        }
        if !spec.annotations.is_empty() {
            document["annotations"] = json!(spec.annotations);
        }
        serde_json::to_vec(&document)
            .map_err(|error| Failure::new(format!("write the runtime's configuration: {error}")))
    }

    fn is_sandbox(&self) -> bool {
        self.spec.security.is_sandbox()
    }

    fn process(&self) -> Result<Value, Failure> {
        let process = &self.spec.process;
        let mut env = process.env.clone();
        if !env.iter().any(|entry| entry.starts_with("HOME=")) {
            env.push(format!("HOME={}", self.home.as_deref().unwrap_or("/")));
        }
        let ResolvedUser { uid, gid, groups } = &self.user;
        let limit = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        let rlimits = process.rlimits.iter().map(|rlimit| {
            let name = format!("RLIMIT_{}", rlimit.name.to_ascii_uppercase());
            json!({ "type": name, "soft": limit(rlimit.soft), "hard": limit(rlimit.hard) })
        });
        let init = process.has_init.then_some(init::PATH).into_iter();
        let mut document = json!({
            "terminal": process.terminal.is_some(),
            "user": { "uid": uid, "gid": gid, "additionalGids": groups },
            "args": init.chain(process.args.iter().map(String::as_str)).collect::<Vec<_>>(),
            "env": env,
            "cwd": path(&process.cwd)?,
            "capabilities": self.capabilities()?,
            "rlimits": rlimits.collect::<Vec<_>>(),
            "noNewPrivileges": self.spec.privileges.no_new_privileges,
        });
        if let Some(adjustment) = process.oom_score_adj {
            document["oomScoreAdj"] = adjustment.into();
        }
        if let Some(profile) = &self.spec.privileges.apparmor {
            document["apparmorProfile"] = json!(profile);
        }
        if let Some(size) = process.terminal {
            document["consoleSize"] = json!({ "height": size.rows, "width": size.columns });
        }
        Ok(document)
    }

    fn capabilities(&self) -> Result<Value, Failure> {
        if self.is_sandbox() {
            let kept = self.spec.privileges.capabilities.names();
            return Ok(json!({ "bounding": kept, "effective": kept, "permitted": kept }));
        }
        let all =
            Capabilities::available().map_err(Failure::doing("look at capabilities"))?.names();
        let mut document = json!({ "bounding": all, "effective": all, "permitted": all });
        if self.spec.security == Security::Insecure {
            document["inheritable"] = json!(all);
            document["ambient"] = json!(all);
        }
        Ok(document)
    }

    fn mounts(&self) -> Result<Vec<Value>, Failure> {
        let mount = |target: &str, kind: &str, options: &[&str]| json!({ "destination": target, "type": kind, "source": kind, "options": options });
        let inert = ["nosuid", "noexec", "nodev"];
        let with = |option: &'static str| [&inert[..], &[option]].concat();
        let writable = if self.is_sandbox() { "ro" } else { "rw" };
        let mut mounts = vec![
            mount("/proc", "proc", &inert),
            mount("/dev", "tmpfs", &["nosuid", "mode=755", "size=64m"]),
            mount(
                "/dev/pts",
                "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            ),
            mount("/dev/mqueue", "mqueue", &inert),
            mount("/sys", "sysfs", &with(writable)),
        ];
        if self.spec.shared.ipc {
            mounts.push(json!({
                "destination": "/dev/shm", "type": "bind", "source": "/dev/shm", "options": ["rbind"],
            }));
        } else if let Some(size) = self.spec.shm_size {
            let size = format!("size={size}");
            let options = [&inert[..], &["mode=1777", size.as_str()]].concat();
            mounts.push(mount("/dev/shm", "tmpfs", &options));
        }
        if !self.spec.shown_cgroups.is_empty() || cgroup_view::has_version_2_alone() {
            mounts.push(mount("/sys/fs/cgroup", "cgroup", &with(writable)));
        }
        for (target, source) in &self.mounts {
            mounts.push(json!({
                "destination": path(target)?,
                "type": "bind",
                "source": path(source)?,
                "options": ["rbind"],
            }));
        }
        Ok(mounts)
    }

    fn linux(&self) -> Result<Value, Failure> {
        // The container shares the runtime's network namespace.
        let shared = self.spec.shared;
        let namespaces = [
            ("pid", shared.pid),
            ("ipc", shared.ipc),
            ("uts", shared.uts),
            ("mount", false),
            ("cgroup", shared.cgroup),
        ];
        let namespaces = namespaces.into_iter().filter(|(_, is_shared)| !is_shared);
        let namespaces: Vec<Value> = namespaces.map(|(kind, _)| json!({ "type": kind })).collect();
        let sysctls = self.spec.sysctls.iter().map(|it| (it.name.clone(), json!(it.value)));
        // Not every runtime supports the `domainname` property.
        let domainname = self.spec.domainname.iter();
        let domainname = domainname.map(|name| ("kernel.domainname".to_owned(), json!(name)));
        let privileges = &self.spec.privileges;
        let mut document = json!({
            "namespaces": namespaces,
            "cgroupsPath": self.cgroup,
            "sysctl": sysctls.chain(domainname).collect::<serde_json::Map<_, _>>(),
            "resources": { "devices": self.device_rules() },
        });
        if let Some(propagation) = self.propagation() {
            document["rootfsPropagation"] = json!(propagation);
        }
        if self.is_sandbox() {
            if privileges.hides_system {
                document["maskedPaths"] = json!(masks::masked());
                document["readonlyPaths"] = json!(masks::readonly());
            }
            if privileges.calls == CallFilter::Builtin {
                document["seccomp"] =
                    seccomp::profile(privileges.capabilities).ok_or_else(|| {
                        Failure::new("there is no system call filter for this machine")
                    })?;
            }
        }
        document["devices"] = self.devices();
        if let CallFilter::Profile(profile) = &privileges.calls {
            document["seccomp"] = profile.for_runtime();
        }
        Ok(document)
    }

    /// Returns the devices of insecure and privileged programs.
    fn devices(&self) -> Value {
        match self.spec.security {
            Security::Sandbox => json!([]),
            Security::Insecure => insecure::devices().iter().map(device).collect(),
            Security::Privileged => {
                let nodes = insecure::nodes(Path::new("/dev"));
                nodes.iter().filter_map(|path| host_device(path)).collect()
            }
        }
    }

    /// Returns the device rules, in addition to the runtime's built-in ones.
    fn device_rules(&self) -> Vec<Value> {
        let mut rules = vec![json!({ "allow": !self.is_sandbox(), "access": "rwm" })];
        for rule in &self.spec.devices {
            let mut document = json!({
                "allow": true,
                "type": rule.kind.letter().to_string(),
                "access": rule.access(),
            });
            if let Some(major) = rule.major {
                document["major"] = major.into();
            }
            if let Some(minor) = rule.minor {
                document["minor"] = minor.into();
            }
            rules.push(document);
        }
        rules
    }

    /// Returns the propagation of the root file system, if a mount of the host requires one.
    fn propagation(&self) -> Option<&'static str> {
        let of_mount = |mount: &Mount| match mount.kind {
            MountKind::Bind { propagation, .. } => propagation,
            _ => Propagation::Private,
        };
        let has = |wanted| self.spec.mounts.iter().any(|mount| of_mount(mount) == wanted);
        let slave = has(Propagation::Slave).then_some("rslave");
        if has(Propagation::Shared) { Some("shared") } else { slave }
    }
}

fn device(device: &insecure::Device) -> Value {
    let kind = if device.kind == FileType::BlockDevice { "b" } else { "c" };
    json!({
        "path": format!("/dev/{}", device.path),
        "type": kind,
        "major": device.number.0,
        "minor": device.number.1,
        "fileMode": 0o666,
        "uid": 0,
        "gid": 0,
    })
}

/// Returns the description of a device of the host. Returns `None` if it has vanished or if
/// runtimes create it themselves.
fn host_device(path: &Path) -> Option<Value> {
    const OWN: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
    let found = path.symlink_metadata().ok()?;
    let kind = FileType::from_raw_mode(found.mode());
    let name = path.strip_prefix("/dev").ok()?.to_str()?;
    if OWN.contains(&name) {
        return None;
    }
    let number = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
    let mut document = device(&insecure::Device { path: name.to_owned(), kind, number });
    document["fileMode"] = (found.mode() & 0o7777).into();
    document["uid"] = found.uid().into();
    document["gid"] = found.gid().into();
    Some(document)
}

fn path(path: &Path) -> Result<&str, Failure> {
    path.to_str().ok_or_else(|| {
        Failure::new(format!("{} is no path that a runtime can be told", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::{DeviceKind, DeviceRule};
    use crate::spec::{Sysctl, Tree};

    fn document(change: impl FnOnce(&mut Spec)) -> Value {
        let mut spec = Spec::new(Tree::Directory("/r".into()), vec!["true".to_owned()]);
        change(&mut spec);
        let user = ResolvedUser { uid: 5, gid: 6, groups: vec![6, 7] };
        let (home, root) = (Some("/home".to_owned()), PathBuf::from("/stage/root"));
        let mounts = vec![(PathBuf::from("/dev/x"), PathBuf::from("/stage/mount0"))];
        let config = Config { spec: &spec, user, home, root, cgroup: "step-1".to_owned(), mounts };
        serde_json::from_slice(&config.to_json().unwrap()).unwrap()
    }

    #[test]
    fn a_runtime_is_told_what_the_sandbox_does() {
        let config = document(|_| ());
        let process = &config["process"];
        assert_eq!(process["user"], json!({ "uid": 5, "gid": 6, "additionalGids": [6, 7] }));
        assert_eq!(process["env"], json!(["HOME=/home"]));
        assert_eq!(process["noNewPrivileges"], false);
        let kept = process["capabilities"]["bounding"].as_array().unwrap();
        assert_eq!(kept.len(), 14);
        assert!(kept.contains(&json!("CAP_MKNOD")) && !kept.contains(&json!("CAP_SYS_ADMIN")));
        let linux = &config["linux"];
        assert_eq!(linux["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
        assert!(linux["maskedPaths"].as_array().unwrap().contains(&json!("/proc/kcore")));
        assert!(linux["readonlyPaths"].as_array().unwrap().contains(&json!("/proc/sys")));
        let last = config["mounts"].as_array().unwrap().last().unwrap().clone();
        assert_eq!(
            (&last["destination"], &last["options"][0]),
            (&json!("/dev/x"), &json!("rbind"))
        );
    }

    #[test]
    fn a_runtime_is_told_what_was_asked_for() {
        let config = document(|spec| {
            spec.privileges.no_new_privileges = true;
            spec.privileges.calls = CallFilter::Unconfined;
            spec.privileges.hides_system = false;
            spec.privileges.apparmor = Some("confined".to_owned());
            spec.privileges.capabilities = Capabilities::SYS_TIME;
            spec.shared.uts = true;
            let (name, value) = ("net.ipv4.ip_forward".to_owned(), "1".to_owned());
            spec.sysctls.push(Sysctl { name, value });
            spec.process.oom_score_adj = Some(5);
            spec.process.has_init = true;
        });
        let process = &config["process"];
        assert_eq!(process["noNewPrivileges"], true);
        assert_eq!(process["capabilities"]["permitted"], json!(["CAP_SYS_TIME"]));
        assert_eq!(process["oomScoreAdj"], 5);
        assert_eq!(process["apparmorProfile"], "confined");
        assert_eq!(process["args"], json!(["/dev/kiln-init", "true"]));
        assert_eq!(config["hostname"], Value::Null);
        let linux = &config["linux"];
        assert_eq!(linux["sysctl"], json!({ "net.ipv4.ip_forward": "1" }));
        assert_eq!((&linux["seccomp"], &linux["readonlyPaths"]), (&Value::Null, &Value::Null));
        assert_eq!(linux["namespaces"].as_array().unwrap().len(), 4);
    }

    #[test]
    fn a_runtime_is_told_of_devices_namespaces_and_links() {
        let config = document(|spec| {
            spec.devices.push(DeviceRule {
                kind: DeviceKind::Character,
                major: Some(1),
                minor: None,
                read: true,
                write: false,
                make: false,
            });
            spec.shared.pid = true;
            spec.shared.cgroup = true;
            spec.shm_size = None;
            spec.domainname = Some("x.test".to_owned());
            spec.annotations.insert("a".to_owned(), "b".to_owned());
            let (tree, target) = (Tree::Directory("/h".into()), "/x".into());
            let (selector, propagation) = (PathBuf::new(), Propagation::Shared);
            let kind =
                MountKind::Bind { tree, selector, readonly: false, recursive: true, propagation };
            spec.mounts.push(Mount { target, kind });
        });
        assert_eq!(config["annotations"], json!({ "a": "b" }));
        let linux = &config["linux"];
        let rule = json!({ "allow": true, "type": "c", "major": 1, "access": "r" });
        assert_eq!(linux["resources"]["devices"][1], rule);
        assert_eq!(linux["sysctl"], json!({ "kernel.domainname": "x.test" }));
        assert_eq!(linux["rootfsPropagation"], "shared");
        let namespaces = json!([{ "type": "ipc" }, { "type": "uts" }, { "type": "mount" }]);
        assert_eq!(linux["namespaces"], namespaces);
        let mounts = config["mounts"].as_array().unwrap();
        assert!(!mounts.iter().any(|mount| mount["destination"] == "/dev/shm"));
    }

    #[test]
    fn an_insecure_program_has_no_limits() {
        let config = document(|spec| spec.security = Security::Insecure);
        assert_eq!(config["process"]["noNewPrivileges"], false);
        assert_eq!(config["linux"]["seccomp"], Value::Null);
        assert_eq!(config["linux"]["resources"]["devices"][0]["allow"], true);
        assert!(config["process"]["capabilities"]["ambient"].is_array());
    }
}

//! Devices of the host in a container: `--device` and `--device-cgroup-rule`.

#![expect(clippy::disallowed_methods, reason = "the user names the files")]

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kiln::container::Devices;
use kiln_sandbox::cgroup::{DeviceKind, DeviceRule};
use kiln_sandbox::{Mount, MountKind};

use super::container_path;

/// Parses the values of `--device` and `--device-cgroup-rule`.
pub(super) fn devices(devices: &[String], rules: &[String]) -> Result<Devices> {
    let mut all = Devices::default();
    for text in devices {
        let about = || format!("invalid --device {text:?}");
        let found = read(text).with_context(about)?;
        if found.iter().any(|(_, rule)| !(rule.read && rule.write)) {
            all.enforced.get_or_insert_with(|| format!("--device {text}"));
        }
        let (mounts, rules): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        all.mounts.extend(mounts);
        all.rules.extend(rules);
    }
    for text in rules {
        let rule = rule(text).with_context(|| {
            format!("invalid --device-cgroup-rule {text:?}: expected a kind, a number and permissions, as \"c 1:3 rwm\"")
        })?;
        all.enforced.get_or_insert_with(|| format!("--device-cgroup-rule {text:?}"));
        all.rules.push(rule);
    }
    Ok(all)
}

/// Returns the devices that `HOST[:CONTAINER[:PERMISSIONS]]` names.
fn read(text: &str) -> Result<Vec<(Mount, DeviceRule)>> {
    let is_mode = |text: &str| !text.is_empty() && text.bytes().all(|byte| b"rwm".contains(&byte));
    let parts: Vec<&str> = text.split(':').collect();
    let (host, target, mode) = match *parts.as_slice() {
        [host] => (host, host, "rwm"),
        [host, mode] if is_mode(mode) => (host, host, mode),
        [host, target] => (host, target, "rwm"),
        [host, target, mode] => (host, target, mode),
        _ => bail!("expected HOST[:CONTAINER[:rwm]]"),
    };
    if !is_mode(mode) {
        bail!("{mode:?} is no permission as rwm");
    }
    let (host, target) = (Path::new(host), container_path(target)?);
    let found = host.metadata().with_context(|| format!("look at {}", host.display()))?;
    let device = |path: PathBuf, target, found: &std::fs::Metadata| {
        (Mount { target, kind: MountKind::Device(path) }, rule_about(found, mode))
    };
    if !found.is_dir() {
        if !is_device(&found) {
            bail!("{} is no device", host.display());
        }
        return Ok(vec![device(host.to_owned(), target, &found)]);
    }
    let mut all = Vec::new();
    for entry in host.read_dir().with_context(|| format!("list {}", host.display()))? {
        let entry = entry?;
        let found = entry.metadata()?;
        if is_device(&found) {
            all.push(device(entry.path(), target.join(entry.file_name()), &found));
        }
    }
    if all.is_empty() {
        bail!("there is no device in {}", host.display());
    }
    Ok(all)
}

fn rule_about(found: &std::fs::Metadata, mode: &str) -> DeviceRule {
    use std::os::unix::fs::FileTypeExt;
    let is_block = found.file_type().is_block_device();
    DeviceRule {
        kind: if is_block { DeviceKind::Block } else { DeviceKind::Character },
        major: Some(rustix::fs::major(found.rdev())),
        minor: Some(rustix::fs::minor(found.rdev())),
        read: mode.contains('r'),
        write: mode.contains('w'),
        make: mode.contains('m'),
    }
}

fn is_device(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let kind = metadata.file_type();
    kind.is_char_device() || kind.is_block_device()
}

/// Parses a rule such as `c 1:3 rwm`.
fn rule(text: &str) -> Option<DeviceRule> {
    let words: Vec<&str> = text.split(' ').collect();
    let [kind, numbers, mode] = *words.as_slice() else { return None };
    let kind = match kind {
        "a" => DeviceKind::All,
        "b" => DeviceKind::Block,
        "c" => DeviceKind::Character,
        _ => return None,
    };
    let (major, minor) = numbers.split_once(':')?;
    let is_mode = (1..=3).contains(&mode.len()) && mode.bytes().all(|byte| b"rwm".contains(&byte));
    let (read, write, make) = (mode.contains('r'), mode.contains('w'), mode.contains('m'));
    let (major, minor) = (number(major)?, number(minor)?);
    is_mode.then_some(DeviceRule { kind, major, minor, read, write, make })
}

/// Parses a device number. `*` stands for all numbers.
#[expect(clippy::option_option, reason = "no number, and all numbers, are two things")]
fn number(text: &str) -> Option<Option<u32>> {
    if text == "*" { Some(None) } else { text.parse().ok().map(Some) }
}

#[cfg(test)]
mod tests {
    use kiln_sandbox::cgroup::Membership;

    use super::*;

    #[test]
    fn devices_are_named_and_listed() {
        let found = |text: &str| {
            let devices = super::devices(&[text.to_owned()], &[]).unwrap();
            let rules: Vec<String> = devices.rules.iter().map(ToString::to_string).collect();
            (devices.mounts, rules.join(", "), devices.enforced.is_some())
        };
        let mount = |path: &str, target: &str| Mount {
            target: target.into(),
            kind: MountKind::Device(path.into()),
        };
        let null = |target: &str| vec![mount("/dev/null", target)];
        let all = "c 1:3 rwm".to_owned();
        assert_eq!(found("/dev/null"), (null("/dev/null"), all.clone(), false));
        assert_eq!(found("/dev/null:rw"), (null("/dev/null"), "c 1:3 rw".to_owned(), false));
        assert_eq!(found("/dev/null:/dev/x:rwm"), (null("/dev/x"), all, false));
        assert_eq!(found("/dev/null:/x:r"), (null("/x"), "c 1:3 r".to_owned(), true));
        assert!(found("/dev:/x").0.contains(&mount("/dev/zero", "/x/zero")));
        for text in ["/no/such", "/etc/passwd", "/dev/null:x", "/dev/null:/x:q", "/dev/null:/x:"] {
            assert!(super::devices(&[text.to_owned()], &[]).is_err(), "{text}");
        }
    }

    #[test]
    fn rules_are_dockers() {
        for text in ["c 1:3 rwm", "b *:* r", "a 7:* wm"] {
            assert_eq!(rule(text).unwrap().to_string(), text);
        }
        for text in
            ["", "c 1:3", "d 1:3 r", "c 1 r", "c 1:3 x", "c 1:3 rwmr", "c  1:3 r", "c -1:3 r"]
        {
            let refused = super::devices(&[], &[text.to_owned()]);
            assert!(refused.is_err(), "{text}");
        }
        let devices = super::devices(&[], &["c 1:3 r".to_owned()]).unwrap();
        assert!(
            devices.check(&Membership { filters_devices: true, ..Membership::default() }).is_ok()
        );
        let problem = devices.check(&Membership::default()).unwrap_err().to_string();
        assert!(problem.starts_with("--device-cgroup-rule \"c 1:3 r\" can't be enforced: "));
        Devices::default().check(&Membership::default()).unwrap();
    }
}

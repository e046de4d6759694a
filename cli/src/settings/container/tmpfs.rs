//! tmpfs directories in a container: `--tmpfs`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kiln_sandbox::{AccessTimes, Mount, MountKind, TmpfsOptions};

use super::container_path;
use crate::settings::limits;

/// The default mode of a tmpfs: writable by all users, and sticky, like `/tmp`.
const MODE: u32 = 0o1777;

/// Parses `DST[:OPTIONS]`.
pub(super) fn parse(text: &str) -> Result<Mount> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let words = options.split(',').filter(|option| !option.is_empty());
    mount(container_path(target)?, words).with_context(|| format!("invalid --tmpfs {text:?}"))
}

/// Returns a mount with docker's default options `noexec,nosuid,nodev`. `words` override them in
/// order.
pub(super) fn mount<'a>(target: PathBuf, words: impl Iterator<Item = &'a str>) -> Result<Mount> {
    if target == Path::new("/") {
        bail!("nothing can be mounted over /");
    }
    let mut options = TmpfsOptions { noexec: true, ..TmpfsOptions::default() };
    let (mut size, mut mode) = (None, MODE);
    for word in words {
        match word.split_once('=') {
            Some(("size", value)) => size = size_limit(value)?,
            Some(("mode", value)) => match u32::from_str_radix(value, 8) {
                Ok(value) if value <= 0o7777 => mode = value,
                _ => bail!("{value:?} is no mode"),
            },
            Some(("uid", value)) => options.uid = number(value)?,
            Some(("gid", value)) => options.gid = number(value)?,
            Some(("nr_inodes", value)) => options.inodes = limits::size_limit(value)?,
            None => match word {
                "rw" => options.readonly = false,
                "ro" => options.readonly = true,
                "exec" => options.noexec = false,
                "noexec" => options.noexec = true,
                "suid" => options.suid = true,
                "nosuid" => options.suid = false,
                "noatime" => options.access_times = AccessTimes::Never,
                "strictatime" => options.access_times = AccessTimes::Always,
                "relatime" | "atime" | "norelatime" | "nostrictatime" => {
                    options.access_times = AccessTimes::Relative;
                }
                // These have no effect: a tmpfs has no delayed writes, and Linux no longer supports
                // mandatory locks.
                "nodev" | "defaults" | "async" | "sync" | "dirsync" | "nomand" | "diratime" => {}
                "dev" => bail!("devices can't be opened there: --device passes one on"),
                _ => bail!("the option {word:?} is not supported"),
            },
            Some(_) => bail!("the option {word:?} is not supported"),
        }
    }
    Ok(Mount { target, kind: MountKind::Tmpfs { size, mode, options } })
}

/// Parses a size in bytes, or a percentage of the machine's memory such as `50%`.
fn size_limit(text: &str) -> Result<Option<u64>> {
    let Some(percent) = text.strip_suffix('%') else { return limits::size_limit(text) };
    let percent = u64::from(number(percent)?);
    let system = rustix::system::sysinfo();
    let memory = system.totalram.saturating_mul(u64::from(system.mem_unit));
    Ok(Some(memory / 100 * percent).filter(|bytes| *bytes > 0))
}

fn number(text: &str) -> Result<u32> {
    text.parse().with_context(|| format!("{text:?} is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_dockers() {
        let kind = |text: &str| parse(text).unwrap().kind;
        let options = TmpfsOptions { noexec: true, ..TmpfsOptions::default() };
        let default = MountKind::Tmpfs { size: None, mode: 0o1777, options: options.clone() };
        assert_eq!(kind("/t"), default);
        assert_eq!(kind("/t:exec,noexec,suid,nosuid,nodev,ro,rw,defaults"), default);
        let options = TmpfsOptions { noexec: false, inodes: Some(2048), uid: 5, gid: 6, ..options };
        assert_eq!(
            kind("/t:rw,exec,size=1m,mode=700,uid=5,gid=6,nr_inodes=2k"),
            MountKind::Tmpfs { size: Some(1 << 20), mode: 0o700, options }
        );
        let never = |text: &str| match kind(text) {
            MountKind::Tmpfs { options, .. } => options.access_times,
            other => panic!("{other:?}"),
        };
        assert_eq!(never("/t:async,noatime"), AccessTimes::Never);
        assert_eq!(never("/t:noatime,relatime"), AccessTimes::Relative);
        assert!(matches!(kind("/t:size=10%"), MountKind::Tmpfs { size: Some(1..), .. }));
        for text in
            ["", "t", "/", "/t:dev", "/t:x", "/t:size=x", "/t:mode=9", "/t:uid=-1", "/t:a=b"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

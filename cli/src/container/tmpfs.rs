//! Directories in memory.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use kiln_worker::sandbox::{Mount, MountKind};

use super::container_path;
use crate::limits;

/// The mode of such a directory, as everybody expects of `/tmp`.
const MODE: u32 = 0o1777;

/// Returns the mount that `DST[:OPTIONS]` asks for.
pub(super) fn parse(text: &str) -> Result<Mount> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let target: PathBuf = container_path(target)?;
    if target == Path::new("/") {
        bail!("invalid tmpfs {text:?}: nothing can be mounted over /");
    }
    let (mut size, mut mode) = (None, MODE);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", value)) => {
                size = u64::try_from(limits::size(value)?).ok().filter(|size| *size > 0);
            }
            Some(("mode", value)) => match u32::from_str_radix(value, 8) {
                Ok(value) if value <= 0o7777 => mode = value,
                _ => bail!("invalid tmpfs {text:?}: {value:?} is no mode"),
            },
            // What it is anyway.
            None if matches!(option, "rw" | "nosuid" | "nodev" | "exec") => {}
            _ => bail!("invalid tmpfs {text:?}: the option {option:?} is not supported"),
        }
    }
    Ok(Mount { target, kind: MountKind::Tmpfs { size, mode } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_sizes_and_modes() {
        let kind = |text: &str| parse(text).unwrap().kind;
        assert_eq!(kind("/t"), MountKind::Tmpfs { size: None, mode: 0o1777 });
        assert_eq!(
            kind("/t:rw,size=1m,mode=700"),
            MountKind::Tmpfs { size: Some(1 << 20), mode: 0o700 }
        );
        for text in ["", "t", "/", "/t:noexec", "/t:size=x", "/t:mode=9", "/t:mode=17777"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

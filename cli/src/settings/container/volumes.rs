//! `-v`: volumes and directories of the host.

use anyhow::{Context, Result, bail};
use kiln::container::propagation;
use kiln::container::{Source, Volume};

use super::{container_path, mount_flag};

/// Parses the values of `-v` and `--mount`.
///
/// # Errors
/// Fails if a value is invalid. No volume is created then.
pub(super) fn asked(volumes: &[String], mounts: &[String]) -> Result<Vec<Volume>> {
    let volumes = volumes.iter().map(|text| parse(text));
    let mounts = mounts.iter().map(|text| mount_flag::parse(text));
    volumes.chain(mounts).collect()
}

fn parse(text: &str) -> Result<Volume> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match *parts.as_slice() {
        [target] => return Ok(Volume::anonymous(container_path(target)?)),
        [source, target] => (source, target, None),
        [source, target, options] => (source, target, Some(options)),
        _ => bail!("invalid volume {text:?}: expected SRC:DST[:ro]"),
    };
    if source.is_empty() {
        bail!("invalid volume {text:?}: no source");
    }
    let mut volume = Volume::anonymous(container_path(target)?);
    volume.source = if source.starts_with(['/', '.', '~']) {
        Source::Host { path: std::path::absolute(source)?, is_made: true }
    } else {
        Source::Named(name(source).with_context(|| format!("invalid volume {text:?}"))?)
    };
    if let Some(options) = options {
        set_all(&mut volume, options).with_context(|| format!("invalid volume {text:?}"))?;
    }
    Ok(volume)
}

/// Applies options. Each kind of option may occur once.
fn set_all(volume: &mut Volume, options: &str) -> Result<()> {
    let mut seen: Vec<Setting> = Vec::new();
    for option in options.split(',') {
        let setting = Setting::of(option)?;
        if seen.contains(&setting) {
            bail!("{option:?} and another option contradict or repeat each other");
        }
        set(volume, setting, option);
        seen.push(setting);
    }
    let is_host = matches!(volume.source, Source::Host { .. });
    match (seen.contains(&Setting::Copy), seen.contains(&Setting::Propagation)) {
        (true, _) if is_host => {
            bail!("nocopy is for volumes: nothing is copied into a directory of the host")
        }
        (_, true) if !is_host => bail!("only directories of the host have a propagation"),
        _ => Ok(()),
    }
}

fn set(volume: &mut Volume, setting: Setting, option: &str) {
    match setting {
        Setting::Write => volume.readonly = option != "rw",
        Setting::Copy => volume.is_empty = true,
        Setting::Propagation => {
            volume.propagation = propagation::read(option).unwrap_or_default();
        }
        // These have no effect: the container uses the host's files directly, and kiln sets no
        // SELinux labels.
        Setting::Consistency | Setting::Label => {}
    }
}

/// A kind of option.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Setting {
    Write,
    Copy,
    Consistency,
    Label,
    Propagation,
}

impl Setting {
    fn of(option: &str) -> Result<Self> {
        Ok(match option {
            "rw" | "ro" | "readonly" => Self::Write,
            "nocopy" => Self::Copy,
            "cached" | "delegated" | "consistent" | "default" => Self::Consistency,
            "z" | "Z" => Self::Label,
            other if propagation::read(other).is_some() => Self::Propagation,
            other => bail!("unknown option {other:?}"),
        })
    }
}

/// Checks the name of a volume.
pub(super) fn name(text: &str) -> Result<String> {
    let is_first = text.starts_with(|first: char| first.is_ascii_alphanumeric());
    if !is_first || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
        bail!("{text:?} is neither a path nor a volume's name");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use kiln_sandbox::Propagation;

    use super::*;

    fn host(path: &str) -> Source {
        Source::Host { path: path.into(), is_made: true }
    }

    #[test]
    fn volumes_are_told_apart() {
        let plain = Volume::anonymous("/d".into());
        assert_eq!(parse("/d").unwrap(), plain);
        let readonly = Volume { source: host("/h"), readonly: true, ..plain.clone() };
        assert_eq!(parse("/h:/d:ro").unwrap(), readonly);
        assert_eq!(parse("/h:/d:z,ro,rprivate,consistent").unwrap(), readonly);
        let named = Volume { source: Source::Named("n".to_owned()), ..plain };
        assert_eq!(parse("n:/d").unwrap(), named);
        assert_eq!(parse("n:/d:rw,Z").unwrap(), named);
        let empty = Volume { is_empty: true, ..named };
        assert_eq!(parse("n:/d:nocopy").unwrap(), empty);
        for text in ["", "d", "n:d", "/h:/d:xx", "a:b:c:d", ":/d", "a/b:/d", "..x:", "_a:/d"] {
            assert!(parse(text).is_err(), "{text}");
        }
        for options in
            ["", "ro,rw", "ro,ro", "z,Z", "cached,delegated", "shared,slave", "nocopy", ","]
        {
            assert!(parse(&format!("/h:/d:{options}")).is_err(), "{options}");
        }
        assert!(parse("n:/d:rshared").is_err());
    }

    #[test]
    fn directories_of_the_host_are_linked() {
        let linked = |mode: &str| parse(&format!("/h:/d:ro,{mode}")).unwrap().propagation;
        for (modes, expected) in [
            (["shared", "rshared"], Propagation::Shared),
            (["slave", "rslave"], Propagation::Slave),
            (["private", "rprivate"], Propagation::Private),
        ] {
            assert_eq!(modes.map(linked), [expected; 2]);
        }
    }
}

//! `--mount`: volumes, paths of the host and directories in memory, by keys.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::volumes::{Source, Volume, name, propagate};
use super::{container_path, tmpfs};
use crate::arguments::flags::truth;

/// What the keys say.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of its own")]
struct Keys<'a> {
    kind: Option<&'a str>,
    source: Option<&'a str>,
    target: Option<&'a str>,
    readonly: bool,
    is_empty: bool,
    is_flat: bool,
    is_made: bool,
    part: Option<&'a str>,
    /// Options of a directory in memory.
    memory: Vec<String>,
}

/// Returns what `type=…,src=…,dst=…` asks for.
pub(super) fn parse(text: &str) -> Result<Volume> {
    let read = || {
        let mut keys = Keys::default();
        for field in fields(text) {
            // What is quoted as a whole may hold a comma.
            keys.set(field).with_context(|| format!("field {field:?}"))?;
        }
        keys.volume()
    };
    read().with_context(|| format!("invalid --mount {text:?}"))
}

/// Splits comma-separated values, of which some are quoted.
fn fields(text: &str) -> Vec<&str> {
    let (mut is_quoted, mut start, mut fields) = (false, 0, Vec::new());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b',' if !is_quoted => {
                fields.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    fields.push(&text[start..]);
    fields.into_iter().map(unquoted).collect()
}

fn unquoted(field: &str) -> &str {
    field.strip_prefix('"').and_then(|field| field.strip_suffix('"')).unwrap_or(field)
}

impl<'a> Keys<'a> {
    fn set(&mut self, field: &'a str) -> Result<()> {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field, None),
        };
        let flag = || value.map_or(Ok(true), truth).map_err(anyhow::Error::msg);
        let text = || value.context("expected a value");
        match key.to_ascii_lowercase().as_str() {
            "type" => self.kind = Some(text()?),
            "source" | "src" => self.source = Some(text()?),
            "target" | "dst" | "destination" => self.target = Some(text()?),
            "readonly" | "ro" => self.readonly = flag()?,
            "consistency" => match text()? {
                "consistent" | "cached" | "delegated" | "default" => {}
                _ => bail!("expected consistent, cached or delegated"),
            },
            "bind-propagation" => propagate(text()?)?,
            "bind-nonrecursive" => self.is_flat = flag()?,
            "bind-recursive" => match text()? {
                "enabled" | "readonly" => {}
                "disabled" => self.is_flat = true,
                "writable" => {
                    bail!("what is read-only is read-only with all that is mounted below")
                }
                _ => bail!("expected enabled, disabled or readonly"),
            },
            "bind-create-src" => self.is_made = flag()?,
            "volume-nocopy" => self.is_empty = flag()?,
            "volume-subpath" => self.part = Some(text()?),
            "volume-driver" if matches!(value, Some("local" | "")) => {}
            "volume-driver" => bail!("volumes are directories of kiln's store"),
            "volume-opt" => bail!("volumes are directories of kiln's store, without options"),
            // Nobody lists volumes by their labels.
            "volume-label" => {}
            "tmpfs-size" => self.memory.push(format!("size={}", text()?)),
            "tmpfs-mode" => self.memory.push(format!("mode={}", text()?)),
            "tmpfs-options" => self.memory.extend(text()?.split(',').map(str::to_owned)),
            _ => bail!("unknown key {key:?}"),
        }
        Ok(())
    }

    fn volume(self) -> Result<Volume> {
        let kind = self.kind.unwrap_or("volume");
        let target = container_path(self.target.context("target is required")?)?;
        if !self.memory.is_empty() && kind != "tmpfs" {
            bail!("tmpfs options are for type=tmpfs alone");
        }
        let source = match (kind, self.source.filter(|source| !source.is_empty())) {
            ("bind", None) => bail!("source is required for type=bind"),
            ("bind", Some(path)) => {
                Source::Host { path: std::path::absolute(path)?, is_made: self.is_made }
            }
            ("volume", None) => Source::Anonymous,
            ("volume", Some(text)) => Source::Named(name(text)?),
            ("tmpfs", Some(_)) => bail!("source has no meaning for type=tmpfs"),
            ("tmpfs", None) => {
                let readonly = if self.readonly { "ro" } else { "rw" };
                let words = self.memory.iter().map(String::as_str).chain([readonly]);
                Source::Memory(tmpfs::mount(target.clone(), words)?.kind)
            }
            (other, _) => bail!("type={other} is none of bind, volume and tmpfs"),
        };
        Ok(Volume {
            target,
            source,
            readonly: self.readonly,
            recursive: !self.is_flat,
            is_empty: self.is_empty,
            part: self.part.map(PathBuf::from).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use kiln_worker::sandbox::{MountKind, TmpfsOptions};

    use super::*;

    #[test]
    fn keys_are_dockers() {
        let plain = Volume::anonymous("/d".into());
        assert_eq!(parse("dst=/d").unwrap(), plain);
        assert_eq!(parse("type=volume,target=/d,volume-driver=local").unwrap(), plain);
        let named = Volume { source: Source::Named("n".to_owned()), ..plain.clone() };
        assert_eq!(parse("src=n,destination=/d,readonly=false").unwrap(), named);
        let part = Volume { is_empty: true, part: "a/b".into(), ..named };
        assert_eq!(parse("source=n,dst=/d,volume-nocopy,volume-subpath=a/b").unwrap(), part);
        let source = |path: &str| Source::Host { path: path.into(), is_made: false };
        let bound = Volume { source: source("/h"), readonly: true, recursive: false, ..plain };
        let text = "type=bind,src=/h,dst=/d,ro,bind-recursive=disabled,bind-propagation=rprivate";
        assert_eq!(parse(text).unwrap(), bound);
        let bound = Volume { source: source("/h,x"), ..bound };
        let text = "type=bind,\"src=/h,x\",dst=/d,ro=1,bind-nonrecursive,consistency=cached";
        assert_eq!(parse(text).unwrap(), bound);
    }

    #[test]
    fn memory_has_options() {
        let options = TmpfsOptions { noexec: true, ..TmpfsOptions::default() };
        let kind = MountKind::Tmpfs { size: Some(1 << 20), mode: 0o700, options };
        let read = parse("type=tmpfs,dst=/d,tmpfs-size=1m,tmpfs-mode=0700").unwrap();
        assert_eq!(read.source, Source::Memory(kind));
    }

    #[test]
    fn what_can_not_be_is_refused() {
        for text in [
            "",
            "type=bind,dst=/d",
            "type=bind,src=/h",
            "type=npipe,src=/h,dst=/d",
            "type=tmpfs,src=/h,dst=/d",
            "type=volume,src=a/b,dst=/d",
            "dst=d",
            "dst=/d,tmpfs-size=1m",
            "dst=/d,readonly=maybe",
            "dst=/d,x=y",
            "dst=/d,volume-driver=nfs",
            "type=bind,src=/h,dst=/d,bind-propagation=rshared",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

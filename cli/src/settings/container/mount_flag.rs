//! `--mount`: volumes, host paths and tmpfs directories, as a list of keys.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use kiln::container::propagation;
use kiln::container::{Source, Volume};
use kiln_sandbox::Propagation;

use super::volumes::name;
use super::{container_path, tmpfs};
use crate::arguments::flags::truth;

/// The values of the keys.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of its own")]
struct Keys<'a> {
    kind: Option<String>,
    source: Option<&'a str>,
    target: Option<&'a str>,
    readonly: bool,
    is_empty: bool,
    is_flat: bool,
    is_made: bool,
    /// `true` for `bind-recursive=readonly`.
    is_readonly_below: bool,
    part: Option<&'a str>,
    propagation: Option<Propagation>,
    /// The keys that apply to one type of mount only.
    particular: Vec<&'a str>,
    /// The options of a tmpfs.
    memory: Vec<String>,
}

/// Parses `type=…,src=…,dst=…`.
pub(super) fn parse(text: &str) -> Result<Volume> {
    let read = || {
        if text.is_empty() {
            bail!("it is empty");
        }
        let mut keys = Keys::default();
        let fields = fields(text)?;
        for field in &fields {
            // A quoted field may contain a comma.
            keys.set(field).with_context(|| format!("field {field:?}"))?;
        }
        keys.volume()
    };
    read().with_context(|| format!("invalid --mount {text:?}"))
}

/// Splits comma-separated values. A quoted value may contain commas; a doubled quote stands for
/// one.
fn fields(text: &str) -> Result<Vec<String>> {
    let (mut fields, mut rest) = (Vec::new(), text);
    loop {
        let (field, behind) = if let Some(quoted) = rest.strip_prefix('"') {
            unquote(quoted)?
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            if rest[..end].contains('"') {
                bail!("a quote inside of a field: put the whole field in quotes");
            }
            (rest[..end].to_owned(), &rest[end..])
        };
        fields.push(field);
        match behind.strip_prefix(',') {
            Some(next) => rest = next,
            None if behind.is_empty() => return Ok(fields),
            None => bail!("{behind:?} follows a quote: expected a comma"),
        }
    }
}

/// Returns the text before the closing quote and the text after it.
fn unquote(text: &str) -> Result<(String, &str)> {
    let (mut field, mut rest) = (String::new(), text);
    loop {
        let (part, behind) = rest.split_once('"').context("a quote isn't closed")?;
        field.push_str(part);
        match behind.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => return Ok((field, behind)),
        }
    }
}

impl<'a> Keys<'a> {
    fn set(&mut self, field: &'a str) -> Result<()> {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field, None),
        };
        let flag = || value.map_or(Ok(true), truth).map_err(anyhow::Error::msg);
        let text = || value.context("expected a value");
        let lower = key.to_ascii_lowercase();
        if ["bind-", "volume-", "tmpfs-"].iter().any(|kind| lower.starts_with(kind)) {
            self.particular.push(key);
        }
        match lower.as_str() {
            "type" => self.kind = Some(text()?.to_ascii_lowercase()),
            "source" | "src" => self.source = Some(text()?),
            "target" | "dst" | "destination" => self.target = Some(text()?),
            "readonly" | "ro" => self.readonly = flag()?,
            "consistency" => match text()? {
                "consistent" | "cached" | "delegated" | "default" => {}
                _ => bail!("expected consistent, cached or delegated"),
            },
            "bind-propagation" => {
                let mode = propagation::read(text()?);
                self.propagation = Some(mode.context("expected a mode, as rprivate or rslave")?);
            }
            "bind-nonrecursive" => self.is_flat = flag()?,
            "bind-recursive" => self.set_recursive(text()?)?,
            "bind-create-src" => self.is_made = flag()?,
            "volume-nocopy" => self.is_empty = flag()?,
            "volume-subpath" => self.part = Some(text()?),
            "volume-driver" if matches!(value, Some("local" | "")) => {}
            "volume-driver" => bail!("volumes are directories of kiln's store"),
            "volume-opt" => bail!("volumes are directories of kiln's store, without options"),
            // kiln can't list volumes by label, so labels have no effect.
            "volume-label" => {}
            "tmpfs-size" => self.memory.push(format!("size={}", text()?)),
            "tmpfs-mode" => self.memory.push(format!("mode={}", text()?)),
            "tmpfs-options" => self.memory.extend(text()?.split(',').map(str::to_owned)),
            _ => bail!("unknown key {key:?}"),
        }
        Ok(())
    }

    fn set_recursive(&mut self, mode: &str) -> Result<()> {
        match mode {
            "enabled" => {}
            "readonly" => self.is_readonly_below = true,
            "disabled" => self.is_flat = true,
            "writable" => bail!("what is read-only is read-only with all that is mounted below"),
            _ => bail!("expected enabled, disabled or readonly"),
        }
        Ok(())
    }

    /// Rejects keys that belong to another type or contradict each other.
    fn check(&self, kind: &str) -> Result<()> {
        let is_other = |key: &&&str| !key.to_ascii_lowercase().starts_with(&format!("{kind}-"));
        if let Some(key) = self.particular.iter().find(is_other) {
            bail!("{key} has no meaning for type={kind}");
        }
        if self.is_readonly_below && !self.readonly {
            bail!("bind-recursive=readonly requires readonly");
        }
        if self.is_readonly_below && self.propagation != Some(Propagation::Private) {
            bail!("bind-recursive=readonly requires bind-propagation=rprivate");
        }
        Ok(())
    }

    fn volume(self) -> Result<Volume> {
        let kind = self.kind.as_deref().unwrap_or("volume");
        if !["bind", "volume", "tmpfs"].contains(&kind) {
            bail!("type={kind} is none of bind, volume and tmpfs");
        }
        let target = container_path(self.target.context("target is required")?)?;
        self.check(kind)?;
        let source = match (kind, self.source.filter(|source| !source.is_empty())) {
            ("bind", None) => bail!("source is required for type=bind"),
            ("bind", Some(path)) => {
                Source::Host { path: std::path::absolute(path)?, is_made: self.is_made }
            }
            ("volume", None) => Source::Anonymous,
            ("volume", Some(text)) => Source::Named(name(text)?),
            (_, Some(_)) => bail!("source has no meaning for type=tmpfs"),
            (_, None) => {
                let readonly = if self.readonly { "ro" } else { "rw" };
                let words = self.memory.iter().map(String::as_str).chain([readonly]);
                Source::Memory(tmpfs::mount(target.clone(), words)?.kind)
            }
        };
        Ok(Volume {
            target,
            source,
            readonly: self.readonly,
            recursive: !self.is_flat,
            is_empty: self.is_empty,
            part: self.part.map(PathBuf::from).unwrap_or_default(),
            propagation: self.propagation.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use kiln_sandbox::{MountKind, TmpfsOptions};

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
        let bound = Volume { source: source("/h,\"x"), ..bound };
        let text = "TYPE=Bind,\"src=/h,\"\"x\",dst=/d,ro=1,bind-nonrecursive,consistency=cached";
        assert_eq!(parse(text).unwrap(), bound);
        let text = "type=bind,src=/h,dst=/d,bind-propagation=rslave,bind-create-src";
        let made = Source::Host { path: "/h".into(), is_made: true };
        let linked = Volume {
            source: made,
            propagation: Propagation::Slave,
            ..Volume::anonymous("/d".into())
        };
        assert_eq!(parse(text).unwrap(), linked);
        let text = "type=bind,src=/h,dst=/d,ro,bind-recursive=readonly,bind-propagation=rprivate";
        assert!(parse(text).unwrap().readonly);
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
            "type=bind,src=/h,dst=/d,bind-propagation=x",
            "type=bind,src=/h,dst=/d,volume-nocopy",
            "type=volume,src=n,dst=/d,bind-propagation=rslave",
            "type=tmpfs,dst=/d,bind-nonrecursive",
            "type=bind,src=/h,dst=/d,bind-recursive=readonly",
            "type=bind,src=/h,dst=/d,ro,bind-recursive=readonly",
            "type=bind,src=/h\"x\",dst=/d",
            "type=bind,\"src=/h,dst=/d",
            "type=bind,\"src=/h\"x,dst=/d",
            "type=bind,src=/h,dst=/d,",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

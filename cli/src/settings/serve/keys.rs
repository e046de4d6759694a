//! The keys of a `buildkitd.toml`, which are taken out of it one by one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kiln_server::{Frontends, GcPolicy, Space};
use kiln_worker::CdiOptions;
use toml::{Table, Value};

use crate::settings::limits;

/// The keys that change nothing with these values.
const VAIN: [(&[&str], &str); 1] = [(&["worker", "oci", "enabled"], "true")];

/// The key whose zero value has a meaning that kiln doesn't know: it is always an OCI worker.
const WORKER: &str = "worker.oci.enabled";

/// The reasons why keys have no effect, by their paths or the beginnings of these.
const REASONS: [(&str, &str); 14] = [
    ("cache.gha", "kiln has no cache of this type"),
    ("ghacache", "kiln has no cache of this type"),
    ("grpc.debugAddress", "kiln has no profiles of Go"),
    ("grpc.securityDescriptor", "it is for Windows"),
    ("otel", "kiln gives steps no collector of traces"),
    ("proxyNetwork", "kiln has no proxy for steps"),
    ("worker.containerd", "kiln doesn't use containerd"),
    ("worker.oci.binary", "kiln runs programs itself"),
    ("worker.oci.bridge", "kiln's bridge has a name and a subnet of its own"),
    ("worker.oci.cni", "kiln has a bridge of its own"),
    ("worker.oci.networkMode", "kiln has a bridge of its own"),
    ("worker.oci.noProcessSandbox", "the isolation is an option of kiln: --isolation"),
    ("worker.oci.rootless", "kiln finds out what its user may do"),
    ("worker.oci.stargzSnapshotter", "kiln pulls whole layers"),
];

pub(super) fn positive(number: Option<u32>) -> Option<usize> {
    number.and_then(|number| usize::try_from(number).ok()).filter(|number| *number > 0)
}

/// The keys that have not been taken yet.
pub(super) struct Keys(pub(super) Table);

impl Keys {
    pub(super) fn flag(&mut self, path: &[&str]) -> Result<Option<bool>> {
        let Some(value) = take(&mut self.0, path) else { return Ok(None) };
        let flag = value.as_bool();
        Ok(Some(flag.with_context(|| format!("{} is neither true nor false", path.join(".")))?))
    }

    pub(super) fn text(&mut self, path: &[&str]) -> Result<Option<String>> {
        let Some(value) = take(&mut self.0, path) else { return Ok(None) };
        let text = value.as_str().map(str::to_owned);
        let text = text.with_context(|| format!("{} is no text", path.join(".")))?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    pub(super) fn texts(&mut self, path: &[&str]) -> Result<Vec<String>> {
        let Some(value) = take(&mut self.0, path) else { return Ok(Vec::new()) };
        let about = || format!("{} is no list of texts", path.join("."));
        let list = value.as_array().with_context(about)?;
        let text = |value: &Value| value.as_str().map(str::to_owned).with_context(about);
        list.iter().map(text).collect()
    }

    pub(super) fn number(&mut self, path: &[&str]) -> Result<Option<u32>> {
        let Some(value) = take(&mut self.0, path) else { return Ok(None) };
        let number = value.as_integer().and_then(|number| u32::try_from(number).ok());
        Ok(Some(number.with_context(|| format!("{} is no number", path.join(".")))?))
    }

    pub(super) fn labels(&mut self, path: &[&str]) -> Result<BTreeMap<String, String>> {
        let Some(value) = take(&mut self.0, path) else { return Ok(BTreeMap::new()) };
        let about = || format!("{} is no table of texts", path.join("."));
        let table = value.as_table().with_context(about)?;
        let label = |(name, value): (&String, &Value)| {
            Ok((name.clone(), value.as_str().with_context(about)?.to_owned()))
        };
        table.iter().map(label).collect()
    }

    /// Takes the part about devices. Without one, the directories are the usual ones.
    pub(super) fn devices(&mut self) -> Result<CdiOptions> {
        let auto_allowed = self.texts(&["cdi", "autoAllowed"])?;
        let mut options = CdiOptions { auto_allowed, ..CdiOptions::default() };
        let directories = self.texts(&["cdi", "specDirs"])?;
        if !directories.is_empty() {
            options.directories = directories.into_iter().map(PathBuf::from).collect();
        }
        if self.flag(&["cdi", "disabled"])? == Some(true) {
            options.directories.clear();
        }
        Ok(options)
    }

    /// Takes which frontends are off, and the repositories of images that may run.
    pub(super) fn frontends(&mut self) -> Result<Frontends> {
        let mut frontends = Frontends::default();
        for name in ["dockerfile.v0", "gateway.v0"] {
            if self.flag(&["frontend", name, "enabled"])? == Some(false) {
                frontends.disabled.push(name.to_owned());
            }
        }
        for name in self.texts(&["frontend", "gateway.v0", "allowedRepositories"])? {
            let reference = name.parse().with_context(|| format!("repository {name:?}"))?;
            frontends.repositories.push(reference);
        }
        Ok(frontends)
    }

    pub(super) fn duration(&mut self, path: &[&str]) -> Result<Option<Duration>> {
        let Some(value) = take(&mut self.0, path) else { return Ok(None) };
        duration(&value).with_context(|| path.join("."))
    }

    /// Gives a value back, so that a warning names its key.
    pub(super) fn put_back(&mut self, path: &[&str], value: impl Into<Value>) {
        put_back(&mut self.0, path, value.into());
    }

    /// Takes a part of the document, as a document of its own.
    pub(super) fn part(&mut self, name: &str) -> Option<String> {
        let part = take(&mut self.0, &[name])?;
        Some(Table::from_iter([(name.to_owned(), part)]).to_string())
    }

    fn space(&mut self, path: &[&str]) -> Result<Option<Space>> {
        let Some(value) = take(&mut self.0, path) else { return Ok(None) };
        space(&value).with_context(|| path.join("."))
    }

    /// Takes the limits of a rule, in the names of today and of old.
    pub(super) fn limits(&mut self, above: &[&str]) -> Result<GcPolicy> {
        let path = |name| [above, &[name]].concat();
        let old = self.space(&path("gckeepstorage"))?.or(self.space(&path("keepBytes"))?);
        Ok(GcPolicy {
            reserved: self.space(&path("reservedSpace"))?.or(old),
            max_used: self.space(&path("maxUsedSpace"))?,
            min_free: self.space(&path("minFreeSpace"))?,
            ..GcPolicy::default()
        })
    }

    pub(super) fn rules(&mut self, path: &[&str]) -> Result<Vec<GcPolicy>> {
        let Some(value) = take(&mut self.0, path) else { return Ok(Vec::new()) };
        let about = || format!("{} is no list of tables", path.join("."));
        let mut rules = Vec::new();
        let mut rest = Vec::new();
        for value in value.as_array().with_context(about)? {
            let mut keys = Keys(value.as_table().with_context(about)?.clone());
            let policy = GcPolicy {
                all: keys.flag(&["all"])?.unwrap_or_default(),
                filters: keys.texts(&["filters"])?,
                keep: keys.duration(&["keepDuration"])?.unwrap_or_default(),
                ..keys.limits(&[])?
            };
            rules.push(policy);
            rest.extend((!keys.0.is_empty()).then_some(Value::Table(keys.0)));
        }
        // The keys without a meaning stay for the warnings.
        for value in rest {
            let Value::Table(table) = value else { continue };
            for (name, value) in table {
                self.0.insert(format!("{}.{name}", path.join(".")), value);
            }
        }
        Ok(rules)
    }

    /// Returns a warning for each key that hasn't been taken and that would change something.
    pub(super) fn warnings(mut self) -> Vec<String> {
        for (path, vain) in VAIN {
            let Some(value) = take(&mut self.0, path) else { continue };
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if text != vain {
                put_back(&mut self.0, path, value);
            }
        }
        let mut names = Vec::new();
        leaves(&self.0, "", &mut names);
        names.sort_unstable();
        let warning = |name: String| {
            let reason = REASONS.iter().find(|(path, _)| starts_with(&name, path));
            let reason = reason.map(|(_, reason)| format!(": {reason}")).unwrap_or_default();
            format!("{name} in the configuration has no effect on kiln{reason}")
        };
        names.into_iter().map(warning).collect()
    }
}

/// Removes a value. Names have no case, as in BuildKit.
fn take(table: &mut Table, path: &[&str]) -> Option<Value> {
    let (first, rest) = path.split_first()?;
    let name = table.keys().find(|name| name.eq_ignore_ascii_case(first))?.clone();
    if rest.is_empty() {
        return table.remove(&name);
    }
    take(table.get_mut(&name)?.as_table_mut()?, rest)
}

fn put_back(table: &mut Table, path: &[&str], value: Value) {
    let Some((first, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        table.insert((*first).to_owned(), value);
        return;
    }
    let name = table.keys().find(|name| name.eq_ignore_ascii_case(first)).cloned();
    if let Some(Value::Table(below)) = name.and_then(|name| table.get_mut(&name)) {
        put_back(below, rest, value);
    }
}

/// Compares the beginning of a path. Names have no case.
fn starts_with(path: &str, beginning: &str) -> bool {
    path.get(..beginning.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(beginning))
}

/// Returns `true` for the value that a key has if it is missing.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Integer(number) => *number == 0,
        Value::Boolean(flag) => !flag,
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// Collects the paths of all values that would change something.
fn leaves(table: &Table, above: &str, names: &mut Vec<String>) {
    for (name, value) in table {
        let name = if name.contains('.') && !above.is_empty() {
            format!("{name:?}")
        } else {
            name.clone()
        };
        let path = if above.is_empty() { name } else { format!("{above}.{name}") };
        match value {
            Value::Table(table) => leaves(table, &path, names),
            value if is_zero(value) && !path.eq_ignore_ascii_case(WORKER) => {}
            _ => names.push(path),
        }
    }
}

/// Parses a duration in Go's format, or a number of seconds.
fn duration(value: &Value) -> Result<Option<Duration>> {
    let text = match value {
        Value::Integer(seconds) => format!("{seconds}s"),
        Value::String(text) if text.is_empty() => return Ok(None),
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => format!("{text}s"),
        Value::String(text) => text.clone(),
        _ => bail!("it is no duration"),
    };
    let nanoseconds = kiln_frontend::parser::duration::parse(&text).map_err(anyhow::Error::msg)?;
    let nanoseconds = u64::try_from(nanoseconds).context("it is negative")?;
    Ok(Some(Duration::from_nanos(nanoseconds)))
}

/// Parses a size, or a percentage of the file system.
fn space(value: &Value) -> Result<Option<Space>> {
    let text = match value {
        Value::Integer(bytes) => bytes.to_string(),
        Value::String(text) => text.clone(),
        _ => bail!("it is no size"),
    };
    if let Some(percent) = text.strip_suffix('%') {
        let percent = percent.parse().ok().filter(|percent: &u64| *percent <= 100);
        return Ok(Some(Space::Percent(percent.context("it is no percentage")?)));
    }
    if text.is_empty() {
        return Ok(None);
    }
    Ok(limits::size_limit(&text)?.map(Space::Bytes))
}

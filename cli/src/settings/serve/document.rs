//! A `buildkitd.toml`.
//!
//! Each key with a meaning is taken out of the document. Keys that stay are named in warnings, by
//! their whole paths. BuildKit ignores unknown keys, so they are no errors.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kiln::Dns;
use kiln_server::{Frontends, GcPolicy, Space};
use kiln_worker::CdiOptions;
use toml::{Table, Value};

use crate::settings::limits;

/// The part of a `buildkitd.toml` that has a meaning here.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) root: Option<PathBuf>,
    /// `true` if the document asks for a log of kiln's actions.
    pub(super) debug: bool,
    pub(super) addresses: Vec<String>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) authority: Option<PathBuf>,
    pub(super) entitlements: Vec<String>,
    /// The part about registries, as a document of its own.
    pub(super) registries: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) has_gc: Option<bool>,
    /// The limits of the default rules.
    pub(super) limits: GcPolicy,
    pub(super) rules: Vec<GcPolicy>,
    pub(super) parallelism: Option<usize>,
    pub(super) builds: Option<usize>,
    pub(super) dns: Dns,
    pub(super) cdi: CdiOptions,
    pub(super) frontends: Frontends,
    pub(super) history_age: Option<Duration>,
    pub(super) history_entries: Option<usize>,
    pub(super) warnings: Vec<String>,
}

/// The keys that change nothing with these values.
const VAIN: [(&[&str], &str); 7] = [
    (&["trace"], "false"),
    (&["log", "format"], "text"),
    (&["worker", "oci", "enabled"], "true"),
    (&["worker", "oci", "snapshotter"], "auto"),
    (&["worker", "oci", "networkMode"], "auto"),
    (&["worker", "oci", "networkMode"], "bridge"),
    (&["worker", "containerd", "enabled"], "false"),
];

impl Document {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut keys = Keys(text.parse()?);
        let limits = keys.limits(&["worker", "oci"])?;
        let registries = take(&mut keys.0, &["registry"])
            .map(|registries| Table::from_iter([("registry".to_owned(), registries)]).to_string());
        let log_level = keys.text(&["log", "level"])?;
        let is_loud = matches!(log_level.as_deref(), Some("debug" | "trace"));
        let document = Self {
            root: keys.text(&["root"])?.map(PathBuf::from),
            debug: keys.flag(&["debug"])?.unwrap_or_default() || is_loud,
            addresses: keys.texts(&["grpc", "address"])?,
            uid: keys.number(&["grpc", "uid"])?,
            gid: keys.number(&["grpc", "gid"])?,
            certificate: keys.text(&["grpc", "tls", "cert"])?.map(PathBuf::from),
            key: keys.text(&["grpc", "tls", "key"])?.map(PathBuf::from),
            authority: keys.text(&["grpc", "tls", "ca"])?.map(PathBuf::from),
            entitlements: keys.texts(&["insecure-entitlements"])?,
            registries,
            labels: keys.labels(&["worker", "oci", "labels"])?,
            has_gc: keys.flag(&["worker", "oci", "gc"])?,
            limits,
            rules: keys.rules(&["worker", "oci", "gcpolicy"])?,
            parallelism: positive(keys.number(&["worker", "oci", "max-parallelism"])?),
            builds: positive(keys.number(&["kiln", "max-builds"])?),
            dns: Dns {
                servers: keys.texts(&["dns", "nameservers"])?,
                options: keys.texts(&["dns", "options"])?,
                domains: keys.texts(&["dns", "searchDomains"])?,
            },
            cdi: keys.devices()?,
            frontends: keys.frontends()?,
            history_age: keys.duration(&["history", "maxAge"])?,
            history_entries: positive(keys.number(&["history", "maxEntries"])?),
            warnings: Vec::new(),
        };
        Ok(Self { warnings: keys.warnings(), ..document })
    }
}

fn positive(number: Option<u32>) -> Option<usize> {
    number.and_then(|number| usize::try_from(number).ok()).filter(|number| *number > 0)
}

/// The keys that have not been taken yet.
struct Keys(Table);

impl Keys {
    fn flag(&mut self, path: &[&str]) -> Result<Option<bool>> {
        let Some(value) = take(&mut self.0, path) else { return Ok(None) };
        let flag = value.as_bool();
        Ok(Some(flag.with_context(|| format!("{} is neither true nor false", path.join(".")))?))
    }

    fn text(&mut self, path: &[&str]) -> Result<Option<String>> {
        let Some(value) = take(&mut self.0, path) else { return Ok(None) };
        let text = value.as_str().map(str::to_owned);
        let text = text.with_context(|| format!("{} is no text", path.join(".")))?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    fn texts(&mut self, path: &[&str]) -> Result<Vec<String>> {
        let Some(value) = take(&mut self.0, path) else { return Ok(Vec::new()) };
        let about = || format!("{} is no list of texts", path.join("."));
        let list = value.as_array().with_context(about)?;
        let text = |value: &Value| value.as_str().map(str::to_owned).with_context(about);
        list.iter().map(text).collect()
    }

    fn number(&mut self, path: &[&str]) -> Result<Option<u32>> {
        let Some(value) = take(&mut self.0, path) else { return Ok(None) };
        let number = value.as_integer().and_then(|number| u32::try_from(number).ok());
        Ok(Some(number.with_context(|| format!("{} is no number", path.join(".")))?))
    }

    fn labels(&mut self, path: &[&str]) -> Result<BTreeMap<String, String>> {
        let Some(value) = take(&mut self.0, path) else { return Ok(BTreeMap::new()) };
        let about = || format!("{} is no table of texts", path.join("."));
        let table = value.as_table().with_context(about)?;
        let label = |(name, value): (&String, &Value)| {
            Ok((name.clone(), value.as_str().with_context(about)?.to_owned()))
        };
        table.iter().map(label).collect()
    }

    /// Takes the part about devices. Without one, the directories are the usual ones.
    fn devices(&mut self) -> Result<CdiOptions> {
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
    fn frontends(&mut self) -> Result<Frontends> {
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

    fn duration(&mut self, path: &[&str]) -> Result<Option<Duration>> {
        let Some(value) = take(&mut self.0, path) else { return Ok(None) };
        duration(&value).with_context(|| path.join("."))
    }

    fn space(&mut self, path: &[&str]) -> Result<Option<Space>> {
        let Some(value) = take(&mut self.0, path) else { return Ok(None) };
        space(&value).with_context(|| path.join("."))
    }

    /// Takes the limits of a rule, in the names of today and of old.
    fn limits(&mut self, above: &[&str]) -> Result<GcPolicy> {
        let path = |name| [above, &[name]].concat();
        let old = self.space(&path("gckeepstorage"))?.or(self.space(&path("keepBytes"))?);
        Ok(GcPolicy {
            reserved: self.space(&path("reservedSpace"))?.or(old),
            max_used: self.space(&path("maxUsedSpace"))?,
            min_free: self.space(&path("minFreeSpace"))?,
            ..GcPolicy::default()
        })
    }

    fn rules(&mut self, path: &[&str]) -> Result<Vec<GcPolicy>> {
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

    /// Returns a warning for each key that hasn't been taken and isn't vain.
    fn warnings(mut self) -> Vec<String> {
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
        let warning = |name| format!("{name} in the configuration has no effect on kiln");
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

/// Collects the paths of all values that aren't tables.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buildkits_configuration_is_read() {
        let document = Document::parse(
            "root = \"/r\"\ndebug = true\ninsecure-entitlements = [\"security.insecure\"]\n\
             [grpc]\naddress = [\"unix:///a\"]\nuid = 1\ngid = 2\n[grpc.tls]\ncert = \"/c\"\n\
             [registry.\"docker.io\"]\nmirrors = [\"m:5000\"]\n\
             [worker.oci]\nenabled = true\nmax-parallelism = 4\nreservedSpace = \"10%\"\n\
             maxUsedSpace = \"5GB\"\n[worker.oci.labels]\na = \"b\"\n\
             [[worker.oci.gcpolicy]]\nfilters = [\"type==regular\"]\nkeepDuration = \"48h\"\n\
             keepBytes = 512\n[dns]\nnameservers = [\"1.1.1.1\"]\n\
             [history]\nmaxAge = 172800\nmaxEntries = 7\n",
        );
        let document = document.unwrap();
        assert_eq!(document.warnings, Vec::<String>::new());
        assert_eq!(document.entitlements, ["security.insecure"]);
        assert_eq!(
            (document.addresses.as_slice(), document.debug),
            (&["unix:///a".to_owned()][..], true)
        );
        let registries: Table = document.registries.unwrap().parse().unwrap();
        assert_eq!(registries["registry"]["docker.io"]["mirrors"][0].as_str(), Some("m:5000"));
        assert_eq!((document.uid, document.gid, document.parallelism), (Some(1), Some(2), Some(4)));
        assert_eq!(document.limits.reserved, Some(Space::Percent(10)));
        assert_eq!(document.limits.max_used, Some(Space::Bytes(5 << 30)));
        assert_eq!(document.rules[0].keep, Duration::from_hours(48));
        assert_eq!(document.rules[0].reserved, Some(Space::Bytes(512)));
        assert_eq!(document.history_age, Some(Duration::from_hours(48)));
        assert_eq!(document.history_entries, Some(7));
        assert_eq!(document.dns.servers, ["1.1.1.1"]);
    }

    #[test]
    fn devices_and_frontends_are_restricted() {
        let read = |text: &str| Document::parse(text).unwrap();
        assert_eq!(read("").cdi, CdiOptions::default());
        let some = read("[cdi]\nspecDirs = [\"/a\"]\nautoAllowed = [\"b.com/c\"]").cdi;
        assert_eq!(some.directories, [PathBuf::from("/a")]);
        assert_eq!(some.auto_allowed, ["b.com/c"]);
        assert!(read("[cdi]\ndisabled = true").cdi.directories.is_empty());
        let frontends = read(
            "[frontend.\"dockerfile.v0\"]\nenabled = false\n\
             [frontend.\"gateway.v0\"]\nenabled = true\nallowedRepositories = [\"docker.io/a/b\"]",
        )
        .frontends;
        assert_eq!(frontends.disabled, ["dockerfile.v0"]);
        assert_eq!(frontends.repositories.len(), 1);
        for text in ["[cdi]\nspecDirs = 1", "[frontend.\"gateway.v0\"]\nenabled = 1"] {
            assert!(Document::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn keys_without_a_meaning_are_named_by_their_paths() {
        let document = Document::parse(
            "trace = true\n[grpc]\ndebugAddress = \"x\"\n[worker.containerd]\nenabled = false\n\
             namespace = \"n\"\n[[worker.oci.gcpolicy]]\ncolour = 1\n\
             [frontend.\"gateway.v0\"]\ncolour = 1\n",
        );
        let named = document.unwrap().warnings.into_iter();
        let named: Vec<_> = named.map(|text| text.split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(
            named,
            [
                "frontend.\"gateway.v0\".colour",
                "grpc.debugAddress",
                "trace",
                "worker.containerd.namespace",
                "worker.oci.gcpolicy.colour",
            ]
        );
        for text in ["insecure-entitlements = 1", "[worker.oci]\nreservedSpace = \"x%\"", "root"] {
            assert!(Document::parse(text).is_err(), "{text}");
        }
    }
}

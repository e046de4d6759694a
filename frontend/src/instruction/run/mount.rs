//! The values of `RUN --mount`.

use std::fmt;

use super::Expand;
use crate::error::Error;
use crate::instruction::{csv, size};
use crate::suggest::{Case, suggest};
use kiln_oci::text::parse_bool;

use crate::text::{parse_u32, quote, to_lower};

/// The options, in the order in which error messages suggest them.
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// The type of a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountKind {
    /// A path of the context, a stage or an image.
    #[default]
    Bind,
    /// A directory that is kept from one build to the next.
    Cache,
    /// A file system in memory.
    Tmpfs,
    /// A secret, as a file or an environment variable.
    Secret,
    /// The socket of an SSH agent.
    Ssh,
}

impl MountKind {
    const ALL: [Self; 5] = [Self::Bind, Self::Cache, Self::Tmpfs, Self::Secret, Self::Ssh];

    /// Returns the type's name, as `bind`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
}

impl fmt::Display for MountKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The way in which steps share a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// All steps use the cache at the same time.
    Shared,
    /// A step gets a cache of its own while another step uses this one.
    Private,
    /// A step waits until no other step uses the cache.
    Locked,
}

impl Sharing {
    const ALL: [Self; 3] = [Self::Shared, Self::Private, Self::Locked];

    /// Returns the mode's name, as `shared`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Private => "private",
            Self::Locked => "locked",
        }
    }
}

/// A mount of a `RUN` step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// The type of the mount (`type`).
    pub kind: MountKind,
    /// The stage, image or named context of a bind or a cache; empty for the context.
    pub from: String,
    /// The path within the source.
    pub source: String,
    /// The mount point in the container.
    pub target: String,
    /// `true` if the mount is read-only.
    pub read_only: bool,
    /// The maximal size of a tmpfs in bytes; zero for no limit.
    pub size_limit: i64,
    /// The `id` option: the name of a cache, a secret or an agent.
    pub cache_id: String,
    /// The sharing mode of a cache, if it is given.
    pub sharing: Option<Sharing>,
    /// `true` if the step fails without the secret or agent.
    pub required: bool,
    /// The environment variable that holds a secret. If it is empty, the secret's ID is the name.
    pub env: Option<String>,
    /// The permission bits of a secret, a socket or a new cache.
    pub mode: Option<u32>,
    /// The user ID of the owner of a secret, a socket or a new cache.
    pub uid: Option<u32>,
    /// The group ID of a secret, a socket or a new cache.
    pub gid: Option<u32>,
}

/// A mount while its options are being parsed.
#[derive(Default)]
struct Reading {
    mount: Mount,
    /// `true` if an option for read-only or writable access was given.
    access_is_given: bool,
}

impl Mount {
    /// Parses the value of the flag; see [`super::parse_run_flags`] for `expand`.
    pub(super) fn parse(value: &str, mut expand: Option<&mut Expand<'_>>) -> Result<Self, Error> {
        let fields = csv::fields(value)
            .map_err(|error| Error::new(format!("failed to parse csv mounts: {error}")))?;
        let mut reading = Reading::default();
        for field in &fields {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (to_lower(key), Some(value)),
                None => (to_lower(field), None),
            };
            match (value, expand.as_deref_mut()) {
                (None, Some(_)) => reading.set_word(&key, field).map_err(Error::new)?,
                (Some(value), Some(expand)) => {
                    let value = expand(value)?;
                    reading.set(&key, value, field).map_err(Error::new)?;
                }
                (Some(value), None) if key == "from" => {
                    // A `$` at the very end is literal.
                    if value.find('$').is_some_and(|at| at + 1 != value.len()) {
                        return Err(Error::new(format!(
                            "'{key}' doesn't support variable expansion, define alias stage instead"
                        )));
                    }
                    value.clone_into(&mut reading.mount.from);
                }
                // This option is read in the pass with an expander.
                (_, None) => {}
            }
        }
        let Reading { mut mount, access_is_given } = reading;
        mount.check_owner().map_err(Error::new)?;
        if !access_is_given {
            mount.read_only = !matches!(mount.kind, MountKind::Cache | MountKind::Tmpfs);
        }
        mount.check_kind().map_err(Error::new)?;
        Ok(mount)
    }

    fn check_owner(&self) -> Result<(), String> {
        if !matches!(self.kind, MountKind::Bind | MountKind::Tmpfs) {
            return Ok(());
        }
        let given = [
            ("mode", self.mode.is_some()),
            ("uid", self.uid.is_some()),
            ("gid", self.gid.is_some()),
        ];
        match given.iter().find(|(_, is_given)| *is_given) {
            Some((name, _)) => {
                Err(format!("{name} not allowed for {} type mounts", quote(self.kind.name())))
            }
            None => Ok(()),
        }
    }

    fn check_kind(&self) -> Result<(), String> {
        if self.kind == MountKind::Secret {
            if !self.from.is_empty() {
                return Err("secret mount should not have a from".into());
            }
            if self.sharing.is_some() {
                return Err("secret mount should not define sharing".into());
            }
            if self.source.is_empty() && self.target.is_empty() && self.cache_id.is_empty() {
                return Err("invalid secret mount. one of source, target required".into());
            }
            if !self.source.is_empty() && !self.cache_id.is_empty() {
                return Err("both source and id can't be set".into());
            }
        }
        if self.sharing.is_some() && self.kind != MountKind::Cache {
            return Err(format!("invalid cache sharing set for {} mount", self.kind));
        }
        Ok(())
    }
}

impl Reading {
    /// Sets an option without a value.
    fn set_word(&mut self, key: &str, field: &str) -> Result<(), String> {
        match key {
            "readonly" | "ro" => self.set_read_only(true),
            "readwrite" | "rw" => self.set_read_only(false),
            "required" => {
                self.only_for(&[MountKind::Secret, MountKind::Ssh], key)?;
                self.mount.required = true;
            }
            _ => return Err(format!("invalid field '{field}' must be a key=value pair")),
        }
        Ok(())
    }

    fn set_read_only(&mut self, read_only: bool) {
        self.mount.read_only = read_only;
        self.access_is_given = true;
    }

    /// Fails if the option `key` doesn't apply to the type, which must be given before it.
    fn only_for(&self, kinds: &[MountKind], key: &str) -> Result<(), String> {
        if kinds.contains(&self.mount.kind) {
            return Ok(());
        }
        Err(format!("unexpected key '{key}' for mount type '{}'", self.mount.kind))
    }

    /// Sets an option to a value whose variables are expanded.
    fn set(&mut self, key: &str, value: String, field: &str) -> Result<(), String> {
        let truth =
            || parse_bool(&value).ok_or_else(|| format!("invalid value for {key}: {value}"));
        let number = |radix| {
            parse_u32(&value, radix).ok_or_else(|| format!("invalid value {value} for {key}"))
        };
        match key {
            "type" => self.mount.kind = kind(&value)?,
            "from" => self.mount.from = value,
            "source" | "src" => self.mount.source = value,
            "target" | "dst" | "destination" => self.mount.target = value,
            "readonly" | "ro" => self.set_read_only(truth()?),
            "readwrite" | "rw" => self.set_read_only(!truth()?),
            "required" => {
                self.only_for(&[MountKind::Secret, MountKind::Ssh], key)?;
                self.mount.required = truth()?;
            }
            "size" => {
                self.only_for(&[MountKind::Tmpfs], key)?;
                self.mount.size_limit = size::parse(&value)
                    .ok_or_else(|| format!("invalid value for {key}: {value}"))?;
            }
            "id" => self.mount.cache_id = value,
            "sharing" => self.mount.sharing = Some(sharing(&value)?),
            "mode" => self.mount.mode = Some(number(8)?),
            "uid" => self.mount.uid = Some(number(10)?),
            "gid" => self.mount.gid = Some(number(10)?),
            "env" => self.mount.env = Some(value),
            _ => {
                let message = format!("unexpected key '{key}' in '{field}'");
                return Err(suggest(message, key, KEYS, Case::Sensitive));
            }
        }
        Ok(())
    }
}

fn kind(value: &str) -> Result<MountKind, String> {
    let name = to_lower(value);
    MountKind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
        let message = format!("unsupported mount type {}", quote(value));
        suggest(message, value, MountKind::ALL.map(MountKind::name), Case::Sensitive)
    })
}

fn sharing(value: &str) -> Result<Sharing, String> {
    let name = to_lower(value);
    Sharing::ALL.into_iter().find(|sharing| sharing.name() == name).ok_or_else(|| {
        let message = format!("unsupported sharing value {}", quote(value));
        suggest(message, value, Sharing::ALL.map(Sharing::name), Case::Sensitive)
    })
}

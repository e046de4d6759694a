//! What a build was asked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kiln_exporter::Output;
use kiln_frontend::ProcessLimits;
use kiln_oci::{Platform, Reference};
use kiln_worker::{Allowed, SecretSource};

use super::{output, ssh};
use crate::commands::build::{BuildArguments, Network, Right};
use crate::limits;

/// The name by which a graph refers to the main context.
pub(super) const CONTEXT_NAME: &str = "context";

/// What a build was asked for.
#[derive(Debug)]
pub(crate) struct BuildRequest {
    /// Where the main context is.
    pub(super) context: ContextPlace,
    /// Most bytes of an archive on standard input, and of a file from a URL; `None` for no limit.
    pub(super) input_limit: Option<u64>,
    /// Where the Dockerfile is.
    pub(super) dockerfile: DockerfilePlace,
    /// The stage to build.
    pub(super) target: Option<String>,
    /// Build arguments.
    pub(super) build_args: BTreeMap<String, String>,
    /// Labels.
    pub(super) labels: BTreeMap<String, String>,
    /// Named contexts that are directories, by the name of their local source.
    pub(super) directories: BTreeMap<String, PathBuf>,
    /// Directories of OCI layouts.
    pub(super) layouts: BTreeMap<String, PathBuf>,
    /// Named contexts as the frontend takes them.
    pub(super) named_contexts: BTreeMap<String, String>,
    /// Whether a context is a repository that is reached by SSH.
    pub(super) uses_ssh: bool,
    /// The platform to build for.
    pub(super) platform: Platform,
    /// The network of steps that name none.
    pub(super) network: Network,
    /// What steps may do beyond the sandbox.
    pub(super) allowed: Allowed,
    /// More hosts: name and address.
    pub(super) hosts: Vec<(String, String)>,
    /// What steps may use.
    pub(super) limits: ProcessLimits,
    /// Secrets by ID.
    pub(super) secrets: BTreeMap<String, SecretSource>,
    /// The sockets of SSH agents that are lent to the build, by ID.
    pub(super) agents: BTreeMap<String, PathBuf>,
    /// Stages whose steps run in any case; all where it is empty.
    pub(super) no_cache: Option<Vec<String>>,
    /// Where the image goes.
    pub(super) outputs: Vec<Output>,
}

/// Where the main context is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ContextPlace {
    /// A directory.
    Directory(PathBuf),
    /// An archive on standard input, or no context but a Dockerfile there.
    StandardInput,
    /// A repository or a file behind a URL.
    Remote(String),
}

/// Where a Dockerfile is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DockerfilePlace {
    /// In the context, under its usual name.
    Context,
    /// At a path that the user has given.
    Path(PathBuf),
    /// On standard input.
    StandardInput,
}

impl BuildRequest {
    /// Makes out what was asked for.
    pub(crate) fn resolve(arguments: BuildArguments) -> Result<Self> {
        let context = context_place(&arguments.context)?;
        let dockerfile = match arguments.file {
            None => DockerfilePlace::Context,
            Some(path) if path.as_os_str() == "-" => DockerfilePlace::StandardInput,
            Some(path) => DockerfilePlace::Path(path),
        };
        if context == ContextPlace::StandardInput && dockerfile == DockerfilePlace::StandardInput {
            bail!("invalid argument: can't use stdin for both build context and dockerfile");
        }
        let tags = arguments.tags.iter().map(|tag| parse_tag(tag)).collect::<Result<Vec<_>>>()?;
        let mut named = NamedContexts::default();
        for text in &arguments.build_contexts {
            named.add(text)?;
        }
        if let ContextPlace::Remote(url) = &context {
            named.uses_ssh |= is_ssh(url);
            named.values.insert(CONTEXT_NAME.to_owned(), url.clone());
        }
        let no_cache = match (arguments.no_cache, arguments.no_cache_filter) {
            (true, _) => Some(Vec::new()),
            (false, stages) => (!stages.is_empty()).then_some(stages),
        };
        Ok(Self {
            context,
            input_limit: size_limit(&arguments.input_limit)?,
            dockerfile,
            outputs: output::resolve(&arguments.outputs, &tags)?,
            target: arguments.target.filter(|target| !target.is_empty()),
            build_args: build_args(&arguments.build_args)?,
            labels: labels(&arguments.labels)?,
            directories: named.directories,
            layouts: named.layouts,
            named_contexts: named.values,
            uses_ssh: named.uses_ssh,
            platform: platform(arguments.platform.as_deref())?,
            network: arguments.network,
            allowed: Allowed {
                host_network: arguments.network == Network::Host
                    || arguments.allow.contains(&Right::NetworkHost),
                insecure: arguments.allow.contains(&Right::SecurityInsecure),
            },
            hosts: arguments
                .add_hosts
                .iter()
                .map(|host| parse_host(host))
                .collect::<Result<_>>()?,
            limits: process_limits(arguments.shm_size.as_deref(), &arguments.ulimits)?,
            secrets: secrets(&arguments.secrets)?,
            agents: ssh::agents(&arguments.agents)?,
            no_cache,
        })
    }
}

fn context_place(path: &Path) -> Result<ContextPlace> {
    if path.as_os_str() == "-" {
        return Ok(ContextPlace::StandardInput);
    }
    let text = path.to_string_lossy();
    match remote(&text) {
        Some(url) if !path.is_dir() => Ok(ContextPlace::Remote(url)),
        _ => context_directory(path).map(ContextPlace::Directory),
    }
}

/// Returns the address of a context that is elsewhere.
fn remote(text: &str) -> Option<String> {
    // Docker's old way to name a repository, as import paths of Go are.
    let Some(path) = text.strip_prefix("github.com/") else {
        return kiln_frontend::is_remote_context(text).then(|| text.to_owned());
    };
    let (path, options) = path.split_at(path.find(['#', '?']).unwrap_or(path.len()));
    let path = path.trim_end_matches('/');
    Some(format!("https://github.com/{}.git{options}", path.strip_suffix(".git").unwrap_or(path)))
}

/// Tells whether an address elsewhere is reached by SSH: that of a repository without scheme is.
fn is_ssh(url: &str) -> bool {
    url.split_once("://").is_none_or(|(scheme, _)| scheme.eq_ignore_ascii_case("ssh"))
}

/// Reads a number of bytes with `k`, `m`, `g` or `t` behind it; 0 stands for no limit.
fn size_limit(text: &str) -> Result<Option<u64>> {
    let lower = text.to_ascii_lowercase();
    let number = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &lower[number.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => bail!("invalid size {text:?}: expected a number and k, m, g or t"),
    };
    let number: u64 = number.parse().with_context(|| format!("invalid size {text:?}"))?;
    let bytes =
        number.checked_mul(1 << shift).with_context(|| format!("size {text} is too large"))?;
    Ok((bytes > 0).then_some(bytes))
}

fn context_directory(path: &Path) -> Result<PathBuf> {
    let text = path.to_string_lossy();
    let metadata = std::fs::metadata(path)
        .with_context(|| format!("unable to prepare context: path {text:?} not found"))?;
    if !metadata.is_dir() {
        bail!("unable to prepare context: {text:?} is not a directory");
    }
    std::path::absolute(path).with_context(|| format!("resolve {text:?}"))
}

fn parse_tag(text: &str) -> Result<Reference> {
    let tag: Reference = text.parse().with_context(|| format!("invalid tag {text:?}"))?;
    if tag.digest().is_some() {
        bail!("invalid tag {text:?}: a name for a new image can't have a digest");
    }
    Ok(tag)
}

fn platform(text: Option<&str>) -> Result<Platform> {
    let host = Platform::host();
    let Some(text) = text else { return Ok(host) };
    if text.contains(',') {
        bail!("several platforms at once ({text}) are not supported yet");
    }
    let platform: Platform = text.parse().with_context(|| format!("invalid platform {text:?}"))?;
    if platform != host {
        bail!("building for {platform} is not supported yet: this machine is {host}");
    }
    Ok(platform)
}

fn build_args(texts: &[String]) -> Result<BTreeMap<String, String>> {
    let mut arguments = BTreeMap::new();
    for text in texts {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            // Without a value it is the environment's; a variable that isn't set is no argument.
            None => (text.as_str(), std::env::var(text).ok()),
        };
        if name.is_empty() {
            bail!("invalid build argument {text:?}: expected NAME=VALUE");
        }
        if let Some(value) = value {
            arguments.insert(name.to_owned(), value);
        }
    }
    Ok(arguments)
}

fn labels(texts: &[String]) -> Result<BTreeMap<String, String>> {
    let parse = |text: &String| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        if name.is_empty() {
            bail!("invalid label {text:?}: expected NAME=VALUE");
        }
        Ok((name.to_owned(), value.to_owned()))
    };
    texts.iter().map(parse).collect()
}

fn process_limits(shm_size: Option<&str>, ulimits: &[String]) -> Result<ProcessLimits> {
    let shm_size = shm_size.map(limits::size).transpose().context("invalid --shm-size")?;
    let ulimit = |limit: limits::Ulimit| kiln_llb::op::Ulimit {
        name: limit.name,
        soft: limit.soft,
        hard: limit.hard,
    };
    Ok(ProcessLimits {
        shm_size: shm_size.unwrap_or_default(),
        ulimits: limits::ulimits(ulimits)?.into_iter().map(ulimit).collect(),
        cgroup_parent: String::new(),
    })
}

pub(crate) fn parse_host(text: &str) -> Result<(String, String)> {
    let parts = text.split_once('=').or_else(|| text.split_once(':'));
    let Some((name, address)) = parts.filter(|(name, _)| !name.is_empty()) else {
        bail!("invalid host {text:?}: expected NAME:ADDRESS");
    };
    let address = address.trim_start_matches('[').trim_end_matches(']');
    if address.parse::<std::net::IpAddr>().is_err() {
        bail!("invalid host {text:?}: {address:?} is no IP address");
    }
    Ok((name.to_owned(), address.to_owned()))
}

fn secrets(texts: &[String]) -> Result<BTreeMap<String, SecretSource>> {
    texts.iter().map(|text| parse_secret(text)).collect()
}

fn parse_secret(text: &str) -> Result<(String, SecretSource)> {
    let (mut id, mut file, mut variable, mut kind) = (None, None, None, None);
    for field in text.split(',') {
        let Some((key, value)) = field.split_once('=') else {
            bail!("invalid secret {text:?}: {field:?} must be KEY=VALUE");
        };
        match key.to_ascii_lowercase().as_str() {
            "id" => id = Some(value.to_owned()),
            "src" | "source" => file = Some(PathBuf::from(value)),
            "env" => variable = Some(value.to_owned()),
            "type" if matches!(value, "file" | "env") => kind = Some(value.to_owned()),
            _ => bail!("invalid secret {text:?}: unexpected {field:?}"),
        }
    }
    let Some(id) = id.filter(|id| !id.is_empty()) else { bail!("invalid secret {text:?}: no id") };
    if kind.as_deref() == Some("env") && variable.is_none() {
        // With `type=env`, a source is the name of a variable.
        variable = file.take().map(|path| path.to_string_lossy().into_owned());
    }
    let from_file = |path: PathBuf| {
        std::path::absolute(&path)
            .map(SecretSource::File)
            .with_context(|| format!("resolve the secret's file {}", path.display()))
    };
    let from_environment =
        |name: &str| std::env::var(name).map(|value| SecretSource::Value(value.into_bytes()));
    let source = match (file, variable) {
        (Some(_), Some(_)) => bail!("invalid secret {text:?}: give src or env, not both"),
        (Some(path), None) => from_file(path)?,
        (None, Some(name)) => from_environment(&name)
            .with_context(|| format!("secret {id}: environment variable {name}"))?,
        // Neither: the variable of that name where it is set, else the file.
        (None, None) => match from_environment(&id) {
            Ok(value) if kind.as_deref() != Some("file") => value,
            _ => from_file(PathBuf::from(&id))?,
        },
    };
    Ok((id, source))
}

/// Named contexts, told apart by what they are.
#[derive(Debug, Default)]
struct NamedContexts {
    directories: BTreeMap<String, PathBuf>,
    layouts: BTreeMap<String, PathBuf>,
    values: BTreeMap<String, String>,
    uses_ssh: bool,
}

impl NamedContexts {
    fn add(&mut self, text: &str) -> Result<()> {
        let Some((name, value)) = text.split_once('=') else {
            bail!("invalid build context {text:?}: expected NAME=VALUE");
        };
        let name = name.to_owned();
        let meaning = if let Some(layout) = value.strip_prefix("oci-layout://") {
            format!("oci-layout://{}", self.layout(layout)?)
        } else if value.starts_with("docker-image://") || value.starts_with("target:") {
            value.to_owned()
        } else if let Some(url) = remote(value).filter(|_| !Path::new(value).is_dir()) {
            self.uses_ssh |= is_ssh(&url);
            url
        } else {
            let directory = context_directory(Path::new(value))
                .with_context(|| format!("build context {name}"))?;
            self.directories.insert(name.clone(), directory);
            format!("local:{name}")
        };
        self.values.insert(name, meaning);
        Ok(())
    }

    /// Makes the directory of `DIR[:TAG][@DIGEST]` absolute and remembers it.
    fn layout(&mut self, text: &str) -> Result<String> {
        let digest = text.find("@sha256:").unwrap_or(text.len());
        let tag = match text[..digest].rfind(':') {
            Some(colon) if !text[colon..digest].contains('/') && !Path::new(text).is_dir() => colon,
            _ => digest,
        };
        let (directory, suffix) = text.split_at(tag);
        let directory = std::fs::canonicalize(directory)
            .with_context(|| format!("open the OCI layout {directory:?}"))?;
        let name = directory.to_string_lossy().into_owned();
        self.layouts.insert(name.clone(), directory);
        Ok(name + suffix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_elsewhere_are_told_from_directories() {
        let github = "https://github.com/a/b.git".to_owned();
        assert_eq!(remote("github.com/a/b"), Some(github.clone()));
        assert_eq!(remote("github.com/a/b.git#main:d"), Some(github + "#main:d"));
        for (text, ssh) in [
            ("https://h/x.tar.gz", false),
            ("http://h/a.git#x", false),
            ("git://h/a", false),
            ("ssh://git@h/a", true),
            ("git@h:a/b.git", true),
        ] {
            assert_eq!(remote(text).as_deref(), Some(text));
            assert_eq!(is_ssh(text), ssh, "{text}");
        }
        for text in [".", "./a.git", "/x", "a:b", "ftp://h/x", "file:///x"] {
            assert_eq!(remote(text), None, "{text}");
        }
    }

    #[test]
    fn limits_are_sizes() {
        assert_eq!(size_limit("0").unwrap(), None);
        assert_eq!(size_limit("12").unwrap(), Some(12));
        assert_eq!(size_limit("16G").unwrap(), Some(16 << 30));
        assert_eq!(size_limit("3mb").unwrap(), Some(3 << 20));
        for text in ["", "g", "-1", "1x", "99999999999t", "1.5g"] {
            assert!(size_limit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_are_checked() {
        let parsed = parse_host("db:10.0.0.1").unwrap();
        assert_eq!(parsed, ("db".to_owned(), "10.0.0.1".to_owned()));
        assert_eq!(parse_host("db=[::1]").unwrap().1, "::1");
        for text in ["db", ":1.2.3.4", "db:nowhere"] {
            assert!(parse_host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn secrets_are_files_or_variables() {
        assert!(matches!(parse_secret("id=a,src=/x").unwrap().1, SecretSource::File(_)));
        assert!(matches!(parse_secret("id=a,env=PATH").unwrap().1, SecretSource::Value(_)));
        for text in ["", "src=/x", "id=a,src=/x,env=PATH", "id=a,colour=red", "id=a,env=NOT_SET_X"]
        {
            assert!(parse_secret(text).is_err(), "{text}");
        }
    }

    #[test]
    fn other_platforms_are_refused() {
        assert_eq!(platform(None).unwrap(), Platform::host());
        assert_eq!(platform(Some(&Platform::host().to_string())).unwrap(), Platform::host());
        for text in ["linux/s390x", "linux/amd64,linux/arm64", "a/b/c/d"] {
            assert!(platform(Some(text)).is_err(), "{text}");
        }
    }
}

//! The address of the Docker engine, as docker's own client determines it.
//!
//! As in docker, `DOCKER_HOST` overrides `DOCKER_CONTEXT`, which overrides the context that `docker
//! context use` wrote to `config.json`. Contexts are in docker's directory, in subdirectories whose
//! names are the SHA-256 digests of the contexts' names.

#![expect(clippy::disallowed_methods, reason = "the user names the files")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kiln_exporter::{EngineAddress, EngineTls};
use kiln_oci::Digest;
use kiln_registry::{Warnings, json_problem};
use serde::Deserialize;

/// The engine's default socket.
const SOCKET: &str = "/var/run/docker.sock";
/// The name of the context that uses the environment variables.
const DEFAULT: &str = "default";

/// The Docker engine to use.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DockerHost {
    /// The engine's address.
    pub(super) address: EngineAddress,
    /// `true` if the user named the engine or its context.
    pub(super) is_named: bool,
}

impl DockerHost {
    /// Returns `false` if the engine's socket doesn't exist.
    pub(super) fn is_there(&self) -> bool {
        match &self.address {
            EngineAddress::Socket(path) => path.exists(),
            EngineAddress::Network { .. } => true,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    current_context: String,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(rename = "Endpoints")]
    endpoints: Endpoints,
}

#[derive(Deserialize)]
struct Endpoints {
    docker: Endpoint,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(rename = "Host", default)]
    host: String,
    #[serde(rename = "SkipTLSVerify", default)]
    skip_tls_verify: bool,
}

/// Determines the engine to use. `context` is the context that the user names in the option.
pub(super) fn find(
    context: Option<&str>,
    variable: &impl Fn(&str) -> Option<OsString>,
    warnings: &Warnings,
) -> Result<DockerHost> {
    let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
    let directory = variable("DOCKER_CONFIG").map(PathBuf::from);
    let home = || variable("HOME").map(|home| PathBuf::from(home).join(".docker"));
    let directory = directory.or_else(home);
    let host = text("DOCKER_HOST");
    let context = match context {
        Some(context) => Some(context.to_owned()),
        None if host.is_some() => None,
        None => text("DOCKER_CONTEXT").or_else(|| current(directory.as_deref(), warnings)),
    };
    if let Some(name) = context.filter(|name| name != DEFAULT) {
        let directory = directory.with_context(|| format!("find docker's context {name}"))?;
        return of_context(&name, &directory);
    }
    let Some(host) = host else {
        let address = EngineAddress::Socket(SOCKET.into());
        return Ok(DockerHost { address, is_named: false });
    };
    let verified = variable("DOCKER_TLS_VERIFY").is_some();
    let tls = (verified || variable("DOCKER_TLS").is_some()).then(|| {
        let files = variable("DOCKER_CERT_PATH").map(PathBuf::from).or(directory);
        files.map_or_else(EngineTls::default, |files| tls(&files, !verified))
    });
    let address = address(&host, tls).with_context(|| format!("DOCKER_HOST is {host:?}"))?;
    Ok(DockerHost { address, is_named: true })
}

/// Returns the current context. An unreadable configuration file counts as none.
fn current(directory: Option<&Path>, warnings: &Warnings) -> Option<String> {
    let path = directory?.join("config.json");
    let text = std::fs::read(&path).ok()?;
    let config = serde_json::from_slice(&text);
    let broken = |error| warnings.ignored(&path, &json_problem(&error));
    let config: Config = config.map_err(broken).ok()?;
    Some(config.current_context).filter(|name| !name.is_empty())
}

fn of_context(name: &str, directory: &Path) -> Result<DockerHost> {
    let id = Digest::of(name.as_bytes()).hex();
    let path = directory.join("contexts/meta").join(&id).join("meta.json");
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("docker has no context {name:?}: docker context ls lists those that there are");
        }
        other => other.with_context(|| format!("read {}", path.display()))?,
    };
    let meta: Meta = serde_json::from_slice(&text)
        .with_context(|| format!("read the context {name} in {}", path.display()))?;
    let Endpoint { host, skip_tls_verify } = meta.endpoints.docker;
    let files = directory.join("contexts/tls").join(&id).join(DOCKER);
    let tls = (files.is_dir() || skip_tls_verify).then(|| tls(&files, skip_tls_verify));
    let address = address(&host, tls).with_context(|| format!("docker's context {name}"))?;
    Ok(DockerHost { address, is_named: true })
}

/// The name of the endpoint of Docker engines in a context.
const DOCKER: &str = "docker";

/// Returns the TLS settings for the certificates in a directory.
fn tls(directory: &Path, insecure: bool) -> EngineTls {
    let file = |name: &str| Some(directory.join(name)).filter(|path| path.is_file());
    let identity = file("cert.pem").zip(file("key.pem"));
    EngineTls { authority: file("ca.pem"), identity, insecure }
}

fn address(host: &str, tls: Option<EngineTls>) -> Result<EngineAddress> {
    let Some((scheme, rest)) = host.split_once("://") else {
        bail!("it is no address, as unix:///run/docker.sock");
    };
    let rest = rest.trim_end_matches('/');
    match scheme {
        "unix" if !rest.is_empty() => Ok(EngineAddress::Socket(rest.into())),
        "tcp" | "http" | "https" if !rest.is_empty() => {
            let tls = if scheme == "https" { Some(tls.unwrap_or_default()) } else { tls };
            let port = if tls.is_some() { 2376 } else { 2375 };
            let has_port =
                rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            let authority = if has_port { rest.to_owned() } else { format!("{rest}:{port}") };
            Ok(EngineAddress::Network { authority, tls })
        }
        "ssh" => bail!("an engine behind SSH can't be spoken to: forward its socket with ssh -L"),
        _ => bail!("an engine is at unix:// or tcp://"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)], context: Option<&str>) -> Result<String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let host = find(context, &variable, &Warnings::default())?;
        let secure = match &host.address {
            EngineAddress::Network { tls: Some(tls), .. } if tls.insecure => " insecure",
            EngineAddress::Network { tls: Some(_), .. } => " tls",
            _ => "",
        };
        Ok(format!("{}{secure}{}", host.address, if host.is_named { " named" } else { "" }))
    }

    #[test]
    fn the_environment_comes_before_the_configuration() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().to_str().unwrap();
        let write = |name: &str, text: &str| {
            let file = home.path().join(".docker").join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        let of = |variables: &[(&str, &str)], context| {
            with(&[&[("HOME", path)], variables].concat(), context)
        };
        assert_eq!(of(&[], None).unwrap(), "unix:///var/run/docker.sock");
        let id = |name: &str| Digest::of(name.as_bytes()).hex();
        write(
            &format!("contexts/meta/{}/meta.json", id("mine")),
            r#"{"Name":"mine","Metadata":{},"Endpoints":{"docker":{"Host":"unix:///x.sock"}}}"#,
        );
        write(
            &format!("contexts/meta/{}/meta.json", id("far")),
            r#"{"Name":"far","Endpoints":{"docker":{"Host":"tcp://h:1","SkipTLSVerify":true}}}"#,
        );
        assert_eq!(of(&[], Some("mine")).unwrap(), "unix:///x.sock named");
        assert_eq!(of(&[("DOCKER_CONTEXT", "far")], None).unwrap(), "tcp://h:1 insecure named");
        write("config.json", r#"{"auths": {}, "currentContext": "mine"}"#);
        assert_eq!(of(&[], None).unwrap(), "unix:///x.sock named");
        assert_eq!(of(&[], Some("default")).unwrap(), "unix:///var/run/docker.sock");
        let host = ("DOCKER_HOST", "tcp://10.0.0.1");
        assert_eq!(
            of(&[host, ("DOCKER_CONTEXT", "far")], None).unwrap(),
            "tcp://10.0.0.1:2375 named"
        );
        let verify = ("DOCKER_TLS_VERIFY", "1");
        assert_eq!(of(&[host, verify], None).unwrap(), "tcp://10.0.0.1:2376 tls named");
        assert_eq!(of(&[host], Some("mine")).unwrap(), "unix:///x.sock named");
        let error = of(&[], Some("none")).unwrap_err().to_string();
        assert!(error.contains("docker has no context \"none\""), "{error}");
    }

    #[test]
    fn addresses_that_can_not_be_used_are_explained() {
        for (host, problem) in [
            ("ssh://me@host", "behind SSH"),
            ("npipe:////./pipe/docker", "at unix:// or tcp://"),
            ("unix://", "at unix:// or tcp://"),
            ("/run/docker.sock", "it is no address"),
        ] {
            let error = format!("{:#}", with(&[("DOCKER_HOST", host)], None).unwrap_err());
            assert!(error.contains(problem) && error.contains("DOCKER_HOST"), "{error}");
        }
    }
}

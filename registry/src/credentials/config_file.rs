//! The format of docker's `config.json` and podman's `auth.json`.
//!
//! Writing the file preserves all settings that aren't about credentials.

#![expect(clippy::disallowed_methods, reason = "the configuration is the user's")]

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde_json::{Map, Value, json};

use super::helper::Helper;
use super::{Credential, CredentialError, HUB_KEY};
use crate::retry::random;
use crate::warnings::json_problem;

/// The content of a credential file.
#[derive(Clone, Debug)]
pub(super) struct ConfigFile {
    path: PathBuf,
    content: Map<String, Value>,
}

impl ConfigFile {
    /// Reads a file. A missing file counts as an empty one.
    pub(super) fn read(path: &Path) -> Result<Self, CredentialError> {
        let content = match std::fs::read(path) {
            Ok(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => Map::new(),
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| failed("read", path)(json_problem(&error)))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Map::new(),
            Err(error) => return Err(failed("read", path)(error)),
        };
        Ok(Self { path: path.to_owned(), content })
    }

    /// Returns the helper that stores a registry's credentials, if the file names one.
    pub(super) fn helper(&self, registry: &str) -> Result<Option<Helper>, CredentialError> {
        let helpers = self.content.get("credHelpers").and_then(Value::as_object);
        let own = helpers.and_then(|helpers| {
            names(registry).find_map(|name| helpers.get(&name)).and_then(Value::as_str)
        });
        let general = self.content.get("credsStore").and_then(Value::as_str);
        own.or(general).filter(|name| !name.is_empty()).map(Helper::named).transpose()
    }

    /// Returns the credentials that the file itself holds for a repository. The narrowest key takes
    /// precedence, because podman stores credentials for parts of a registry too.
    pub(super) fn get(
        &self,
        registry: &str,
        repository: &str,
    ) -> Result<Option<Credential>, CredentialError> {
        let Some(auths) = self.content.get("auths").and_then(Value::as_object) else {
            return Ok(None);
        };
        let mut path = format!("{registry}/{repository}");
        while path.len() > registry.len() {
            if let Some(found) = auths.get(&path).and_then(Value::as_object)
                && let Some(credential) = self.credential(&path, found)?
            {
                return Ok(Some(credential));
            }
            path.truncate(path.rfind('/').unwrap_or_default());
        }
        for key in names(registry) {
            if let Some(found) = auths.get(&key).and_then(Value::as_object)
                && let Some(credential) = self.credential(&key, found)?
            {
                return Ok(Some(credential));
            }
        }
        let other = auths.iter().find(|(key, _)| host_of(key) == host_of(super::key_of(registry)));
        match other.and_then(|(key, value)| Some((key, value.as_object()?))) {
            Some((key, found)) => self.credential(key, found),
            None => Ok(None),
        }
    }

    fn credential(
        &self,
        key: &str,
        entry: &Map<String, Value>,
    ) -> Result<Option<Credential>, CredentialError> {
        let field =
            |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        if let Some(token) = field("registrytoken") {
            return Ok(Some(Credential::Registry { token: token.to_owned() }));
        }
        if let Some(token) = field("identitytoken") {
            return Ok(Some(Credential::Identity { token: token.to_owned() }));
        }
        if let Some(auth) = field("auth") {
            let wrong = || {
                let path = self.path.display();
                CredentialError(format!(
                    "{path}: auth of {key:?} is no name and password in base64"
                ))
            };
            let decoded = decode(auth).ok_or_else(wrong)?;
            let (username, password) = decoded.split_once(':').ok_or_else(wrong)?;
            let password = password.trim_matches('\0').to_owned();
            return Ok(Some(Credential::Password { username: username.to_owned(), password }));
        }
        let (Some(username), Some(password)) = (field("username"), field("password")) else {
            return Ok(None);
        };
        let (username, password) = (username.to_owned(), password.to_owned());
        Ok(Some(Credential::Password { username, password }))
    }

    /// Returns `true` if the file has an entry for a registry, with or without secrets.
    pub(super) fn mentions(&self, registry: &str) -> bool {
        let auths = self.content.get("auths").and_then(Value::as_object);
        let host = host_of(super::key_of(registry));
        auths.is_some_and(|auths| auths.keys().any(|key| host_of(key) == host))
    }

    /// Sets a registry's entry: the credentials, or an empty entry if a helper stores them.
    pub(super) fn put(&mut self, registry: &str, credential: Option<(&str, &Credential)>) {
        let mut entry = Map::new();
        if let Some((username, credential)) = credential {
            let auth = |password: &str| json!(STANDARD.encode(format!("{username}:{password}")));
            match credential {
                Credential::Password { password, .. } => {
                    entry.insert("auth".to_owned(), auth(password));
                }
                Credential::Identity { token } => {
                    entry.insert("auth".to_owned(), auth(""));
                    entry.insert("identitytoken".to_owned(), json!(token));
                }
                Credential::Registry { token } => {
                    entry.insert("registrytoken".to_owned(), json!(token));
                }
            }
        }
        self.remove(registry);
        let auths = self.content.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            *auths = json!({});
        }
        if let Some(auths) = auths.as_object_mut() {
            auths.insert(super::key_of(registry).to_owned(), Value::Object(entry));
        }
    }

    /// Removes all entries of a registry.
    pub(super) fn remove(&mut self, registry: &str) {
        let host = host_of(super::key_of(registry)).to_owned();
        if let Some(auths) = self.content.get_mut("auths").and_then(Value::as_object_mut) {
            auths.retain(|key, _| host_of(key) != host);
        }
    }

    /// Replaces the file atomically, with mode 0600.
    pub(super) fn write(&self) -> Result<(), CredentialError> {
        // A symbolic link, such as into a dotfiles directory, stays one.
        let path = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let failed = failed("write", &path);
        let Some(directory) = path.parent() else {
            return Err(failed("it has no directory".to_owned()));
        };
        let mut bytes = Vec::new();
        let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, format);
        if let Err(error) = serde::Serialize::serialize(&self.content, &mut serializer) {
            return Err(failed(error.to_string()));
        }
        let replace = || {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            let name = format!(".kiln-{:016x}", random());
            let temporary = directory.join(name);
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&temporary)?;
            let written = file.write_all(&bytes).and_then(|()| file.sync_all());
            let renamed = written.and_then(|()| std::fs::rename(&temporary, &path));
            if renamed.is_err() {
                let _ = std::fs::remove_file(&temporary);
            }
            renamed
        };
        replace().map_err(|error: std::io::Error| failed(error.to_string()))
    }

    /// Returns the file's path as given.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn failed<T: ToString>(action: &'static str, path: &Path) -> impl Fn(T) -> CredentialError {
    let path = path.display().to_string();
    move |error| CredentialError(format!("{action} {path}: {}", error.to_string()))
}

fn decode(text: &str) -> Option<String> {
    let bytes = STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok()?;
    String::from_utf8(bytes).ok()
}

/// Returns the names that files use for a registry.
fn names(registry: &str) -> impl Iterator<Item = String> {
    let known = if registry == "docker.io" {
        vec![HUB_KEY.to_owned(), "docker.io".to_owned(), "index.docker.io".to_owned()]
    } else {
        vec![registry.to_owned()]
    };
    known.into_iter()
}

/// Returns the host of a key, which may be a URL such as `https://host/v1/`.
fn host_of(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host =
        if matches!(host, "docker.io" | "registry-1.docker.io") { "index.docker.io" } else { host };
    // A podman namespace is a different key than the registry itself.
    if key.contains("://") || matches!(path, "" | "v1" | "v1/" | "v2" | "v2/") { host } else { key }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> ConfigFile {
        ConfigFile { path: "config.json".into(), content: serde_json::from_str(text).unwrap() }
    }

    fn password(username: &str, password: &str) -> Credential {
        let (username, password) = (username.to_owned(), password.to_owned());
        Credential::Password { username, password }
    }

    #[test]
    fn every_form_is_read() {
        let config = file(
            r#"{"auths": {
                "https://index.docker.io/v1/": {"auth": "aHViOnA6dw=="},
                "plain.example.com": {"username": "u", "password": "p"},
                "https://url.example.com/v2/": {"auth": "dTpw"},
                "identity.example.com": {"auth": "dTo=", "identitytoken": "it"},
                "registry.example.com:5000": {"registrytoken": "rt"},
                "pod.example.com": {"auth": "dTpw"},
                "pod.example.com/team": {"auth": "dDpw"},
                "empty.example.com": {}
            }}"#,
        );
        let get = |registry: &str| config.get(registry, "team/app").unwrap();
        assert_eq!(get("docker.io"), Some(password("hub", "p:w")));
        assert_eq!(get("plain.example.com"), Some(password("u", "p")));
        assert_eq!(get("url.example.com"), Some(password("u", "p")));
        let token = |token: &str| token.to_owned();
        let identity = Some(Credential::Identity { token: token("it") });
        assert_eq!(get("identity.example.com"), identity);
        let registry = Some(Credential::Registry { token: token("rt") });
        assert_eq!(get("registry.example.com:5000"), registry);
        assert_eq!(get("registry.example.com"), None);
        assert_eq!(get("pod.example.com"), Some(password("t", "p")));
        assert_eq!(config.get("pod.example.com", "other").unwrap(), Some(password("u", "p")));
        assert_eq!(get("empty.example.com"), None);
        assert!(config.mentions("empty.example.com") && config.mentions("docker.io"));
    }

    #[test]
    fn broken_secrets_are_not_quoted() {
        let config = file(r#"{"auths": {"a": {"auth": "%%secret%%"}}}"#);
        let error = config.get("a", "x").unwrap_err().to_string();
        assert!(error.contains("config.json") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn helpers_are_named() {
        let config = file(r#"{"credsStore": "all", "credHelpers": {"docker.io": "hub"}}"#);
        let hub = config.helper("docker.io").unwrap();
        assert_eq!(hub, Some(Helper::named("hub").unwrap()));
        assert_eq!(config.helper("x").unwrap(), Some(Helper::named("all").unwrap()));
        assert!(file(r#"{"credsStore": "../x"}"#).helper("x").is_err());
    }

    #[test]
    fn what_others_wrote_stays() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("deep/config.json"), dir.path().join("link"));
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        let text = r#"{"proxies": {"default": {}}, "auths": {"https://a": {"auth": "dTpw"}}}"#;
        std::fs::write(&path, text).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut config = ConfigFile::read(&link).unwrap();
        let credential = password("u", "p");
        config.put("docker.io", Some(("u", &credential)));
        config.put("b:1", Some(("u", &Credential::Identity { token: "t".to_owned() })));
        config.remove("a");
        config.write().unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let written: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let expected = json!({
            "proxies": {"default": {}},
            "auths": {
                HUB_KEY: {"auth": "dTpw"},
                "b:1": {"auth": "dTo=", "identitytoken": "t"},
            },
        });
        assert_eq!(written, expected);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}

//! The host's git.
//!
//! It runs with an environment of its own, and so without the configuration, credentials, hooks,
//! templates and attributes of the host or of whoever builds. Of protocols it has `http`, `https`,
//! `git` and `ssh`: none that names a file or a program. What comes from outside stands behind
//! `--`, and doesn't start with a dash. It never asks a terminal. SSH takes keys from an agent that
//! was given, and no others; hosts that the user knows have to be who they were.
//!
//! This is the only program that steps have run outside the sandbox, with what it runs itself: its
//! own parts, and `ssh`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::GitSource;
use crate::error::{Error, Result};
use crate::source::http::host;
use crate::source::remote::Remotes;

/// Most bytes of what git says.
const OUTPUT_LIMIT: u64 = 16 << 20;
/// Most characters of git's complaints that are shown.
const SHOWN: usize = 2000;

const ENVIRONMENT: &[(&str, &str)] = &[
    ("GIT_ALLOW_PROTOCOL", "http:https:git:ssh"),
    ("GIT_ATTR_NOSYSTEM", "1"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_SYSTEM", "/dev/null"),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_PROTOCOL_FROM_USER", "0"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("HOME", "/dev/null"),
    ("LC_ALL", "C"),
    ("XDG_CONFIG_HOME", "/dev/null"),
];

const CONFIGURATION: &[(&str, &str)] = &[
    ("advice.detachedHead", "false"),
    ("core.autocrlf", "false"),
    ("core.fsmonitor", "false"),
    ("core.hooksPath", "/dev/null"),
    ("core.logAllRefUpdates", "false"),
    ("credential.helper", ""),
    ("fetch.recurseSubmodules", "false"),
    ("gc.auto", "0"),
    ("init.defaultBranch", "master"),
    ("maintenance.auto", "false"),
    ("protocol.ext.allow", "never"),
    ("protocol.file.allow", "never"),
    ("submodule.recurse", "false"),
    ("transfer.bundleURI", "false"),
];

/// The host's git, ready for one source.
pub(super) struct Git {
    environment: Vec<(OsString, OsString)>,
    directory: PathBuf,
    /// What errors begin with.
    subject: String,
    /// Removed with all that is in it.
    _scratch: Scratch,
}

/// A directory that goes with its owner.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, "can't remove a repository, the next process will");
        }
    }
}

impl Git {
    /// Makes the environment that git has for a source.
    pub(super) fn prepare(source: &GitSource, remotes: &Remotes) -> Result<Self> {
        let scratch = Scratch(remotes.snapshots.store.temp_dir()?);
        let directory = scratch.0.join("files");
        std::fs::create_dir(&directory).map_err(Error::path("create", &directory))?;
        let mut environment = remotes.options.environment.clone();
        let mut set = |key: &str, value: OsString| environment.push((key.into(), value));
        for (key, value) in ENVIRONMENT {
            set(key, value.into());
        }
        if source.remote.is_ssh() {
            set(
                "GIT_SSH_COMMAND",
                ssh_command(source, remotes.options.known_hosts.as_deref(), &scratch.0)?.into(),
            );
            set("GIT_SSH_VARIANT", "ssh".into());
            if source.uses_agent {
                let Some(agent) = &remotes.options.ssh_agent else {
                    let problem = "no SSH agent is there for this build to use";
                    return Err(source.error(problem));
                };
                set("SSH_AUTH_SOCK", agent.into());
            }
        }
        let authorization = authorization(source, remotes)?;
        let header = authorization.map(|value| {
            let scope = token_scope(source.remote.url());
            (format!("http.{scope}.extraHeader"), format!("Authorization: {value}"))
        });
        let fixed = CONFIGURATION.iter().map(|(key, value)| ((*key).into(), (*value).into()));
        let configuration: Vec<(String, String)> = fixed.chain(header).collect();
        set("GIT_CONFIG_COUNT", configuration.len().to_string().into());
        for (number, (key, value)) in configuration.into_iter().enumerate() {
            set(&format!("GIT_CONFIG_KEY_{number}"), key.into());
            set(&format!("GIT_CONFIG_VALUE_{number}"), value.into());
        }
        let subject = source.error("git").to_string();
        Ok(Self { environment, directory, subject, _scratch: scratch })
    }

    /// Returns the directory that it works in.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs git and returns what it says. Dropping the future ends it.
    pub(super) async fn run(&self, arguments: &[&str]) -> Result<String> {
        let verb = arguments.first().copied().unwrap_or_default();
        let failed = |error: std::io::Error| {
            let hint = match error.kind() {
                std::io::ErrorKind::NotFound => ": is git installed?",
                _ => "",
            };
            Error::Invalid(format!("{} {verb}: {error}{hint}", self.subject))
        };
        let mut command = Command::new("git");
        command
            .args(arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .current_dir(&self.directory)
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        tracing::debug!(verb, directory = %self.directory.display(), "running git");
        let mut child = command.spawn().map_err(failed)?;
        let mut group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
        let (out, error) = (child.stdout.take(), child.stderr.take());
        let (out, error, status) =
            tokio::try_join!(read(out), read(error), child.wait()).map_err(failed)?;
        // Its number may be somebody else's from now on.
        group.0 = None;
        if status.success() {
            return Ok(String::from_utf8_lossy(&out).into_owned());
        }
        Err(Error::Invalid(format!("{} {verb}: {}", self.subject, complaint(&error, status))))
    }
}

/// The processes of a git that hasn't ended; ended when dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

async fn read(stream: Option<impl tokio::io::AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take(OUTPUT_LIMIT).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// Returns what git complains about, in a form that can't drive a terminal.
fn complaint(text: &[u8], status: std::process::ExitStatus) -> String {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let text = lines.collect::<Vec<_>>().join("; ");
    let text: String = text.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
    if text.is_empty() { status.to_string() } else { text }
}

/// Returns the header that secrets give, else user and password of the URL.
fn authorization(source: &GitSource, remotes: &Remotes) -> Result<Option<String>> {
    if !source.remote.is_http() {
        return Ok(None);
    }
    let host = host(source.remote.url());
    let names = [(&source.header_secret, false), (&source.token_secret, true)];
    let of_host = names.map(|(name, token)| (format!("{name}.{host}"), name, token));
    let general = names.map(|(name, token)| (name.clone(), name, token));
    for (id, name, token) in of_host.into_iter().chain(general) {
        if name.is_empty() {
            continue;
        }
        let Some(value) = remotes.secrets.get(&id, true)? else { continue };
        let value = value.trim_ascii_end();
        if token {
            return Ok(Some(basic(&[b"x-access-token:", value].concat())));
        }
        let value = String::from_utf8_lossy(value);
        if value.contains(char::is_control) {
            return Err(Error::Invalid(format!("secret {id}: no value of a header")));
        }
        return Ok(Some(value.into_owned()));
    }
    Ok(source.remote.credentials().map(basic))
}

fn basic(credentials: &[u8]) -> String {
    format!("basic {}", base64(credentials))
}

/// Returns the addresses that a token is sent to: the repository's, all of its host for GitHub,
/// where submodules mostly are on the same.
fn token_scope(url: &str) -> &str {
    ["https://github.com/", "https://www.github.com/"]
        .into_iter()
        .find(|prefix| url.starts_with(prefix))
        .unwrap_or(url)
}

/// Returns the command by which git calls `ssh`, for a shell.
fn ssh_command(source: &GitSource, known: Option<&Path>, scratch: &Path) -> Result<String> {
    let own = scratch.join("known_hosts");
    std::fs::write(&own, &source.known_hosts).map_err(Error::path("write", &own))?;
    let own = told_to_ssh(&own)?;
    let known = known.map_or_else(|| Ok("~/.ssh/known_hosts".to_owned()), told_to_ssh)?;
    // Keys of hosts that nobody knows go to a file that is thrown away.
    let (files, policy) = if source.known_hosts.is_empty() {
        (format!("{own} {known}"), "accept-new")
    } else {
        (own, "yes")
    };
    Ok(format!(
        "ssh -F /dev/null -o BatchMode=yes -o IdentityFile=none -o StrictHostKeyChecking={policy} \
         -o 'UserKnownHostsFile={files}'"
    ))
}

/// Returns a path as it stands among ssh's options.
fn told_to_ssh(path: &Path) -> Result<String> {
    let path = path.display().to_string();
    if path.contains(['\'', '"', '\\', '%']) {
        return Err(Error::Invalid(format!("{path}: can't be told to ssh")));
    }
    Ok(format!("\"{path}\""))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (plain, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }

    #[test]
    fn tokens_stay_with_the_repository() {
        assert_eq!(token_scope("https://h/a.git"), "https://h/a.git");
        assert_eq!(token_scope("https://github.com/a/b.git"), "https://github.com/");
        assert_eq!(token_scope("https://github.com.evil/a"), "https://github.com.evil/a");
    }
}

//! The host's git as a subprocess.
//!
//! Git runs with an environment of its own. It therefore ignores the configuration, credentials,
//! hooks, templates and attributes of the host and of the user. It may use the protocols `http`,
//! `https`, `git` and `ssh`, but none that accesses files or runs programs. Values from outside
//! come after `--` and don't start with a dash. Git never prompts on a terminal. SSH uses only the
//! keys of an agent that the user passes to the build, and verifies hosts that the user knows.
//!
//! Git, with its own subprograms and `ssh`, is the only program that steps run outside the sandbox.

#![expect(clippy::disallowed_methods, reason = "git's directory is kiln's own")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::GitSource;
use super::access::Access;
use super::limits::{self, CommandLimits, GitLimits};
use crate::error::{Error, Result};
use crate::source::remote::Remotes;

/// The maximum number of bytes that are read of each output stream.
const OUTPUT_LIMIT: u64 = 16 << 20;
/// The maximum number of characters in an error message.
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

/// The host's git, prepared for one source.
pub(super) struct Git {
    environment: Vec<(OsString, OsString)>,
    /// The names and values of the configuration, without those for access.
    configuration: Vec<(String, String)>,
    access: Access,
    limits: GitLimits,
    /// The maximum size of the repository in bytes.
    disk: Option<u64>,
    directory: PathBuf,
    /// The beginning of error messages.
    subject: String,
    /// The temporary directory. It is removed with all its files.
    _scratch: Scratch,
}

/// A directory that is removed when this is dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, "can't remove a repository, the next process will");
        }
    }
}

impl Git {
    /// Prepares git's environment for a source.
    pub(super) async fn prepare(source: &GitSource, remotes: &Remotes) -> Result<Self> {
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
        let access = Access::find(source, remotes).await?;
        let (limits, disk) = (remotes.options.git, remotes.options.max_bytes);
        let fixed = CONFIGURATION.iter().map(|(key, value)| ((*key).into(), (*value).into()));
        let configuration = fixed.chain(limits::configuration(limits)).collect();
        let subject = source.error("git").to_string();
        Ok(Self {
            environment,
            configuration,
            access,
            limits,
            disk,
            directory,
            subject,
            _scratch: scratch,
        })
    }

    /// Returns the address that the repository is fetched from.
    pub(super) fn url(&self) -> &str {
        &self.access.url
    }

    /// Returns the working directory of git.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs git and returns its output. Dropping the future kills it.
    pub(super) async fn run(&self, arguments: &[&str]) -> Result<String> {
        self.run_with(arguments, &self.access.configuration).await
    }

    /// Does the same as [`Self::run`], without credentials.
    ///
    /// # Errors
    /// Fails like [`Self::run`], and if this git has no credentials anyway.
    pub(super) async fn run_without_credentials(&self, arguments: &[&str]) -> Result<String> {
        if self.access.configuration.is_empty() {
            return Err(Error::Invalid(format!("{}: it had no credentials", self.subject)));
        }
        self.run_with(arguments, &[]).await
    }

    async fn run_with(&self, arguments: &[&str], access: &[(String, String)]) -> Result<String> {
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
            .envs(self.configuration_with(access))
            .current_dir(&self.directory)
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let limits = CommandLimits::of(self.limits, self.disk, verb);
        kiln_sandbox::limit_resources(&mut command, limits.resources());
        tracing::debug!(verb, directory = %self.directory.display(), "running git");
        let mut child = command.spawn().map_err(failed)?;
        let mut group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
        let (out, error) = (child.stdout.take(), child.stderr.take());
        let work = async { tokio::try_join!(read(out), read(error), child.wait()).map_err(failed) };
        let (out, error, status) = tokio::select! {
            ended = work => ended?,
            problem = limits.exceeded(&self.directory) => {
                return Err(Error::Invalid(format!("{} {verb}: {}", self.subject, problem?)));
            }
        };
        // The kernel may reuse the process ID from now on.
        group.0 = None;
        if status.success() {
            return Ok(String::from_utf8_lossy(&out).into_owned());
        }
        let complaint = limits.explain(complaint(&error, status));
        let hint = self.access.withheld.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        Err(Error::Invalid(format!("{} {verb}: {complaint}{hint}", self.subject)))
    }

    /// Returns the environment variables with git's configuration.
    fn configuration_with(&self, access: &[(String, String)]) -> Vec<(String, String)> {
        let all = self.configuration.iter().chain(access).enumerate();
        let mut variables: Vec<(String, String)> = all
            .flat_map(|(number, (key, value))| {
                [
                    (format!("GIT_CONFIG_KEY_{number}"), key.clone()),
                    (format!("GIT_CONFIG_VALUE_{number}"), value.clone()),
                ]
            })
            .collect();
        let count = self.configuration.len() + access.len();
        variables.push(("GIT_CONFIG_COUNT".to_owned(), count.to_string()));
        variables
    }
}

/// The process group of a running git. It is killed on drop.
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

/// Returns git's error message without control characters.
fn complaint(text: &[u8], status: std::process::ExitStatus) -> String {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let text = lines.collect::<Vec<_>>().join("; ");
    let text: String = text.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
    if text.is_empty() { status.to_string() } else { text }
}

/// Returns the shell command with which git calls `ssh`.
fn ssh_command(source: &GitSource, known: Option<&Path>, scratch: &Path) -> Result<String> {
    let own = scratch.join("known_hosts");
    std::fs::write(&own, &source.known_hosts).map_err(Error::path("write", &own))?;
    let own = told_to_ssh(&own)?;
    let known = known.map_or_else(|| Ok("~/.ssh/known_hosts".to_owned()), told_to_ssh)?;
    // Keys of unknown hosts are written to a file that is discarded.
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

/// Returns a path in the syntax of ssh's options.
fn told_to_ssh(path: &Path) -> Result<String> {
    let path = path.display().to_string();
    if path.contains(['\'', '"', '\\', '%']) {
        return Err(Error::Invalid(format!("{path}: can't be told to ssh")));
    }
    Ok(format!("\"{path}\""))
}

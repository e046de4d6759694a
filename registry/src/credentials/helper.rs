//! Credential helpers: programs named `docker-credential-NAME` that keep secrets in a keychain.
//!
//! A helper's only argument is the action. The helper reads its input from standard input and
//! writes its answer or error to standard output.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Credential, CredentialError};

/// The time limit for a helper. Some helpers prompt the user.
const PATIENCE: Duration = Duration::from_secs(90);
/// The maximum size of a helper's answer in bytes.
const ANSWER: u64 = 1 << 20;
/// The user name that marks the secret as a token.
const TOKEN_USER: &str = "<token>";
/// The helpers' message for missing credentials.
const UNKNOWN: &str = "credentials not found in native keychain";

/// A credential helper program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Helper {
    program: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Found {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Stored<'a> {
    #[serde(rename = "ServerURL")]
    server: &'a str,
    username: &'a str,
    secret: &'a str,
}

impl Helper {
    /// Returns the helper `docker-credential-NAME`. Fails if the name contains other characters
    /// than letters, digits, `-`, `_` and `.`.
    pub(super) fn named(name: &str) -> Result<Self, CredentialError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(CredentialError(format!("{name:?} is no name of a credential helper")));
        }
        Ok(Self { program: format!("docker-credential-{name}") })
    }

    /// Returns the credentials for a server.
    pub(super) fn get(&self, server: &str) -> Result<Option<Credential>, CredentialError> {
        let answer = match self.run("get", server) {
            Ok(answer) => answer,
            Err(Refusal::Said(text)) if text.trim() == UNKNOWN => return Ok(None),
            Err(refusal) => return Err(self.error("get", &refusal)),
        };
        let found: Found = serde_json::from_slice(&answer).map_err(|_| {
            CredentialError(format!("{} get: the answer is no JSON of credentials", self.program))
        })?;
        let Found { username, secret } = found;
        Ok(match username.as_str() {
            _ if secret.is_empty() => None,
            TOKEN_USER => Some(Credential::Identity { token: secret }),
            _ => Some(Credential::Password { username, password: secret }),
        })
    }

    /// Stores credentials for a server.
    pub(super) fn store(
        &self,
        server: &str,
        username: &str,
        credential: &Credential,
    ) -> Result<(), CredentialError> {
        let (username, secret) = match credential {
            Credential::Password { password, .. } => (username, password),
            Credential::Identity { token } | Credential::Registry { token } => (TOKEN_USER, token),
        };
        let text = serde_json::to_string(&Stored { server, username, secret });
        let text = text.map_err(|error| CredentialError(error.to_string()))?;
        self.run("store", &text).map(|_| ()).map_err(|refusal| self.error("store", &refusal))
    }

    /// Removes the credentials for a server. Succeeds if there are none.
    pub(super) fn erase(&self, server: &str) -> Result<(), CredentialError> {
        match self.run("erase", server) {
            Ok(_) => Ok(()),
            Err(Refusal::Said(text)) if text.trim() == UNKNOWN => Ok(()),
            Err(refusal) => Err(self.error("erase", &refusal)),
        }
    }

    fn error(&self, action: &str, refusal: &Refusal) -> CredentialError {
        let why = match refusal {
            Refusal::Said(text) => crate::error::sanitize(text),
            Refusal::Io(error) => error.to_string(),
        };
        CredentialError(format!("{} {action}: {why}", self.program))
    }

    fn run(&self, action: &str, input: &str) -> Result<Vec<u8>, Refusal> {
        tracing::debug!(program = %self.program, action, "running a credential helper");
        let mut child = Command::new(&self.program)
            .arg(action)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Refusal::Io)?;
        let result = converse(&mut child, input);
        // The helper may have ended already.
        let _ = child.kill();
        let _ = child.wait();
        result
    }
}

enum Refusal {
    Said(String),
    Io(std::io::Error),
}

fn converse(child: &mut Child, input: &str) -> Result<Vec<u8>, Refusal> {
    if let Some(mut stdin) = child.stdin.take() {
        // A helper may ignore its input. Its answer decides.
        let _ = stdin.write_all(input.as_bytes());
    }
    let stdout = child.stdout.take();
    // The thread isn't joined if the helper's children keep the pipe open. It ends with them.
    let reader = std::thread::spawn(move || {
        let mut answer = Vec::new();
        let read = stdout.map(|stdout| stdout.take(ANSWER).read_to_end(&mut answer));
        read.transpose().map(|_| answer)
    });
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().map_err(Refusal::Io)? {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                return Err(Refusal::Said(format!("no answer in {} s", PATIENCE.as_secs())));
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    while !reader.is_finished() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    if !reader.is_finished() {
        return Err(Refusal::Said("its answer has no end".to_owned()));
    }
    let answer = reader.join().unwrap_or_else(|_| Ok(Vec::new())).map_err(Refusal::Io)?;
    if status.success() {
        return Ok(answer);
    }
    let said = String::from_utf8_lossy(&answer).trim().to_owned();
    Err(Refusal::Said(if said.is_empty() { status.to_string() } else { said }))
}

//! SSH agents of a build: `--ssh`.

#![expect(
    clippy::disallowed_methods,
    reason = "the user names the files, and the command line reads the environment"
)]

use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Parses the values of `--ssh` and returns the agents' sockets by ID.
pub(super) fn agents(texts: &[String]) -> Result<BTreeMap<String, PathBuf>> {
    let own = std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(PathBuf::from);
    texts.iter().map(|text| parse(text, own.as_deref())).collect()
}

/// Parses `ID[=SOCKET]`. Without a socket, uses the caller's own agent.
fn parse(text: &str, own: Option<&Path>) -> Result<(String, PathBuf)> {
    let (id, path) = match text.split_once('=') {
        Some((id, path)) => (id, Some(PathBuf::from(path))),
        None => (text, None),
    };
    if id.is_empty() {
        bail!("invalid ssh agent {text:?}: expected default or ID=SOCKET");
    }
    let path = match (path, own) {
        (Some(path), _) => path,
        (None, Some(own)) => own.to_owned(),
        (None, None) => bail!("ssh agent {id}: no socket is given, and SSH_AUTH_SOCK isn't set"),
    };
    let path = std::path::absolute(&path).with_context(|| format!("ssh agent {id}"))?;
    let metadata = std::fs::metadata(&path)
        .with_context(|| format!("ssh agent {id}: look at {}", path.display()))?;
    if !metadata.file_type().is_socket() {
        let problem = "is no socket; a key's file is not supported, ssh-add gives it to an agent";
        bail!("ssh agent {id}: {} {problem}", path.display());
    }
    Ok((id.to_owned(), path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_sockets() {
        let temp = tempfile::tempdir().unwrap();
        let socket = temp.path().join("s=1");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let text = format!("a={}", socket.display());
        assert_eq!(parse(&text, None).unwrap(), ("a".to_owned(), socket.clone()));
        let own = parse("default", Some(&socket)).unwrap();
        assert_eq!(own, ("default".to_owned(), socket.clone()));
        let error = |text: &str| parse(text, None).unwrap_err().to_string();
        assert!(error("default").ends_with("SSH_AUTH_SOCK isn't set"));
        assert!(error("a=/etc/passwd").contains("/etc/passwd is no socket"));
        assert!(error("a=/no/such").contains("/no/such"));
        assert!(error("=/x").contains("invalid ssh agent"));
    }
}

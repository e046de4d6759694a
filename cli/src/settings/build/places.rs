//! The locations of the main context and the Dockerfile.

#![expect(clippy::disallowed_methods, reason = "the user names the files")]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kiln::build::{ContextPlace, ContextStream, DockerfilePlace};
use kiln::build::{TEXT_LIMIT, read_text};

use crate::settings::once::Sources;

/// Returns the location of the main context.
pub(super) fn context_place(path: &Path) -> Result<ContextPlace> {
    if path.as_os_str() == "-" {
        return Ok(ContextPlace::Stream(ContextStream::new(std::io::stdin())));
    }
    let text = path.to_string_lossy();
    match remote(&text) {
        Some(url) if !path.is_dir() => Ok(ContextPlace::Remote(url)),
        _ => context_directory(path).map(ContextPlace::Directory),
    }
}

/// Returns the location of the Dockerfile.
pub(super) fn dockerfile_place(
    file: Option<PathBuf>,
    context: &ContextPlace,
    sources: &mut Sources,
) -> Result<DockerfilePlace> {
    let Some(path) = file else { return Ok(DockerfilePlace::Context) };
    let name = path.display().to_string();
    if path.as_os_str() == "-" {
        if context.is_stream() {
            bail!("invalid argument: can't use stdin for both build context and dockerfile");
        }
        return Ok(DockerfilePlace::Text { name, text: read_text(std::io::stdin().lock())? });
    }
    Ok(match (sources.read(&path, TEXT_LIMIT)?, path.to_str()) {
        (Some(text), _) => DockerfilePlace::Text { name, text },
        (None, Some(url)) if is_url(url) => DockerfilePlace::Remote(url.to_owned()),
        (None, _) => DockerfilePlace::Path(path),
    })
}

/// Returns `true` if the user names the Dockerfile by a URL.
fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// Returns the address of a remote context; `None` for a local path.
pub(super) fn remote(text: &str) -> Option<String> {
    // Docker's old notation for a repository, like a Go import path.
    let Some(path) = text.strip_prefix("github.com/") else {
        return kiln_frontend::is_remote_context(text).then(|| text.to_owned());
    };
    let (path, options) = path.split_at(path.find(['#', '?']).unwrap_or(path.len()));
    let path = path.trim_end_matches('/');
    Some(format!("https://github.com/{}.git{options}", path.strip_suffix(".git").unwrap_or(path)))
}

/// Returns `true` if git reaches an address through SSH, as it does any repository without a
/// scheme.
pub(super) fn is_ssh(url: &str) -> bool {
    url.split_once("://").is_none_or(|(scheme, _)| scheme.eq_ignore_ascii_case("ssh"))
}

/// Returns the absolute path of a context directory.
pub(super) fn context_directory(path: &Path) -> Result<PathBuf> {
    let text = path.to_string_lossy();
    let metadata = std::fs::metadata(path)
        .with_context(|| format!("unable to prepare context: path {text:?} not found"))?;
    if !metadata.is_dir() {
        bail!("unable to prepare context: {text:?} is not a directory");
    }
    std::path::absolute(path).with_context(|| format!("resolve {text:?}"))
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
}

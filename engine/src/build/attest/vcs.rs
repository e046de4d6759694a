//! The repository that contains the context. It is a hint only: kiln doesn't check that the context
//! equals the commit. kiln reads git's files and runs no program.

#![expect(clippy::disallowed_methods, reason = "the user names the files")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use kiln_tree::{FileKind, open_inspected};
use rustix::fs::{Mode, OFlags};

use super::super::spec::{BuildSpec, ContextPlace};
use crate::redact;

/// The most bytes that are read from one of git's files.
const LIMIT: u64 = 4 << 20;

/// Returns the repository's address as `source`, and its commit as `revision`, as far as they are
/// known.
pub(super) fn of(request: &BuildSpec) -> BTreeMap<String, String> {
    match &request.context {
        ContextPlace::Directory(directory) => of_directory(directory),
        _ => BTreeMap::new(),
    }
}

fn of_directory(directory: &Path) -> BTreeMap<String, String> {
    let found = directory.ancestors().find_map(repository);
    let Some(repository) = found else { return BTreeMap::new() };
    let source = repository.origin().map(|url| redact::urls(&url).into_owned());
    let told = [("source", source), ("revision", repository.head())];
    told.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// The directories of a repository.
struct Repository {
    /// The directory of this working tree.
    own: PathBuf,
    /// The directory that all working trees share.
    common: PathBuf,
}

/// Returns the repository whose working tree has its root in a directory.
fn repository(directory: &Path) -> Option<Repository> {
    let mut own = directory.join(".git");
    if own.is_file() {
        // The directory is an additional working tree or a submodule.
        own = directory.join(read(&own)?.strip_prefix("gitdir:")?.trim());
    }
    own.join("HEAD").is_file().then(|| {
        let common = read(&own.join("commondir")).map(|path| own.join(path.trim()));
        Repository { common: common.unwrap_or_else(|| own.clone()), own }
    })
}

impl Repository {
    /// Returns the commit that is checked out.
    fn head(&self) -> Option<String> {
        let head = read(&self.own.join("HEAD"))?;
        let commit = match head.trim().strip_prefix("ref: ") {
            None => head.trim().to_owned(),
            Some(name) if !name.starts_with("refs/") || name.contains("..") => return None,
            Some(name) => read(&self.own.join(name))
                .or_else(|| read(&self.common.join(name)))
                .map(|text| text.trim().to_owned())
                .or_else(|| packed(&read(&self.common.join("packed-refs"))?, name))?,
        };
        let is_commit =
            [40, 64].contains(&commit.len()) && commit.bytes().all(|b| b.is_ascii_hexdigit());
        is_commit.then_some(commit)
    }

    /// Returns the URL of the remote `origin`.
    fn origin(&self) -> Option<String> {
        let config = read(&self.common.join("config"))?;
        let mut is_origin = false;
        for line in config.lines().map(str::trim) {
            if line.starts_with('[') {
                is_origin = line == "[remote \"origin\"]";
            } else if is_origin
                && let Some((name, value)) = line.split_once('=')
                && name.trim() == "url"
            {
                return Some(value.trim().to_owned());
            }
        }
        None
    }
}

fn packed(refs: &str, name: &str) -> Option<String> {
    let mut lines = refs.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(_, known)| *known == name).map(|(commit, _)| commit.to_owned())
}

/// Reads a file of a repository, which may be hostile: opens nothing but a regular file.
fn read(path: &Path) -> Option<String> {
    let find = |flags| rustix::fs::open(path, flags, Mode::empty());
    let file = open_inspected(OFlags::RDONLY, FileKind::is_file, find).ok()??;
    let mut text = String::new();
    File::from(file).take(LIMIT).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn repositories_are_found_above_the_context() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        write(root, "sub/f", "");
        assert!(of_directory(&root.join("sub")).is_empty());
        write(root, ".git/HEAD", "ref: refs/heads/main\n");
        write(
            root,
            ".git/config",
            "[core]\n\turl = no\n[remote \"origin\"]\n\turl = https://u:p@h/a.git\n",
        );
        write(root, ".git/packed-refs", &format!("# pack-refs\n{COMMIT} refs/heads/main\n"));
        let told = of_directory(&root.join("sub"));
        assert_eq!(
            (told["source"].as_str(), told["revision"].as_str()),
            ("https://h/a.git", COMMIT)
        );
        let other = COMMIT.replace('0', "f");
        write(root, ".git/refs/heads/main", &format!("{other}\n"));
        assert_eq!(of_directory(root)["revision"], other);
    }

    #[test]
    fn working_trees_beside_the_repository_are_followed() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        write(root, "main/.git/worktrees/w/HEAD", COMMIT);
        write(root, "main/.git/worktrees/w/commondir", "../..\n");
        write(root, "main/.git/config", "[remote \"origin\"]\nurl=git@h:a.git\n");
        write(root, "w/.git", "gitdir: ../main/.git/worktrees/w\n");
        let told = of_directory(&root.join("w"));
        assert_eq!((told["source"].as_str(), told["revision"].as_str()), ("git@h:a.git", COMMIT));
        write(root, "main/.git/worktrees/w/HEAD", "ref: ../../../secret\n");
        assert!(!of_directory(&root.join("w")).contains_key("revision"));
    }
    #[test]
    fn only_regular_files_are_read() {
        use rustix::fs::{CWD, FileType, mknodat};
        let temp = tempfile::tempdir().unwrap();
        write(temp.path(), ".git/HEAD", COMMIT);
        for name in ["commondir", "config"] {
            let path = temp.path().join(".git").join(name);
            mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        }
        let told = of_directory(temp.path());
        assert_eq!((told.len(), told["revision"].as_str()), (1, COMMIT));
    }
}

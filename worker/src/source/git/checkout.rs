//! The conversion of a commit to a layer.

#![expect(clippy::disallowed_methods, reason = "git's directory is kiln's own")]

use std::path::{Path, PathBuf};

use kiln_images::{Snapshots, blocking};
use kiln_store::LayerId;
use kiln_tree::{CopyOptions, Dir, ModeChange, Owner, Timestamp, View};

use super::GitSource;
use super::find::Found;
use super::limits::is_limit;
use super::program::Git;
use super::reference::is_commit;
use crate::error::{Error, Result};

/// A mode change whose result is that of a umask of 022, whatever the umask of this process.
const MODE: &str = "go=u,go-w";
/// The pattern of git's own files. A commit can't have entries of that name.
const GIT_DIR: &str = "**/.git";

/// Fetches a commit and creates a layer of its files.
pub(super) async fn check_out(
    git: &Git,
    source: &GitSource,
    found: &Found,
    snapshots: &Snapshots,
) -> Result<LayerId> {
    fetch(git, source, found).await?;
    let peeled = format!("{}^{{commit}}", found.object);
    let commit =
        git.run(&["rev-parse", "--verify", "--quiet", "--end-of-options", &peeled]).await?;
    let commit = commit.trim();
    if !is_commit(commit) {
        return Err(source.error(format!("{} is no commit", found.object)));
    }
    git.run(&["checkout", "--quiet", "--force", "--detach", commit]).await?;
    let root = Dir::open(git.directory())?;
    if !source.skip_submodules && root.metadata(Path::new(".gitmodules"), false)?.is_some() {
        update_submodules(git).await?;
    }
    let mtime = if source.commit_times {
        let seconds = git.run(&["show", "--no-patch", "--format=%ct", commit]).await?;
        let seconds = seconds.trim().parse().map_err(|_| source.error("the commit has no time"))?;
        Some(Timestamp { seconds, nanoseconds: 0 })
    } else {
        None
    };
    // The file contains the URL of the fetch, which must not become part of the layer.
    let _ = std::fs::remove_file(git.directory().join(".git/FETCH_HEAD"));
    let subdir = subdir(source, &root)?;
    let (snapshots, keeps) = (snapshots.clone(), source.keep_git_dir);
    blocking(move || import(&snapshots, &root, &subdir, keeps, mtime)).await
}

/// Creates a repository that has the commit.
pub(super) async fn fetch(git: &Git, source: &GitSource, found: &Found) -> Result<()> {
    let format = if found.object.len() == 64 { "sha256" } else { "sha1" };
    let format = format!("--object-format={format}");
    git.run(&["init", "--quiet", "--template=", &format]).await?;
    git.run(&["remote", "add", "--", "origin", source.remote.url()]).await?;
    let url = git.url();
    let direct = match &found.reference {
        Some(name) if !source.fetch_by_commit => format!("+{name}:{name}"),
        Some(name) => format!("+{}:{name}", found.object),
        None => found.object.clone(),
    };
    let first = fetch_one(git, url, &direct).await;
    if first.as_ref().is_err_and(is_limit) {
        return first;
    }
    if first.is_ok() && has(git, &found.object).await {
        return Ok(());
    }
    // The reference has moved since the lookup. The old commit may still be available.
    if let Some(name) = found.reference.as_ref().filter(|_| first.is_ok()) {
        let exact = format!("+{}:{name}", found.object);
        if fetch_one(git, url, &exact).await.is_ok() && has(git, &found.object).await {
            return Ok(());
        }
    }
    // Some servers provide only the commits of references.
    let all = "+refs/heads/*:refs/remotes/origin/*";
    git.run(&fetching(&["--tags"], url, all)).await.or_else(|error| first.and(Err(error)))?;
    if has(git, &found.object).await {
        return Ok(());
    }
    Err(source.error(format!("the repository does not contain commit {}", found.object)))
}

/// Fetches one commit. Fetches its ancestors only if the server doesn't support shallow fetches.
async fn fetch_one(git: &Git, url: &str, refspec: &str) -> Result<()> {
    let Err(error) = git.run(&fetching(&["--depth=1", "--no-tags"], url, refspec)).await else {
        return Ok(());
    };
    if needs_history(&error) {
        git.run(&fetching(&["--no-tags"], url, refspec)).await?;
        return Ok(());
    }
    Err(error)
}

/// Checks out the submodules, with one commit of each. Fetches more only from servers that don't
/// support shallow fetches.
async fn update_submodules(git: &Git) -> Result<()> {
    let whole = ["submodule", "--quiet", "update", "--init", "--recursive"];
    let shallow = [&whole[..], &["--depth=1"]].concat();
    let Err(error) = git.run(&shallow).await else { return Ok(()) };
    if needs_history(&error) && git.run(&whole).await.is_ok() {
        return Ok(());
    }
    // With credentials, git follows no redirects. A submodule that has moved may be public.
    git.run_without_credentials(&shallow).await.map_err(|_| error)?;
    Ok(())
}

/// Returns `true` if a shallow fetch failed because the server doesn't support it.
fn needs_history(error: &Error) -> bool {
    let text = error.to_string();
    text.contains("--depth") || text.contains("shallow")
}

fn fetching<'a>(options: &[&'a str], url: &'a str, refspec: &'a str) -> Vec<&'a str> {
    let always = ["fetch", "--quiet", "--update-head-ok", "--no-recurse-submodules"];
    [&always, options, &["--", url, refspec]].concat()
}

async fn has(git: &Git, object: &str) -> bool {
    git.run(&["cat-file", "-e", object]).await.is_ok()
}

/// Returns the path of the subdirectory. All its components must be directories.
fn subdir(source: &GitSource, root: &Dir) -> Result<PathBuf> {
    let mut path = PathBuf::from("/");
    for name in &source.subdir {
        path.push(name);
        let problem = match root.metadata(&path, false)? {
            Some(metadata) if metadata.is_dir() && name != ".git" => continue,
            Some(metadata) if metadata.is_symlink() => "a link",
            Some(_) => "not a directory",
            None => "not in the repository",
        };
        return Err(source.error(format!("subdir {}: {problem}", path.display())));
    }
    Ok(path)
}

/// Creates a layer of a directory of the work tree.
fn import(
    snapshots: &Snapshots,
    root: &Dir,
    subdir: &Path,
    keeps_git_dir: bool,
    mtime: Option<Timestamp>,
) -> Result<LayerId> {
    let Some(source) = subdir.to_str() else {
        return Err(Error::Invalid(format!("subdir {} is not UTF-8", subdir.display())));
    };
    let pending = snapshots.begin(None)?;
    let target = pending.open()?;
    let options = CopyOptions {
        source: source.to_owned(),
        dest: "/".to_owned(),
        owner: Some(Owner::default()),
        mode: Some(ModeChange::parse(MODE)?),
        mtime,
        dir_copy_contents: true,
        exclude: if keeps_git_dir { Vec::new() } else { vec![GIT_DIR.to_owned()] },
        ..CopyOptions::default()
    };
    let view = View { xattrs: false, ..View::of(root) };
    kiln_tree::copy(view, &target, &options)?;
    drop(target);
    Ok(snapshots.commit_pending(pending)?)
}

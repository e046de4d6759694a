//! Copy actions: copies from one tree into another.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kiln_llb::op::CopyAction;
use kiln_tree::{ArchiveLimits, CopiedFiles, CopyOptions, Dir, ModeChange, Owner, Timestamp, View};

use crate::error::{Error, Result};

/// Copies the selection of an action from `source` into `target`, and adds the source files to
/// `copied`, if it is set.
pub(super) fn copy(
    source: View<'_>,
    target: &Dir,
    action: &CopyAction,
    owner: Option<Owner>,
    limits: ArchiveLimits,
    copied: Option<&mut CopiedFiles>,
) -> Result<()> {
    let options = options(action, owner, limits)?;
    kiln_tree::copy_recorded(source, target, &options, copied)
        .map_err(|error| missing(error, &[source]))
}

/// Returns the options of a copy action.
pub(super) fn options(
    action: &CopyAction,
    owner: Option<Owner>,
    limits: ArchiveLimits,
) -> Result<CopyOptions> {
    Ok(CopyOptions {
        source: action.src.clone(),
        dest: action.dest.clone(),
        owner,
        mode: mode(action)?,
        mtime: (action.timestamp != -1).then(|| Timestamp::from_nanoseconds(action.timestamp)),
        follow_symlink: action.follow_symlink,
        dir_copy_contents: action.dir_copy_contents,
        unpack: action.attempt_unpack_docker_compatibility,
        create_dest_path: action.create_dest_path,
        allow_wildcard: action.allow_wildcard,
        allow_empty_wildcard: action.allow_empty_wildcard,
        include: action.include_patterns.clone(),
        exclude: action.exclude_patterns.clone(),
        exclude_matches: action.exclude_matches,
        always_replace: action.always_replace_existing_dest_paths,
        required: action.required_paths.iter().map(PathBuf::from).collect(),
        limits,
    })
}

/// Converts the error about a missing source to BuildKit's message, which mentions the cache key:
/// BuildKit notices the missing source while it computes the step's key.
pub(crate) fn missing(error: kiln_tree::Error, sources: &[View<'_>]) -> Error {
    let kiln_tree::Error::NotFound { path } = &error else { return error.into() };
    let path = path.clone();
    let in_tree = path.strip_prefix("/").unwrap_or(&path);
    let excludes = sources.iter().filter_map(|source| Some((source.dir, source.excludes?)));
    let is_excluded = excludes.into_iter().any(|(dir, excludes)| {
        dir.metadata(in_tree, false).is_ok_and(|found| found.is_some())
            && excludes.matches(in_tree.as_os_str().as_bytes())
    });
    let siblings = sources.iter().flat_map(|source| siblings(source.dir, in_tree)).collect();
    Error::Missing { source: error, path, siblings, is_excluded, in_key: true }
}

/// Returns the names in the directory of a missing path, up to a limit.
fn siblings(dir: &Dir, path: &Path) -> Vec<String> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let names = if parent.as_os_str().is_empty() {
        dir.names()
    } else {
        dir.open_dir(parent).and_then(|parent| parent.names())
    };
    let names = names.unwrap_or_default().into_iter().take(MAX_SIBLINGS);
    names.filter_map(|name| String::from_utf8(name).ok()).collect()
}

/// The maximum number of names that are compared with a missing one.
const MAX_SIBLINGS: usize = 10_000;

fn mode(action: &CopyAction) -> Result<Option<ModeChange>> {
    match (action.mode_str.as_str(), action.mode) {
        ("", -1) => Ok(None),
        ("", bits) => Ok(Some(ModeChange::set(bits as u32))),
        (text, _) => Ok(Some(ModeChange::parse(text)?)),
    }
}

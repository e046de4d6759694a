//! Copies from one tree into another.

use std::path::PathBuf;

use kiln_llb::op::CopyAction;
use kiln_tree::{ArchiveLimits, CopyOptions, Dir, ModeChange, Owner, Timestamp, View};

use crate::error::{Error, Result};

/// Copies what an action selects of `source` into `target`.
pub(super) fn copy(
    source: View<'_>,
    target: &Dir,
    action: &CopyAction,
    (owner, limits): (Option<Owner>, ArchiveLimits),
) -> Result<()> {
    kiln_tree::copy(source, target, &options(action, (owner, limits))?).map_err(missing)
}

/// Returns what an action says of how to copy.
pub(super) fn options(
    action: &CopyAction,
    (owner, limits): (Option<Owner>, ArchiveLimits),
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
        always_replace: action.always_replace_existing_dest_paths,
        required: action.required_paths.iter().map(PathBuf::from).collect(),
        limits,
    })
}

/// Says of a missing source what people know from BuildKit, where it is missed when the step's key
/// is computed.
pub(crate) fn missing(error: kiln_tree::Error) -> Error {
    match error {
        error @ kiln_tree::Error::NotFound { .. } => {
            Error::Invalid(format!("failed to compute cache key: {error}"))
        }
        error => error.into(),
    }
}

fn mode(action: &CopyAction) -> Result<Option<ModeChange>> {
    match (action.mode_str.as_str(), action.mode) {
        ("", -1) => Ok(None),
        ("", bits) => Ok(Some(ModeChange::set(bits as u32))),
        (text, _) => Ok(Some(ModeChange::parse(text)?)),
    }
}

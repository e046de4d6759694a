//! The files of several platforms, in separate directories or merged into one.

use kiln_oci::Platform;
use kiln_tree::{Dir, PackOptions, Timestamp, Whiteouts};
use kiln_tree::{Plan, find_conflict};

use crate::error::{Error, Result};
use crate::export::{ExportContext, ExportRequest};
use crate::merged;

/// Opens the files of each image.
pub(crate) fn open(request: &ExportRequest, context: &ExportContext<'_>) -> Result<Vec<Dir>> {
    request.images.iter().map(|image| merged::open_files(image.layer.as_ref(), context)).collect()
}

/// Plans the tar of an image's files.
pub(crate) fn plan(source: &Dir, epoch: Option<i64>) -> Result<Plan<'_>> {
    let options = PackOptions { whiteouts: Whiteouts::None, clamp_mtime: None };
    let plan = Plan::new(source, options)?;
    // All files have the epoch as their time, as in an output to a directory.
    Ok(match epoch {
        Some(seconds) => plan.stamped(Timestamp { seconds, nanoseconds: 0 }),
        None => plan,
    })
}

/// Returns an error if two images have different files at the same path.
pub(crate) fn check_conflicts(request: &ExportRequest, sources: &[Dir]) -> Result<()> {
    if sources.len() < 2 {
        return Ok(());
    }
    let plans: Vec<_> = sources.iter().map(|source| plan(source, None)).collect::<Result<_>>()?;
    let Some(conflict) = find_conflict(&plans) else { return Ok(()) };
    let platform = |number: usize| request.images[number].platform.to_string();
    Err(Error::Unsupported(format!(
        "cannot overwrite {} from {} with {} when split option is disabled",
        conflict.path.display(),
        platform(conflict.first),
        platform(conflict.second)
    )))
}

/// Returns the name of a platform's directory, as `linux_arm_v7` or `windows(10.0)_amd64`.
pub(crate) fn directory(platform: &Platform) -> String {
    platform.specifier().replace('/', "_")
}

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

/// Plans the tar of each image.
pub(crate) fn plans<'a>(request: &ExportRequest, sources: &'a [Dir]) -> Result<Vec<Plan<'a>>> {
    let plan = |(image, source): (&crate::ImageSource, &'a Dir)| {
        let options = PackOptions { whiteouts: Whiteouts::None, clamp_mtime: None };
        let plan = Plan::new(source, options)?;
        let stamp = |seconds| Timestamp { seconds, nanoseconds: 0 };
        // All files have the epoch as their time, as in an output to a directory.
        Ok(match image.epoch {
            Some(epoch) => plan.stamped(stamp(epoch)),
            None => plan,
        })
    };
    request.images.iter().zip(sources).map(plan).collect()
}

/// Returns an error if two images have different files at the same path.
pub(crate) fn check_conflicts(request: &ExportRequest, sources: &[Dir]) -> Result<()> {
    if sources.len() < 2 {
        return Ok(());
    }
    let Some(conflict) = find_conflict(&plans(request, sources)?) else { return Ok(()) };
    let platform = |number: usize| request.images[number].platform.to_string();
    Err(Error::Unsupported(format!(
        "cannot overwrite {} from {} with {} when split option is disabled",
        conflict.path.display(),
        platform(conflict.first),
        platform(conflict.second)
    )))
}

/// Returns the name of a platform's directory, as `linux_arm_v7`.
pub(crate) fn directory(platform: &Platform) -> String {
    platform.to_string().replace('/', "_")
}

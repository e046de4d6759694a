//! The files of an image, in a tar.

use kiln_tree::Timestamp;

use crate::archive;
use crate::error::Result;
use crate::export::{ExportContext, ExportRequest};
use crate::platforms;
use crate::spec::Destination;

/// Writes the files as a tar.
pub(crate) fn write(
    request: &ExportRequest,
    dest: &Destination,
    split: bool,
    context: &mut ExportContext<'_>,
) -> Result<()> {
    let sources = platforms::open(request, context)?;
    if !split {
        platforms::check_conflicts(request, &sources)?;
    }
    let mut plans = platforms::plans(request, &sources)?;
    if split {
        let placed = plans.into_iter().zip(&request.images).map(|(plan, image)| {
            let seconds = image.epoch.unwrap_or_default();
            let directory = platforms::directory(&image.platform);
            plan.below(&directory, Timestamp { seconds, nanoseconds: 0 })
        });
        plans = placed.collect();
    }
    let mut failure = None;
    let written = archive::to_destination(dest, context, |mut sink, _| {
        let mut buffered = std::io::BufWriter::with_capacity(1 << 18, sink.stream());
        let packed = kiln_tree::pack::write_together(&plans, &mut buffered);
        if let Err(error) = packed {
            failure = Some(error);
            return Err(std::io::Error::other("the files can't be read"));
        }
        std::io::Write::flush(&mut buffered)
    });
    match failure {
        Some(error) => Err(error.into()),
        None => written,
    }
}

//! The files of an image in a tar.

use kiln_tree::pack::Plan;
use kiln_tree::{Dir, PackOptions, Timestamp, Whiteouts};

use crate::archive;
use crate::error::Result;
use crate::export::{ExportContext, ExportRequest};
use crate::platforms;
use crate::spec::Destination;

/// Writes the files as a tar. With `split`, each platform has a directory of its own.
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
    let said = said(request, &sources, split, context)?;
    let mut plans = Vec::new();
    for ((image, plan), said) in
        request.images.iter().zip(platforms::plans(request, &sources)?).zip(&said)
    {
        let time = Timestamp { seconds: image.epoch.unwrap_or_default(), nanoseconds: 0 };
        let options = PackOptions { whiteouts: Whiteouts::None, clamp_mtime: None };
        let said = said.as_ref().map(|dir| Plan::new(dir, options)).transpose()?;
        let said = said.map(|plan| plan.stamped(time));
        let below = split.then(|| platforms::directory(&image.platform));
        for plan in std::iter::once(plan).chain(said) {
            plans.push(match &below {
                Some(directory) => plan.below(directory, time),
                None => plan,
            });
        }
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

/// Returns a directory with the statements about each image, or `None` for an image without
/// statements.
fn said(
    request: &ExportRequest,
    sources: &[Dir],
    split: bool,
    context: &ExportContext<'_>,
) -> Result<Vec<Option<Dir>>> {
    let shares = !split && request.is_index();
    let images = request.images.iter().zip(sources).enumerate();
    let said = images.map(|(number, (image, source))| {
        let files = request.attest_files(number, image, source, shares)?;
        if files.is_empty() {
            return Ok(None);
        }
        let dir = Dir::open(&context.store.temp_dir()?)?;
        files.write(&dir)?;
        Ok(Some(dir))
    });
    said.collect()
}

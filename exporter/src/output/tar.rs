//! `type=tar`: the files of an image in a tar.

use kiln_tree::Plan;
use kiln_tree::{Dir, PackOptions, Timestamp, Whiteouts};

use super::keys::{Checked, Keys};
use super::{Export, Exporter, Output, OutputForm, OutputKind, options};
use crate::archive::{self, Destination};
use crate::error::Result;
use crate::export::{ExportContext, ExportRequest, reported};
use crate::platforms;

#[derive(Debug)]
struct Tar {
    dest: Destination,
    /// `true` if each platform gets a directory of its own. By default, this is so with several
    /// platforms.
    split: Option<bool>,
}

/// Reads the keys of `type=tar`.
pub(super) fn parse(keys: &mut Keys) -> Checked<Output> {
    let split = keys.flag("platform-split")?;
    let dest = keys.file()?;
    options::files(keys, Tar { dest, split })
}

/// Returns the output for `-` on the command line.
pub(super) fn output() -> Output {
    Output::new(Tar { dest: Destination::Stdout, split: None })
}

impl Exporter for Tar {
    fn form(&self) -> OutputForm {
        OutputForm {
            destination: Some(self.dest.clone()),
            description: "an archive of the files",
            ..OutputForm::of(OutputKind::Files)
        }
    }

    fn write(&self, export: &mut Export<'_>, context: &mut ExportContext<'_>) -> Result<()> {
        let split = self.split.unwrap_or(export.request.is_index());
        reported("writing tar", context, |context| pack(&self.dest, export.request, split, context))
    }
}

/// Writes the files. With `split`, each platform has a directory of its own.
fn pack(
    dest: &Destination,
    request: &ExportRequest,
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
    let written = archive::to_stream(dest, context, |mut sink, _| {
        let mut buffered = std::io::BufWriter::with_capacity(1 << 18, sink.stream());
        let packed = kiln_tree::write_together(&plans, &mut buffered);
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

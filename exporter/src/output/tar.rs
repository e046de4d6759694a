//! `type=tar`: the files of an image in a tar.

use kiln_tree::Plan;
use kiln_tree::{Dir, PackOptions, Timestamp, Whiteouts};

use super::files::{self, ExportedFiles};
use super::keys::{Checked, Keys};
use super::{Export, Exporter, Output, OutputForm, OutputKind, options};
use crate::archive::{self, Destination};
use crate::error::Result;
use crate::export::{ExportContext, reported};
use crate::{attest, platforms};

#[derive(Debug)]
struct Tar {
    dest: Destination,
}

/// Reads the keys of `type=tar`.
pub(super) fn parse(keys: &mut Keys) -> Checked<Output> {
    let dest = keys.file()?;
    options::files(keys, Tar { dest })
}

/// Returns the output for `-` on the command line.
pub(super) fn output() -> Output {
    Output::new(Tar { dest: Destination::Stdout })
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
        reported("writing tar", context, |context| pack(&self.dest, export, context))
    }
}

/// Writes the files of all images.
fn pack(dest: &Destination, export: &Export<'_>, context: &mut ExportContext<'_>) -> Result<()> {
    let files = files::of_images(export, context)?;
    let said: Vec<Option<Dir>> =
        files.iter().map(|image| said(image, context)).collect::<Result<_>>()?;
    let mut plans = Vec::new();
    for (image, said) in files.iter().zip(&said) {
        let time = Timestamp { seconds: image.epoch.unwrap_or_default(), nanoseconds: 0 };
        let options = PackOptions { whiteouts: Whiteouts::None, clamp_mtime: None };
        let said = said.as_ref().map(|dir| Plan::new(dir, options)).transpose()?;
        let said = said.map(|plan| plan.stamped(time));
        for plan in std::iter::once(platforms::plan(&image.dir, image.epoch)?).chain(said) {
            plans.push(match &image.below {
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

/// Returns a directory with the statements about an image, or `None` for an image without
/// statements.
fn said(image: &ExportedFiles, context: &ExportContext<'_>) -> Result<Option<Dir>> {
    if image.attestations.is_empty() {
        return Ok(None);
    }
    let dir = Dir::open(&context.store.temp_dir()?)?;
    attest::write(&image.attestations, &dir)?;
    Ok(Some(dir))
}

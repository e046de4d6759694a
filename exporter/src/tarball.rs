//! The files of an image, in a tar.

use kiln_tree::{PackOptions, Timestamp, Whiteouts};

use crate::archive;
use crate::error::{Error, Result};
use crate::export::{ExportContext, ExportRequest};
use crate::merged;
use crate::spec::Destination;

/// Writes the files as a tar.
pub(crate) fn write(
    request: &ExportRequest,
    dest: &Destination,
    split: bool,
    context: &mut ExportContext<'_>,
) -> Result<()> {
    let [image] = request.images.as_slice() else {
        let problem = "type tar of several platforms is not supported yet";
        return Err(Error::Unsupported(problem.to_owned()));
    };
    if split {
        let problem = "platform-split of type tar is not supported yet";
        return Err(Error::Unsupported(problem.to_owned()));
    }
    let source = merged::open(image.layer.as_ref(), context)?;
    let clamp_mtime = request.epoch.map(|seconds| Timestamp { seconds, nanoseconds: 0 });
    let options = PackOptions { whiteouts: Whiteouts::None, clamp_mtime };
    let mut failure = None;
    let written = archive::to_destination(dest, context, |mut sink, _| {
        let mut buffered = std::io::BufWriter::with_capacity(1 << 18, sink.stream());
        let packed = kiln_tree::pack(&source, &mut buffered, options);
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

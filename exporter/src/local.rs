//! The files of an image, in a directory.

use std::fs;
use std::path::Path;

use kiln_tree::{CopyOptions, Dir, Ids, Owner, Timestamp, View};

use crate::attest::Prepared;
use crate::error::{Error, Result};
use crate::export::{ExportContext, ExportRequest};
use crate::platforms;

/// Copies the files into `dest`, over what is there.
pub(crate) fn write(
    (request, prepared): (&ExportRequest, &Prepared<'_>),
    dest: &Path,
    split: bool,
    context: &ExportContext<'_>,
) -> Result<()> {
    // Who isn't root gets files of his own, and none of users that only he has.
    let owner = Ids::current().is_namespace().then(Owner::default);
    let sources = platforms::open(request, context)?;
    if !split {
        platforms::check_conflicts(request, &sources)?;
    }
    let shares = !split && request.is_index();
    for (number, (image, source)) in request.images.iter().zip(&sources).enumerate() {
        let place = || dest.join(platforms::directory(&image.platform));
        let dest = if split { place() } else { dest.to_owned() };
        fs::create_dir_all(&dest).map_err(Error::io("create", &dest))?;
        let options = CopyOptions {
            source: "/".to_owned(),
            dest: "/".to_owned(),
            dir_copy_contents: true,
            create_dest_path: true,
            always_replace: true,
            owner,
            mtime: image.epoch.map(|seconds| Timestamp { seconds, nanoseconds: 0 }),
            ..CopyOptions::default()
        };
        let view = View { dir: source, excludes: None, owner: None, xattrs: true };
        let said = prepared.files((number, image), source, shares)?;
        let dest = Dir::open(&dest)?;
        kiln_tree::copy(view, &dest, &options)?;
        said.write(&dest)?;
    }
    Ok(())
}

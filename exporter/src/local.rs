//! The files of an image, in a directory.

use std::fs;
use std::path::Path;

use kiln_oci::Platform;
use kiln_tree::{CopyOptions, Dir, Ids, Owner, Timestamp, View};

use crate::error::{Error, Result};
use crate::export::{ExportContext, ExportRequest};
use crate::merged;

/// Copies the files into `dest`, over what is there.
pub(crate) fn write(
    request: &ExportRequest,
    dest: &Path,
    split: bool,
    context: &ExportContext<'_>,
) -> Result<()> {
    // Who isn't root gets files of his own, and none of users that only he has.
    let owner = Ids::current().is_namespace().then(Owner::default);
    for image in &request.images {
        let dest = if split { dest.join(directory(&image.platform)) } else { dest.to_owned() };
        fs::create_dir_all(&dest).map_err(Error::io("create", &dest))?;
        let source = merged::open(image.layer.as_ref(), context)?;
        let options = CopyOptions {
            source: "/".to_owned(),
            dest: "/".to_owned(),
            dir_copy_contents: true,
            create_dest_path: true,
            always_replace: true,
            owner,
            mtime: request.epoch.map(|seconds| Timestamp { seconds, nanoseconds: 0 }),
            ..CopyOptions::default()
        };
        let view = View { dir: &source, excludes: None, owner: None, xattrs: true };
        kiln_tree::copy(view, &Dir::open(&dest)?, &options)?;
    }
    Ok(())
}

/// Returns the name of a platform's directory, as `linux_arm_v7`.
pub(crate) fn directory(platform: &Platform) -> String {
    platform.to_string().replace('/', "_")
}

//! The files of an image in a directory.

use std::fs;
use std::path::Path;

use kiln_tree::{CopyOptions, Dir, Ids, Owner, Timestamp, View};

use crate::error::{Error, Result};
use crate::export::{ExportContext, ExportRequest};
use crate::{mirror, platforms};

/// Copies the files into `dest`, over existing ones. With `split`, each platform has a directory of
/// its own. With `delete`, entries that aren't in the images are removed.
pub(crate) fn write(
    request: &ExportRequest,
    dest: &Path,
    split: bool,
    delete: bool,
    context: &ExportContext<'_>,
) -> Result<()> {
    // In a user namespace, the user owns all files. The namespace's other IDs have no meaning
    // outside.
    let owner = Ids::current().is_namespace().then(Owner::default);
    let sources = platforms::open(request, context)?;
    if !split {
        platforms::check_conflicts(request, &sources)?;
    }
    let shares = !split && request.is_index();
    let mut statements = Vec::new();
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
        let view = View::of(source);
        let said = request.attest_files(number, image, source, shares)?;
        let dest = Dir::open(&dest)?;
        kiln_tree::copy(view, &dest, &options)?;
        statements.push((dest, said));
    }
    if delete {
        remove_others(request, dest, split, &sources)?;
    }
    statements.iter().try_for_each(|(dest, said)| said.write(dest))
}

/// Removes the entries of the destination that aren't in the images.
fn remove_others(request: &ExportRequest, dest: &Path, split: bool, sources: &[Dir]) -> Result<()> {
    let root = Dir::open(dest)?;
    if !split {
        return mirror::remove_others(&root, sources);
    }
    let names: Vec<String> =
        request.images.iter().map(|image| platforms::directory(&image.platform)).collect();
    mirror::keep_only(&root, &names)?;
    for (name, source) in names.iter().zip(sources) {
        mirror::remove_others(&root.open_dir(Path::new(name))?, std::slice::from_ref(source))?;
    }
    Ok(())
}

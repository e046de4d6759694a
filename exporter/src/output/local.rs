//! `type=local`: the files of an image in a directory.

#![expect(clippy::disallowed_methods, reason = "the user names the destination")]

use std::fs;
use std::path::{Path, PathBuf};

use kiln_tree::{CopyOptions, Dir, Ids, Owner, Timestamp, View};

use super::files::{self, ExportedFiles};
use super::keys::{Checked, Keys};
use super::{Export, Exporter, Output, OutputForm, OutputKind, options};
use crate::archive::Destination;
use crate::error::{Error, Result};
use crate::export::{ExportContext, reported};
use crate::{attest, mirror};

#[derive(Debug)]
struct Local {
    dest: PathBuf,
    /// `true` if entries of the directory that aren't in the image are removed.
    delete: bool,
}

/// Reads the keys of `type=local`.
pub(super) fn parse(keys: &mut Keys) -> Checked<Output> {
    let delete = match keys.take("mode").as_deref() {
        None | Some("copy") => false,
        Some("delete") => true,
        Some(other) => return Err(format!("mode is {other:?}, expected copy or delete")),
    };
    let dest = keys.directory()?;
    options::files(keys, Local { dest, delete })
}

/// Returns the output for a lone path on the command line.
pub(super) fn output(dest: &str) -> Output {
    Output::new(Local { dest: dest.into(), delete: false })
}

impl Exporter for Local {
    fn form(&self) -> OutputForm {
        OutputForm {
            destination: Some(Destination::Directory(self.dest.clone())),
            description: "the files",
            removes_others: self.delete,
            ..OutputForm::of(OutputKind::Files)
        }
    }

    fn write(&self, export: &mut Export<'_>, context: &mut ExportContext<'_>) -> Result<()> {
        let name = format!("copying files to {}", self.dest.display());
        reported(&name, context, |context| copy(self, export, context))
    }
}

/// Copies the files over existing ones.
fn copy(local: &Local, export: &Export<'_>, context: &ExportContext<'_>) -> Result<()> {
    // In a user namespace, the user owns all files. The namespace's other IDs have no meaning
    // outside.
    let owner = Ids::current().is_namespace().then(Owner::default);
    let files = files::of_images(export, context)?;
    let mut dests = Vec::new();
    for image in &files {
        let dest =
            image.below.as_ref().map_or_else(|| local.dest.clone(), |it| local.dest.join(it));
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
        let dest = Dir::open(&dest)?;
        kiln_tree::copy(View::of(&image.dir), &dest, &options)?;
        dests.push(dest);
    }
    if local.delete {
        remove_others(&local.dest, &files)?;
    }
    dests.iter().zip(&files).try_for_each(|(dest, image)| attest::write(&image.attestations, dest))
}

/// Removes the entries of the destination that aren't in the images.
fn remove_others(dest: &Path, files: &[ExportedFiles]) -> Result<()> {
    let root = Dir::open(dest)?;
    let names: Vec<String> = files.iter().filter_map(|image| image.below.clone()).collect();
    if names.is_empty() {
        let sources: Vec<&Dir> = files.iter().map(|image| &image.dir).collect();
        return mirror::remove_others(&root, &sources);
    }
    mirror::keep_only(&root, &names)?;
    for (name, image) in names.iter().zip(files) {
        mirror::remove_others(&root.open_dir(Path::new(name))?, &[&image.dir])?;
    }
    Ok(())
}

//! `type=local`: the files of an image in a directory.

#![expect(clippy::disallowed_methods, reason = "the user names the destination")]

use std::fs;
use std::path::{Path, PathBuf};

use kiln_tree::{CopyOptions, Dir, Ids, Owner, Timestamp, View};

use super::keys::{Checked, Keys};
use super::{Export, Exporter, Output, OutputForm, OutputKind, options};
use crate::archive::Destination;
use crate::error::{Error, Result};
use crate::export::{ExportContext, ExportRequest, reported};
use crate::{mirror, platforms};

#[derive(Debug)]
struct Local {
    dest: PathBuf,
    /// `true` if each platform gets a directory of its own. By default, this is so with several
    /// platforms.
    split: Option<bool>,
    /// `true` if entries of the directory that aren't in the image are removed.
    delete: bool,
}

/// Reads the keys of `type=local`.
pub(super) fn parse(keys: &mut Keys) -> Checked<Output> {
    let split = keys.flag("platform-split")?;
    let delete = match keys.take("mode").as_deref() {
        None | Some("copy") => false,
        Some("delete") => true,
        Some(other) => return Err(format!("mode is {other:?}, expected copy or delete")),
    };
    let dest = keys.directory()?;
    options::files(keys, Local { dest, split, delete })
}

/// Returns the output for a lone path on the command line.
pub(super) fn output(dest: &str) -> Output {
    Output::new(Local { dest: dest.into(), split: None, delete: false })
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
        let split = self.split.unwrap_or(export.request.is_index());
        reported(&name, context, |context| copy(self, export.request, split, context))
    }
}

/// Copies the files over existing ones. With `split`, each platform has a directory of its own.
fn copy(
    local: &Local,
    request: &ExportRequest,
    split: bool,
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
        let below = || local.dest.join(platforms::directory(&image.platform));
        let dest = if split { below() } else { local.dest.clone() };
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
    if local.delete {
        remove_others(request, &local.dest, split, &sources)?;
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

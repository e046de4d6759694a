//! `type=docker` with `dest`: archives for `docker load`. Without `dest`, an engine loads the image
//! ([`load`]).
//!
//! Such an archive is an OCI layout with one more file, `manifest.json`, which gives the paths of
//! config and layers. Engines before the containerd image store read only that file; newer ones
//! read the layout.

use kiln_oci::{Reference, limits};
use serde::Serialize;

use super::keys::{Checked, Keys};
use super::{Export, Exporter, Output, OutputForm, OutputKind, load, oci, options};
use crate::archive::{self, Destination, Files, blob_path};
use crate::assemble::{self, Assembled};
use crate::error::{Error, Result};
use crate::export::{ExportContext, reported};

#[derive(Debug)]
struct Docker {
    dest: Destination,
}

/// Reads the keys of `type=docker`.
pub(super) fn parse(keys: &mut Keys) -> Checked<Output> {
    let dest = match (keys.flag("tar")?, keys.has("dest")) {
        (Some(false), _) => Destination::Directory(keys.directory()?),
        (_, true) => keys.file()?,
        (_, false) => return load::parse(keys),
    };
    options::archive(keys, Docker { dest })
}

impl Exporter for Docker {
    fn form(&self) -> OutputForm {
        OutputForm {
            destination: Some(self.dest.clone()),
            description: match self.dest {
                Destination::Directory(_) => "the files of a docker archive",
                _ => "a docker archive",
            },
            is_for_one_platform: true,
            ..OutputForm::of(OutputKind::Archive)
        }
    }

    fn write(&self, export: &mut Export<'_>, context: &mut ExportContext<'_>) -> Result<()> {
        let files = files(export.assembled, &export.output.names)?;
        let form =
            if matches!(self.dest, Destination::Directory(_)) { "layout" } else { "archive" };
        reported(&format!("writing docker {form}"), context, |context| {
            archive::write(&files, &self.dest, context)
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Returns the files of the archive.
pub(super) fn files(assembled: &Assembled, names: &[Reference]) -> Result<Files> {
    let [image] = assembled.images.as_slice() else {
        return Err(no_index());
    };
    let mut files = oci::layout(assembled, names)?;
    let entry = Entry {
        config: blob_path(&image.config.digest),
        // `null` if the image has no names, as Docker itself writes it.
        repo_tags: (!names.is_empty()).then(|| names.iter().filter_map(tag).collect()),
        layers: image.layers.iter().map(|layer| blob_path(&layer.digest)).collect(),
    };
    let list = assemble::json(&[entry])?;
    limits::check_document("list of the archive", list.len())?;
    files.insert("manifest.json", list);
    Ok(files)
}

/// Returns the error for an output of several platforms.
pub(super) fn no_index() -> Error {
    let problem = "docker exporter does not currently support exporting manifest lists";
    Error::Unsupported(format!("{problem}: use type=oci, or build for one platform"))
}

/// Returns a name in Docker's short form, with its tag and without its digest. Returns `None` for a
/// name without a tag.
pub(crate) fn tag(name: &Reference) -> Option<String> {
    name.tag().map(|tag| {
        let full = name.name();
        let short = full.strip_prefix("docker.io/").unwrap_or(&full);
        format!("{}:{tag}", short.strip_prefix("library/").unwrap_or(short))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_as_docker_shows_them() {
        for (text, expected) in [
            ("a", Some("a:latest")),
            ("user/a:1", Some("user/a:1")),
            ("localhost:5000/a:1", Some("localhost:5000/a:1")),
        ] {
            let name: Reference = text.parse().unwrap();
            assert_eq!(tag(&name).as_deref(), expected);
        }
        let digest = format!("a@sha256:{}", "0".repeat(64));
        assert_eq!(tag(&digest.parse().unwrap()), None);
    }
}

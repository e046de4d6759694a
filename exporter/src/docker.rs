//! Archives for `docker load`.
//!
//! Such an archive is an OCI layout with one more file, `manifest.json`, which gives the paths of
//! config and layers. Engines before the containerd image store read only that file; newer ones
//! read the layout.

use kiln_oci::{Reference, limits};
use serde::Serialize;

use crate::archive::{Files, blob_path};
use crate::assemble::{self, Assembled};
use crate::error::{Error, Result};
use crate::oci;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Returns the files of the archive.
pub(crate) fn archive(assembled: &Assembled, names: &[Reference]) -> Result<Files> {
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
pub(crate) fn no_index() -> Error {
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

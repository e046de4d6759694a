//! Images with all their names, as docker lists them.

use std::collections::BTreeMap;

use anyhow::Result;
use kiln_oci::Reference;
use kiln_store::Store;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{StoredImage, Wanted, find_rows, list, no_such_image};

/// An image of the store with all its names.
#[derive(Debug)]
pub struct NamedImage {
    /// The image with its documents.
    pub image: StoredImage,
    /// The image's names, sorted.
    pub names: Vec<Reference>,
}

impl NamedImage {
    /// Returns the image's creation time in nanoseconds since 1970; 0 if it is unknown.
    pub fn created(&self) -> i128 {
        self.image.config.created.as_deref().map_or(0, nanoseconds)
    }

    /// Returns the names with a tag, in docker's short form.
    pub fn tags(&self) -> Vec<String> {
        self.names.iter().filter(|name| is_tagged(name)).map(Reference::familiar).collect()
    }

    /// Returns the names by digest, one for each repository.
    pub fn digests(&self) -> Vec<String> {
        let digest = self.image.row.digest;
        let mut names: Vec<String> =
            self.names.iter().map(|name| format!("{}@{digest}", repository(name))).collect();
        names.dedup();
        names
    }
}

/// Returns `true` if a name has a tag and no digest.
pub fn is_tagged(name: &Reference) -> bool {
    name.tag().is_some() && name.digest().is_none()
}

/// Returns a name's repository in docker's short form, such as `alpine` or `localhost:5000/app`.
pub fn repository(name: &Reference) -> String {
    let full = name.name();
    let short = full.strip_prefix("docker.io/").unwrap_or(&full);
    let official = short.strip_prefix("library/").filter(|name| !name.contains('/'));
    official.unwrap_or(short).to_owned()
}

/// Parses a time of an image into nanoseconds since 1970; returns 0 for an invalid one.
pub fn nanoseconds(time: &str) -> i128 {
    OffsetDateTime::parse(time, &Rfc3339).map_or(0, OffsetDateTime::unix_timestamp_nanos)
}

/// Returns every image of the store, newest first. Skips images with damaged documents and passes a
/// message to `report` for each.
pub fn named(store: &Store, report: &mut dyn FnMut(String)) -> Result<Vec<NamedImage>> {
    Ok(group(list(store, report)?))
}

/// Puts the names of each image together, the newest image first.
pub(super) fn group(images: Vec<StoredImage>) -> Vec<NamedImage> {
    let mut groups: BTreeMap<_, NamedImage> = BTreeMap::new();
    for image in images {
        let name = image.row.name.as_deref().and_then(|name| name.parse().ok());
        let group = groups.entry(image.id);
        let group = group.or_insert_with(|| NamedImage { image, names: Vec::new() });
        group.names.extend(name);
    }
    let mut images: Vec<NamedImage> = groups.into_values().collect();
    for image in &mut images {
        image.names.sort_by_key(ToString::to_string);
    }
    images.sort_by(|a, b| b.created().cmp(&a.created()).then_with(|| a.names.cmp(&b.names)));
    images
}

/// Finds an image by a name, by a prefix of its ID, or by its digest, with all its names.
///
/// # Errors
/// Fails if no image matches, or if the prefix matches several.
pub fn find_named(store: &Store, text: &str, wanted: Wanted<'_>) -> Result<NamedImage> {
    let Some(row) = find_rows(store, text)?.into_iter().next() else {
        return Err(no_such_image(store, text));
    };
    let image = StoredImage::load(store, row, wanted)
        .map_err(|error| error.context(format!("image {text}")))?;
    let id = image.id;
    let known = named(store, &mut |_| ())?.into_iter().find(|known| known.image.id == id);
    Ok(NamedImage { image, names: known.map(|known| known.names).unwrap_or_default() })
}

//! Removal of images with docker's rules: a name at a time, and the image with its last name.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use kiln_oci::{Digest, Reference};
use kiln_store::{Store, chain_id};

use super::named::{NamedImage, is_tagged, named};
use super::{Wanted, find_rows, no_such_image};

/// The result of a removal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Removed {
    /// The names that were removed.
    pub(crate) untagged: Vec<String>,
    /// The ID of the image if it was removed.
    pub(crate) deleted: Option<Digest>,
    /// The chain IDs of layers that no other image has, top layer first. The build cache may still
    /// keep some of them.
    pub(crate) chains: Vec<Digest>,
}

impl Removed {
    /// Returns the chain IDs of the layers that garbage collection has removed.
    pub(crate) fn gone(&self, store: &Store) -> Result<Vec<Digest>> {
        let mut gone = Vec::new();
        for chain in &self.chains {
            if store.layers().by_chain_id(chain)?.is_none() {
                gone.push(*chain);
            }
        }
        Ok(gone)
    }
}

/// Removes the name `text`, and the image with its last name. If `text` is an ID, removes the image
/// with all its names; several names require `force`.
///
/// # Errors
/// Fails if the image doesn't exist, or if it has several names and `force` isn't set.
pub(crate) fn remove(store: &Store, text: &str, force: bool) -> Result<Removed> {
    let Some(row) = find_rows(store, text)?.into_iter().next() else {
        return Err(no_such_image(store, text));
    };
    let by_name = row.name.as_deref().filter(|name| {
        text.parse::<Reference>().is_ok_and(|reference| reference.to_string() == **name)
    });
    let images = named(store, &mut |_| ())?;
    let is_it = |image: &NamedImage| {
        image.image.row.digest == row.digest
            || row
                .name
                .as_ref()
                .is_some_and(|name| image.names.iter().any(|known| known.to_string() == *name))
    };
    let Some(image) = images.iter().find(|image| is_it(image)) else {
        // The image's documents are damaged, so remove only its rows.
        let names = store.images().remove(&row.digest)?;
        let untagged = names.iter().map(|name| familiar(name)).collect();
        let deleted = Some(row.digest);
        return Ok(Removed { untagged, deleted, chains: Vec::new() });
    };
    let repository = by_digest(text).filter(|_| by_name.is_none());
    if let Some(repository) = &repository
        && image.names.iter().any(|name| name.name() != *repository)
    {
        let names = image.names.iter().filter(|name| name.name() == *repository);
        let mut untagged = Vec::new();
        for name in names.map(ToString::to_string) {
            store.images().remove_name(&name)?;
            untagged.push(familiar(&name));
        }
        return Ok(Removed { untagged, ..Removed::default() });
    }
    if let Some(name) = by_name {
        let mut left = image.names.iter().filter(|known| known.to_string() != *name);
        // The last tag of a repository takes the names by digest of that repository with it.
        let repository = name.parse::<Reference>().map(|name| name.name()).unwrap_or_default();
        if left.any(|left| is_tagged(left) || left.name() != repository) {
            store.images().remove_name(name)?;
            let untagged = vec![familiar(name)];
            return Ok(Removed { untagged, ..Removed::default() });
        }
    } else if !force && repository.is_none() && !is_single(&image.names) {
        let (id, names) = (image.image.id.short(), image.tags().join(", "));
        bail!(
            "conflict: unable to delete {id} (must be forced) - image is referenced in multiple \
             repositories: remove its names ({names}) one by one, or use --force"
        );
    }
    delete(store, image, &images)
}

/// Returns the repository of `NAME@DIGEST`, which stands for all the image's names in that
/// repository.
fn by_digest(text: &str) -> Option<String> {
    let reference = text.parse::<Reference>().ok()?;
    reference.digest().map(|_| reference.name())
}

/// Removes an image with all its names. `images` holds all images whose layers are kept.
pub(crate) fn delete(store: &Store, image: &NamedImage, images: &[NamedImage]) -> Result<Removed> {
    let mut kept = BTreeSet::new();
    for other in images.iter().filter(|other| other.image.id != image.image.id) {
        kept.extend(chains(other));
    }
    let mut chains = chains(image);
    chains.retain(|chain| !kept.contains(chain));
    chains.reverse();
    let mut untagged: Vec<String> = Vec::new();
    for name in &image.names {
        if let Some(row) = store.images().get(&name.to_string())? {
            untagged.extend(store.images().remove(&row.digest)?.iter().map(|name| familiar(name)));
        }
    }
    store.images().remove(&image.image.row.digest)?;
    untagged.sort();
    untagged.dedup();
    Ok(Removed { untagged, deleted: Some(image.image.id), chains })
}

/// Returns the chain IDs of an image's layers, base first.
fn chains(image: &NamedImage) -> Vec<Digest> {
    let next = |below: &mut Option<Digest>, diff_id: &Digest| {
        *below = Some(chain_id(below.as_ref(), diff_id));
        *below
    };
    image.image.config.rootfs.diff_ids().iter().scan(None, next).collect()
}

/// Returns `true` if the names have at most one tag and belong to one repository. Such an image can
/// be removed by its ID without `force`.
fn is_single(names: &[Reference]) -> bool {
    let repositories: BTreeSet<String> = names.iter().map(Reference::name).collect();
    repositories.len() <= 1 && names.iter().filter(|name| is_tagged(name)).count() <= 1
}

fn familiar(name: &str) -> String {
    name.parse::<Reference>().map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}

/// Returns `true` if no image matches a name.
pub(crate) fn is_missing(store: &Store, text: &str) -> bool {
    super::find(store, text, Wanted::Any).is_err()
}

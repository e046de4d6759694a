//! Images go as docker has them go: names first, and with the last name the image.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use kiln_oci::{Digest, Reference};
use kiln_store::{Store, chain_id};

use super::named::{NamedImage, is_tagged, named};
use super::{Wanted, find_rows, no_such_image};

/// What became of an image.
#[derive(Clone, Debug, Default)]
pub(crate) struct Removed {
    /// The names that it has lost.
    pub(crate) untagged: Vec<String>,
    /// Its ID, where it is gone.
    pub(crate) deleted: Option<Digest>,
    /// The chains of layers that no other image has, the uppermost first. Some may stay: builds
    /// have them in the cache.
    pub(crate) chains: Vec<Digest>,
}

impl Removed {
    /// Returns the chains that are gone, now that garbage was collected.
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

/// Takes the name away that `text` is, and the image with its last name; where it is an ID, the
/// image with all its names, several of which take `force`.
///
/// # Errors
/// Fails where there is no such image, and where it has several names and nobody insists.
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
        // Its documents are damaged: the rows can go all the same.
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
        // Names by digest of a repository go with its last tag.
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

/// Returns the repository of `NAME@DIGEST`, which stands for all the names that the image has there.
fn by_digest(text: &str) -> Option<String> {
    let reference = text.parse::<Reference>().ok()?;
    reference.digest().map(|_| reference.name())
}

/// Removes an image with all its names; `images` are all that there are.
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

/// Returns the chains of an image's layers, base first.
fn chains(image: &NamedImage) -> Vec<Digest> {
    let next = |below: &mut Option<Digest>, diff_id: &Digest| {
        *below = Some(chain_id(below.as_ref(), diff_id));
        *below
    };
    image.image.config.rootfs.diff_ids().iter().scan(None, next).collect()
}

/// Tells whether an image that is removed by its ID has at most one tag, and all its names in one
/// repository.
fn is_single(names: &[Reference]) -> bool {
    let repositories: BTreeSet<String> = names.iter().map(Reference::name).collect();
    repositories.len() <= 1 && names.iter().filter(|name| is_tagged(name)).count() <= 1
}

fn familiar(name: &str) -> String {
    name.parse::<Reference>().map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}

/// Tells whether there is no image of a name.
pub(crate) fn is_missing(store: &Store, text: &str) -> bool {
    super::find(store, text, Wanted::Any).is_err()
}

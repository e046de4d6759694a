//! Removal of images with docker's rules: a name at a time, and the image with its last name.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Error, Result, bail};
use kiln_oci::{Digest, Reference};
use kiln_store::{ImageRow, Store, chain_id};

use super::named::{NamedImage, group, is_tagged};
use super::similar::no_such_image_among;
use super::{digits, load, row_of_name, rows_of_digest, rows_of_id, with_digest};

/// The result of a removal.
#[derive(Clone, Debug, Default)]
pub struct Removed {
    /// The names that were removed.
    pub untagged: Vec<String>,
    /// The ID of the image if it was removed.
    pub deleted: Option<Digest>,
    /// The chain IDs of layers that no other image has, top layer first. The build cache may still
    /// keep some of them.
    pub chains: Vec<Digest>,
}

impl Removed {
    /// Returns the chain IDs of the layers that garbage collection has removed.
    pub fn gone(&self, store: &Store) -> Result<Vec<Digest>> {
        let mut gone = Vec::new();
        for chain in &self.chains {
            if store.layers().by_chain_id(chain)?.is_none() {
                gone.push(*chain);
            }
        }
        Ok(gone)
    }
}

/// The images of a store during the removal of some of them. The store is listed once for all
/// removals.
#[derive(Debug)]
pub struct Removal<'a> {
    store: &'a Store,
    /// All rows of the index, including those of damaged images.
    rows: Vec<ImageRow>,
    /// The rows of images with readable documents, each with the image ID.
    ids: Vec<(Digest, ImageRow)>,
    images: Vec<NamedImage>,
    /// The number of remaining images by chain ID, without the chain IDs that were reported as
    /// removed.
    chains: HashMap<Digest, usize>,
}

impl<'a> Removal<'a> {
    /// Lists the images of a store. Reports images with damaged documents to `report`.
    pub fn begin(store: &'a Store, report: &mut dyn FnMut(String)) -> Result<Self> {
        let rows = store.images().list()?;
        let found = load(store, rows.clone(), report);
        let ids = found.iter().map(|image| (image.id, image.row.clone())).collect();
        let images = group(found);
        let mut counts = HashMap::new();
        for chain in images.iter().flat_map(chains) {
            *counts.entry(chain).or_default() += 1;
        }
        Ok(Self { store, rows, ids, images, chains: counts })
    }

    /// Removes the name `text`, and the image with its last name. If `text` is an ID, removes the
    /// image with all its names; several names require `force`. Returns `None` if the image doesn't
    /// exist.
    ///
    /// # Errors
    /// Fails if the image has several names and `force` isn't set, or if the ID is ambiguous.
    pub fn remove(&mut self, text: &str, force: bool) -> Result<Option<Removed>> {
        let Some(row) = self.find(text)? else { return Ok(None) };
        let by_name = row.name.as_deref().filter(|name| {
            text.parse::<Reference>().is_ok_and(|reference| reference.to_string() == **name)
        });
        let Some(place) = self.images.iter().position(|image| is_of(image, &row)) else {
            // Its documents are damaged: the rows can go all the same.
            let names = self.remove_rows(&row.digest)?;
            let untagged = names.iter().map(|name| familiar(name)).collect();
            return Ok(Some(Removed { untagged, deleted: Some(row.digest), chains: Vec::new() }));
        };
        let image = &self.images[place];
        let repository = by_digest(text).filter(|_| by_name.is_none());
        if let Some(repository) = &repository
            && image.names.iter().any(|name| name.name() != *repository)
        {
            let names = image.names.iter().filter(|name| name.name() == *repository);
            let names: Vec<String> = names.map(ToString::to_string).collect();
            return self.untag(place, &names).map(Some);
        }
        if let Some(name) = by_name {
            let mut left = image.names.iter().filter(|known| known.to_string() != *name);
            // Names by digest of a repository go with its last tag.
            let repository = name.parse::<Reference>().map(|name| name.name()).unwrap_or_default();
            if left.any(|left| is_tagged(left) || left.name() != repository) {
                return self.untag(place, &[name.to_owned()]).map(Some);
            }
        } else if !force && repository.is_none() && !is_single(&image.names) {
            let (id, names) = (image.image.id.short(), image.tags().join(", "));
            bail!(
                "conflict: unable to delete {id} (must be forced) - image is referenced in multiple \
                 repositories: remove its names ({names}) one by one, or use --force"
            );
        }
        self.delete(place).map(Some)
    }

    /// Returns the error for a name without an image, with similar names.
    pub fn no_such_image(&self, text: &str) -> Error {
        no_such_image_among(&self.rows, text)
    }

    /// Removes the images that `is_doomed` selects, with all their names. A layer that several of them
    /// share is reported with the first.
    pub fn delete_all(
        &mut self,
        is_doomed: impl FnMut(&mut NamedImage) -> bool,
    ) -> Result<Vec<Removed>> {
        let doomed: Vec<NamedImage> = self.images.extract_if(.., is_doomed).collect();
        for image in &doomed {
            self.release(image);
        }
        doomed.iter().map(|image| self.remove_image(image)).collect()
    }

    /// Removes an image with all its names.
    fn delete(&mut self, place: usize) -> Result<Removed> {
        let image = self.images.remove(place);
        self.release(&image);
        self.remove_image(&image)
    }

    /// Decrements the counts for the chain IDs of an image.
    fn release(&mut self, image: &NamedImage) {
        for chain in chains(image) {
            self.chains.entry(chain).and_modify(|count| *count -= 1);
        }
    }

    fn remove_image(&mut self, image: &NamedImage) -> Result<Removed> {
        let mut chains = chains(image);
        chains.retain(|chain| self.chains.get(chain) == Some(&0));
        for chain in &chains {
            self.chains.remove(chain);
        }
        chains.reverse();
        let mut untagged: Vec<String> = Vec::new();
        for name in &image.names {
            if let Some(row) = self.store.images().get(&name.to_string())? {
                untagged.extend(self.remove_rows(&row.digest)?.iter().map(|name| familiar(name)));
            }
        }
        self.remove_rows(&image.image.row.digest)?;
        untagged.sort();
        untagged.dedup();
        Ok(Removed { untagged, deleted: Some(image.image.id), chains })
    }

    /// Takes names away from an image that has others.
    fn untag(&mut self, place: usize, names: &[String]) -> Result<Removed> {
        for name in names {
            self.store.images().remove_name(name)?;
        }
        self.forget(|row| row.name.as_ref().is_some_and(|name| names.contains(name)));
        self.images[place].names.retain(|name| !names.contains(&name.to_string()));
        let untagged = names.iter().map(|name| familiar(name)).collect();
        Ok(Removed { untagged, ..Removed::default() })
    }

    fn remove_rows(&mut self, digest: &Digest) -> Result<Vec<String>> {
        let names = self.store.images().remove(digest)?;
        self.forget(|row| row.digest == *digest);
        Ok(names)
    }

    fn forget(&mut self, is_gone: impl Fn(&ImageRow) -> bool) {
        self.rows.retain(|row| !is_gone(row));
        self.ids.retain(|(_, row)| !is_gone(row));
    }

    /// Finds what a name or an ID means, as [`super::find_rows`] does.
    fn find(&self, text: &str) -> Result<Option<ImageRow>> {
        if let Some(row) = row_of_name(self.store, text)? {
            return Ok(Some(row));
        }
        let found = match (with_digest(text), digits(text)) {
            (Some(reference), _) => rows_of_digest(&self.rows, &reference),
            (None, Some(digits)) => rows_of_id(&self.ids, digits)?,
            (None, None) => Vec::new(),
        };
        Ok(found.into_iter().next())
    }
}

/// Returns `true` if a row of the index belongs to an image.
fn is_of(image: &NamedImage, row: &ImageRow) -> bool {
    let name = row.name.as_ref();
    image.image.row.digest == row.digest
        || name.is_some_and(|name| image.names.iter().any(|known| known.to_string() == *name))
}

/// Returns the repository of `NAME@DIGEST`, which stands for all the image's names in that
/// repository.
fn by_digest(text: &str) -> Option<String> {
    let reference = text.parse::<Reference>().ok()?;
    reference.digest().map(|_| reference.name())
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

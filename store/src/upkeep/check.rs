//! Checks of the whole store, and removal of damaged parts.
//!
//! | part | damaged if |
//! | --- | --- |
//! | the index | SQLite reports errors |
//! | a row of the index | its checksum is wrong (`db::sums`) |
//! | a blob | its bytes don't match its digest |
//! | a tree | its stamp or its seal has changed (`layers::integrity`) |
//! | an image | a part of it is neither in the store nor available elsewhere |
//!
//! A repair removes the damaged parts, and then everything that depends on them: layers without any
//! form and the layers above them, cache records with such layers, images without their documents
//! or layers. The next build creates them again. If SQLite can't read the index, the index is moved
//! aside and replaced by an empty one. Its trees and blobs are then garbage; cache mounts and
//! volumes are kept.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use kiln_oci::{Digest, json, media_type};
use rusqlite::{Connection, OpenFlags};
use serde::Deserialize;

use super::{Upkeep, recovery};
use crate::cache::lost::forget_lost;
use crate::content::images::ImageRow;
use crate::db::{digest_column, schema, sums};
use crate::error::{Error, Result};
use crate::layers::LayerId;
use crate::layers::integrity::TreeRecord;
use crate::room::Room;
use crate::room::lock::RootLock;

/// The maximal number of problems that SQLite reports.
const PROBLEMS: u32 = 20;
/// The maximal size in bytes of a manifest or index that is read.
const DOCUMENT: u64 = 16 << 20;

/// A damaged part of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The part that is damaged.
    pub what: Damaged,
    /// The problem, as a phrase.
    pub problem: String,
}

/// A part of the store that can be damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damaged {
    /// Rows of this table of the index.
    Rows(&'static str),
    /// The blob with this digest.
    Blob(Digest),
    /// The tree of this layer.
    Tree(LayerId),
    /// The image with this manifest or index.
    Image(Digest),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = &self.problem;
        match &self.what {
            Damaged::Rows(table) => write!(f, "index, table {table}: {problem}"),
            Damaged::Blob(digest) => write!(f, "blob {digest}: {problem}"),
            Damaged::Tree(layer) => write!(f, "tree of layer {layer}: {problem}"),
            Damaged::Image(digest) => write!(f, "image {digest}: {problem}"),
        }
    }
}

impl Upkeep {
    /// Checks every row, every blob and every tree, and returns the damaged ones. Adds the seals of
    /// trees that have none. Reads all data.
    pub(crate) fn check(&self) -> Result<Vec<Damage>> {
        let mut found = self.check_rows()?;
        found.extend(self.check_blobs()?);
        found.extend(self.check_trees()?);
        found.extend(self.check_images()?);
        Ok(found)
    }

    /// Removes damaged parts, and everything that depends on them.
    pub(crate) fn repair(&self, found: &[Damage]) -> Result<()> {
        let room = &self.room;
        {
            let _alone = RootLock::exclusive(room.root())?;
            for damage in found {
                match &damage.what {
                    Damaged::Blob(digest) => self.content().remove_corrupt(digest)?,
                    Damaged::Tree(layer) => drop_tree(room, layer)?,
                    Damaged::Rows(_) | Damaged::Image(_) => {}
                }
            }
            room.index().write("repair", |transaction| {
                for (table, sum) in sums::TABLES {
                    let sql = format!("DELETE FROM {table} WHERE sum IS NOT {sum}");
                    transaction.execute(&sql, [])?;
                }
                forget_lost(transaction)
            })?;
            recovery::sweep(room)?;
        }
        // The removed parts may have belonged to further images.
        let together = self.images.together();
        for damage in self.check_images()? {
            if let Damaged::Image(digest) = &damage.what {
                self.images.remove(digest)?;
            }
        }
        together.end()
    }

    fn check_rows(&self) -> Result<Vec<Damage>> {
        self.room.index().read("check rows", |connection| {
            let mut found = Vec::new();
            for (table, sum) in sums::TABLES {
                let sql = format!("SELECT count(*) FROM {table} WHERE sum IS NOT {sum}");
                let count: i64 = connection.query_row(&sql, [], |row| row.get(0))?;
                if count > 0 {
                    let rows = if count == 1 { "row has" } else { "rows have" };
                    let problem = format!("{count} {rows} a wrong checksum");
                    found.push(Damage { what: Damaged::Rows(table), problem });
                }
            }
            Ok(found)
        })
    }

    fn check_blobs(&self) -> Result<Vec<Damage>> {
        let content = self.content();
        let digests = self.room.index().read("list blobs", |connection| {
            digest_column(connection, "SELECT digest FROM blobs ORDER BY digest")
        })?;
        let mut found = Vec::new();
        for digest in digests {
            if let Some(problem) = content.problem(&digest)? {
                found.push(Damage { what: Damaged::Blob(digest), problem });
            }
        }
        Ok(found)
    }

    fn check_trees(&self) -> Result<Vec<Damage>> {
        let mut found = Vec::new();
        for id in self.layers.with_trees()? {
            if let Some(problem) = self.problem_of_tree(&id)? {
                found.push(Damage { what: Damaged::Tree(id), problem: problem.to_owned() });
            }
        }
        Ok(found)
    }

    fn problem_of_tree(&self, id: &LayerId) -> Result<Option<&'static str>> {
        let layers = &self.layers;
        // A damaged row is reported separately.
        let Ok(Some(layer)) = layers.get(id) else { return Ok(None) };
        let Ok(stamp) = layers.stamp_of(id) else {
            // Garbage collection in another process may have removed the tree.
            let is_there = layers.get(id)?.is_some_and(|layer| layer.has_tree);
            return Ok(is_there.then_some("it can't be read"));
        };
        if layer.tree.as_ref().is_some_and(|record| record.stamp != stamp) {
            return Ok(Some("it was changed"));
        }
        if !layers.has_all_parts(&layer)? {
            return Ok(Some("a part of it is missing"));
        }
        let Ok(seal) = layers.seal_of(id) else { return Ok(Some("it can't be read")) };
        match layer.tree {
            Some(TreeRecord { seal: Some(known), .. }) if known != seal => {
                Ok(Some("a file holds something else than was stored"))
            }
            Some(TreeRecord { seal: Some(_), .. }) => Ok(None),
            _ => layers.record(id, &stamp, &seal).map(|()| None),
        }
    }

    fn check_images(&self) -> Result<Vec<Damage>> {
        let Ok(images) = self.images.list() else { return Ok(Vec::new()) };
        let mut found: Vec<Damage> = Vec::new();
        for image in images {
            let what = Damaged::Image(image.digest);
            if found.iter().any(|damage| damage.what == what) {
                continue;
            }
            if let Some(problem) = self.problem_of_image(&image)? {
                found.push(Damage { what, problem });
            }
        }
        Ok(found)
    }

    /// Returns the problem of an image, if it has one. For an index, only the parts in the store
    /// count.
    fn problem_of_image(&self, image: &ImageRow) -> Result<Option<String>> {
        let is_index = media_type::is_index(&image.media_type);
        let Some(document) = self.document(&image.digest) else {
            return Ok(Some("its manifest can't be read".to_owned()));
        };
        if !is_index {
            return self.missing_part(&document);
        }
        for manifest in &document.manifests {
            if self.content().size(&manifest.digest)?.is_none() {
                continue;
            }
            let problem = match self.document(&manifest.digest) {
                Some(document) => self.missing_part(&document)?,
                None => Some("a manifest can't be read".to_owned()),
            };
            if problem.is_some() {
                return Ok(problem);
            }
        }
        Ok(None)
    }

    fn document(&self, digest: &Digest) -> Option<Document> {
        json::from_go(&self.content().read(digest, DOCUMENT).ok()?).ok()
    }

    fn missing_part(&self, manifest: &Document) -> Result<Option<String>> {
        if let Some(config) = &manifest.config
            && self.content().size(&config.digest)?.is_none()
        {
            return Ok(Some("its config is missing".to_owned()));
        }
        for layer in &manifest.layers {
            let sql = "SELECT 1 FROM layer_blobs JOIN layers ON layers.id = layer_blobs.layer
                       WHERE digest = ?1 AND (origin IS NOT NULL OR has_tree)";
            let can_be_had = self.content().size(&layer.digest)?.is_some()
                || self.room.index().read("look up a layer", |connection| {
                    connection.prepare_cached(sql)?.exists([layer.digest.as_bytes()])
                })?;
            if !can_be_had {
                return Ok(Some(format!("its layer {} is missing", layer.digest)));
            }
        }
        Ok(None)
    }
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    manifests: Vec<Part>,
    config: Option<Part>,
    #[serde(default)]
    layers: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    digest: Digest,
}

fn drop_tree(room: &Room, layer: &LayerId) -> Result<()> {
    let sql = "UPDATE layers SET has_tree = 0, stamp = NULL, entries = NULL, seal = NULL
               WHERE id = ?1";
    room.index().write("drop a tree", |transaction| {
        transaction.prepare_cached(sql)?.execute([layer.as_str()]).map(|_| ())
    })?;
    room.discard(&room.trees().join(layer.as_str()))
}

/// Lets SQLite check the index of the store at `root` without opening the store. Returns the
/// problems; the list is empty if there is no index.
///
/// # Errors
/// Fails if the file can't be opened.
pub fn check_index(root: &Path) -> Result<Vec<String>> {
    let path = root.join("kiln.db");
    if !path.exists() {
        return Ok(Vec::new());
    }
    let answers = || -> rusqlite::Result<Vec<String>> {
        let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        sums::register(&connection)?;
        let sql = format!("PRAGMA integrity_check({PROBLEMS})");
        let mut statement = connection.prepare(&sql)?;
        let mut answers: Vec<String> =
            statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        let known = "SELECT count(*) FROM meta WHERE key IN ('epoch', 'durable', 'boot')";
        // A new index has no tables yet.
        if schema::version(&connection)? > 0
            && connection.query_row(known, [], |row| row.get::<_, u32>(0))? < 3
        {
            answers.push("rows that every index has are missing".to_owned());
        }
        Ok(answers)
    };
    match answers() {
        Ok(answers) => Ok(answers.into_iter().filter(|answer| answer != "ok").collect()),
        Err(source) => match Error::index("check the index", source) {
            Error::Damaged { .. } => Ok(vec!["SQLite can't read it".to_owned()]),
            error => Err(error),
        },
    }
}

/// Moves a damaged index aside, so that the store begins with an empty one. Returns its new path.
/// No other process should use the store.
///
/// # Errors
/// Fails if the index can't be moved.
pub fn replace_index(root: &Path) -> Result<PathBuf> {
    let _alone = RootLock::exclusive(root)?;
    let kept = root.join(format!("kiln.db.damaged-{}", crate::name::fresh()));
    for suffix in ["-wal", "-shm", ""] {
        let from = root.join(format!("kiln.db{suffix}"));
        let to = PathBuf::from(format!("{}{suffix}", kept.display()));
        match fs::rename(&from, &to) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            result => result.map_err(Error::io("rename", &from))?,
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LayerBlob, Store};

    fn damage(store: &Store, sql: &str) {
        store.room().index().write("damage", |transaction| transaction.execute(sql, [])).unwrap();
    }

    fn found(store: &Store) -> Vec<String> {
        store.check().unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn flipped_bits_of_blobs_and_trees_are_found_and_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (layers, content) = (store.layers(), store.content());
        let tree = layers.begin().unwrap();
        fs::write(tree.fs().join("f"), "content").unwrap();
        let layer = layers.commit(tree, None).unwrap();
        let above = layers.commit(layers.begin().unwrap(), Some(&layer)).unwrap();
        let blob = content.put(b"blob").unwrap().digest;
        assert!(found(&store).is_empty());

        fs::write(content.path(&blob), "blub").unwrap();
        let file = layers.tree_path(&layer).join("f");
        let times = fs::metadata(&file).unwrap().modified().unwrap();
        fs::write(&file, "cuntent").unwrap();
        // A defective disk changes only the content.
        fs::File::options().write(true).open(&file).unwrap().set_modified(times).unwrap();
        let seen = store.check().unwrap();
        let what: Vec<&Damaged> = seen.iter().map(|damage| &damage.what).collect();
        assert_eq!(what, [&Damaged::Blob(blob), &Damaged::Tree(layer.clone())]);
        store.repair(&seen).unwrap();
        assert!(found(&store).is_empty());
        assert_eq!(content.size(&blob).unwrap(), None);
        assert!(layers.get(&layer).unwrap().is_none() && layers.get(&above).unwrap().is_none());
        assert!(!layers.tree_path(&layer).exists() && !layers.tree_path(&above).exists());
    }

    #[test]
    fn a_tree_that_was_touched_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let layer = {
            let layers = Store::open(dir.path()).unwrap().layers();
            let tree = layers.begin().unwrap();
            fs::write(tree.fs().join("f"), "content").unwrap();
            layers.commit(tree, None).unwrap()
        };
        let store = Store::open(dir.path()).unwrap();
        let layers = store.layers();
        let sealer = store.sealer().unwrap().unwrap();
        assert!(store.sealer().unwrap().is_none(), "one process seals trees");
        sealer.seal_trees().unwrap();
        drop(sealer);
        let known = layers.get(&layer).unwrap().unwrap();
        assert!(known.tree.as_ref().is_some_and(|tree| tree.seal.is_some()));
        fs::write(layers.tree_path(&layer).join("f"), "contents").unwrap();
        let error = layers.check_trees([&known]).unwrap_err().to_string();
        assert!(error.contains("kiln system check --repair"), "{error}");
        fs::remove_dir_all(layers.tree_path(&layer)).unwrap();
        assert!(layers.check_trees([&known]).is_err());
        assert_eq!(found(&store), [format!("tree of layer {layer}: it can't be read")]);
    }

    #[test]
    fn an_index_without_a_row_that_every_index_has_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        drop(Store::open(dir.path()).unwrap());
        assert!(check_index(dir.path()).unwrap().is_empty());
        let index = Connection::open(dir.path().join("kiln.db")).unwrap();
        index.execute("DELETE FROM meta WHERE key = 'boot'", []).unwrap();
        drop(index);
        let error = Store::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("kiln system check --repair"), "{error}");
        assert_eq!(check_index(dir.path()).unwrap(), ["rows that every index has are missing"]);
        replace_index(dir.path()).unwrap();
        Store::open(dir.path()).unwrap();
    }

    #[test]
    fn rows_that_say_something_else_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (layers, cache) = (store.layers(), store.cache());
        let layer = layers.commit(layers.begin().unwrap(), None).unwrap();
        let blob = LayerBlob {
            media_type: media_type::OCI_LAYER_GZIP.to_owned(),
            digest: Digest::of(b"blob"),
            size: 4,
            origin: Some("example.com/x".to_owned()),
        };
        layers.add_blob(&layer, &Digest::of(b"diff"), &blob).unwrap();
        let (key, definition) = (Digest::of(b"key"), Digest::of(b"definition"));
        cache.put(&key, &[Some(layer.clone())], "RUN x").unwrap();
        cache.link(&definition, &key).unwrap();
        assert!(found(&store).is_empty());
        // Triggers would correct the checksums.
        damage(&store, "DROP TRIGGER layers_updated");
        damage(&store, "DROP TRIGGER layer_blobs_updated");
        damage(&store, "UPDATE layer_blobs SET size = 5");
        assert!(matches!(layers.blobs(&layer), Err(Error::Damaged { .. })));
        damage(&store, "UPDATE cache_links SET canonical = definition");
        assert_eq!(cache.canonical(&definition).unwrap(), None);
        damage(&store, "UPDATE cache_outputs SET layer = NULL");
        assert_eq!(cache.get(&key).unwrap(), None);
        damage(&store, "UPDATE layers SET created_at = created_at + 1");
        assert!(matches!(layers.get(&layer), Err(Error::Damaged { .. })));
        let seen = store.check().unwrap();
        assert_eq!(seen.len(), 4, "{seen:?}");
        store.repair(&seen).unwrap();
        assert!(found(&store).is_empty() && layers.get(&layer).unwrap().is_none());
    }

    #[test]
    fn an_index_that_can_not_be_read_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check_index(dir.path()).unwrap().is_empty());
        let blob = {
            let store = Store::open(dir.path()).unwrap();
            store.sync().unwrap();
            store.content().put(b"blob").unwrap().digest
        };
        assert!(check_index(dir.path()).unwrap().is_empty());
        fs::write(dir.path().join("kiln.db"), vec![7; 8192]).unwrap();
        let _ = fs::remove_file(dir.path().join("kiln.db-wal"));
        assert!(matches!(Store::open(dir.path()), Err(Error::Damaged { .. })));
        assert_eq!(check_index(dir.path()).unwrap(), ["SQLite can't read it"]);
        let kept = replace_index(dir.path()).unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert!(kept.exists() && store.check().unwrap().is_empty());
        assert!(!store.content().path(&blob).exists(), "what nobody names is swept");
    }
}

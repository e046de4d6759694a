//! The images: names of manifests and indexes.

pub(crate) mod publication;

use std::sync::Arc;

use kiln_oci::Digest;
use rusqlite::{Connection, OptionalExtension, Row};

use self::publication::Publication;
use crate::db::{Index, sums};
use crate::error::Result;
use crate::room::Room;

/// An image with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRow {
    /// The full name with tag, as `docker.io/library/app:latest`; `None` for an image that has lost
    /// its names or never had one.
    pub name: Option<String>,
    /// The media type of the manifest or index.
    pub media_type: String,
    /// The digest of the manifest or index.
    pub digest: Digest,
    /// The size of the manifest or index in bytes.
    pub size: u64,
    /// The time when it was stored, in seconds since 1970.
    pub created_at: i64,
}

/// The images of a store.
#[derive(Clone, Debug)]
pub struct Images {
    room: Arc<Room>,
    publication: Arc<Publication>,
}

/// Assigns an image its name. Returns the image that had the name before.
fn replace(transaction: &Connection, image: &ImageRow) -> rusqlite::Result<Option<ImageRow>> {
    let loser = match &image.name {
        Some(name) => by_name(transaction, name)?,
        None => None,
    };
    let sql = "DELETE FROM images WHERE name = ?1 OR (name IS NULL AND digest = ?2)";
    transaction.prepare_cached(sql)?.execute((&image.name, image.digest.as_bytes()))?;
    if image.name.is_some() || !is_known(transaction, &image.digest)? {
        insert(transaction, image)?;
    }
    if let Some(loser) = &loser
        && !is_known(transaction, &loser.digest)?
    {
        insert(transaction, &ImageRow { name: None, ..loser.clone() })?;
    }
    Ok(loser)
}

const COLUMNS: &str = "name, media_type, digest, size, created_at";

impl Images {
    /// Returns a handle to the images of an open store.
    pub(crate) fn new(room: &Arc<Room>) -> Self {
        Self { room: room.clone(), publication: Arc::default() }
    }

    /// Assigns a name to an image. Another image with the name loses it.
    pub fn put(&self, image: &ImageRow) -> Result<()> {
        self.put_all(std::slice::from_ref(image)).map(drop)
    }

    /// Assigns names to images, all or none, in order. Returns for each image the one that had its
    /// name before. Writes the index of the layout once.
    pub fn put_all(&self, images: &[ImageRow]) -> Result<Vec<Option<ImageRow>>> {
        let losers = self.room.index().write("name images", |transaction| {
            images.iter().map(|image| replace(transaction, image)).collect()
        })?;
        self.publish_change()?;
        Ok(losers)
    }

    /// Returns the image with a name, if it exists.
    pub fn get(&self, name: &str) -> Result<Option<ImageRow>> {
        self.room.index().read("look up an image", |connection| by_name(connection, name))
    }

    /// Returns all images, newest first.
    pub fn list(&self) -> Result<Vec<ImageRow>> {
        list(self.room.index())
    }

    /// Removes a name. Returns `true` if it existed. Garbage collection removes the image's blobs
    /// and layers.
    pub fn remove_name(&self, name: &str) -> Result<bool> {
        let removed = self.room.index().write("remove a name", |transaction| {
            transaction.prepare_cached("DELETE FROM images WHERE name = ?1")?.execute([name])
        })?;
        self.publish_change()?;
        Ok(removed > 0)
    }

    /// Removes the image with this manifest or index, including all of its names. Returns the
    /// names.
    pub fn remove(&self, digest: &Digest) -> Result<Vec<String>> {
        let sql = "DELETE FROM images WHERE digest = ?1 RETURNING name";
        let names: Vec<Option<String>> =
            self.room.index().write("remove an image", |transaction| {
                transaction
                    .prepare_cached(sql)?
                    .query_map([digest.as_bytes()], |row| row.get(0))?
                    .collect()
            })?;
        self.publish_change()?;
        let mut names: Vec<String> = names.into_iter().flatten().collect();
        names.sort();
        Ok(names)
    }
}

/// Returns all images, newest first.
pub(crate) fn list(index: &Index) -> Result<Vec<ImageRow>> {
    let sql =
        format!("SELECT {COLUMNS}, {} FROM images ORDER BY created_at DESC, name", is_right());
    index.read("list images", |connection| {
        connection.prepare_cached(&sql)?.query_map([], image)?.collect()
    })
}

fn insert(transaction: &Connection, image: &ImageRow) -> rusqlite::Result<()> {
    let sql = format!("INSERT INTO images ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5)");
    transaction.prepare_cached(&sql)?.execute((
        &image.name,
        &image.media_type,
        image.digest.as_bytes(),
        image.size.cast_signed(),
        image.created_at,
    ))?;
    Ok(())
}

fn by_name(connection: &Connection, name: &str) -> rusqlite::Result<Option<ImageRow>> {
    let sql = format!("SELECT {COLUMNS}, {} FROM images WHERE name = ?1", is_right());
    connection.prepare_cached(&sql)?.query_row([name], image).optional()
}

fn is_known(connection: &Connection, digest: &Digest) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM images WHERE digest = ?1")?.exists([digest.as_bytes()])
}

/// Returns the SQL expression that is true if a row's checksum is right.
fn is_right() -> String {
    format!("sum IS {}", sums::IMAGE)
}

fn image(row: &Row<'_>) -> rusqlite::Result<ImageRow> {
    sums::check(row, 5)?;
    Ok(ImageRow {
        name: row.get(0)?,
        media_type: row.get(1)?,
        digest: Digest::from_bytes(row.get(2)?),
        size: row.get::<_, i64>(3)?.cast_unsigned(),
        created_at: row.get(4)?,
    })
}

#[cfg(test)]
mod tests {
    use kiln_testkit::Publishings;

    use super::*;
    use crate::Store;

    fn row(name: Option<&str>, content: &str, created_at: i64) -> ImageRow {
        ImageRow {
            name: name.map(str::to_owned),
            media_type: kiln_oci::media_type::OCI_MANIFEST.to_owned(),
            digest: Digest::of(content.as_bytes()),
            size: content.len() as u64,
            created_at,
        }
    }

    fn names_in_layout(store: &Store) -> Vec<String> {
        let bytes = std::fs::read(store.root().join("content/index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let name = |manifest: &serde_json::Value| {
            manifest["annotations"]["org.opencontainers.image.ref.name"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        index["manifests"].as_array().unwrap().iter().map(name).collect()
    }

    #[test]
    fn many_names_are_given_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let rows: Vec<_> = ["a:1", "b:1", "a:1"].map(|name| row(Some(name), name, 1)).into();
        let losers = store.images().put_all(&rows).unwrap();
        assert_eq!(losers.iter().map(Option::is_some).collect::<Vec<_>>(), [false, false, true]);
        assert_eq!(names_in_layout(&store), ["a:1", "b:1"]);
    }

    #[test]
    fn the_index_is_published_a_few_times_for_many_changes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let publishings = Publishings::of(dir.path());
        let names: Vec<String> = (0..1000).map(|number| format!("a:{number}")).collect();
        let rows: Vec<_> = names.iter().map(|name| row(Some(name), "a", 1)).collect();
        let images = store.images();
        images.put_all(&rows).unwrap();
        assert_eq!(publishings.count(), 1);
        let together = images.together();
        for name in &names[..999] {
            assert!(images.remove_name(name).unwrap());
        }
        assert_eq!(publishings.count(), 4, "after 100, 200, 400 and 800 changes");
        together.end().unwrap();
        assert_eq!((publishings.count(), names_in_layout(&store)), (1, vec![names[999].clone()]));
        drop(images.together());
        images.put(&row(Some("b:1"), "b", 1)).unwrap();
        assert_eq!(publishings.count(), 1, "it is over");
    }

    #[test]
    fn names_move_and_their_images_stay() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let images = store.images();
        assert!(names_in_layout(&store).is_empty());
        images.put(&row(Some("a:1"), "old", 1)).unwrap();
        images.put(&row(Some("a:1"), "new", 2)).unwrap();
        images.put(&row(Some("a:2"), "new", 3)).unwrap();
        let expected =
            [row(Some("a:2"), "new", 3), row(Some("a:1"), "new", 2), row(None, "old", 1)];
        assert_eq!(images.list().unwrap(), expected);
        assert_eq!(names_in_layout(&store), ["a:1", "a:2"]);
        images.put(&row(None, "new", 4)).unwrap();
        images.put(&row(None, "old", 5)).unwrap();
        assert_eq!(images.list().unwrap().len(), 3, "named images need no row without a name");
        assert!(images.remove_name("a:1").unwrap());
        assert!(!images.remove_name("a:1").unwrap());
        assert_eq!(images.remove(&Digest::of(b"new")).unwrap(), ["a:2"]);
        assert_eq!(images.remove(&Digest::of(b"old")).unwrap(), [""; 0]);
        assert!(images.list().unwrap().is_empty());
        assert!(names_in_layout(&store).is_empty());
    }
}

//! The disk space of trees with shared files.
//!
//! Trees may share files: the layers of a merge are hard links to the files of others. Such a file
//! counts with the first tree that had it, as its own. The others have it as *shared*. When a tree
//! is removed, its files may remain in the trees that share them, and count with one of these from
//! then on.

use std::collections::HashMap;
use std::path::Path;

use kiln_tree::{Dir, FileKind, View, walk};

use crate::db::text_column;
use crate::error::Result;
use crate::layers::parts::blocks_around;
use crate::layers::trees::tree_path;
use crate::room::Room;

/// Measures the trees without a known size, which an older version of kiln has stored.
pub(crate) fn measure_unknown(room: &Room) -> Result<()> {
    let unknown = room.index().read("list trees", |connection| {
        text_column(connection, "SELECT id FROM layers WHERE has_tree AND disk IS NULL")
    })?;
    for id in unknown {
        let path = tree_path(room, &id);
        // A tree that was removed in the meantime needs no size.
        let Ok((_, size)) = Dir::open(&path).and_then(|dir| kiln_tree::survey(&dir)) else {
            continue;
        };
        let own = size.own + blocks_around(&room.trees().join(&id))?;
        set(room, &[(id, own, size.shared)])?;
    }
    Ok(())
}

/// A file with several names.
struct Linked {
    bytes: u64,
    /// The number of its names, and the number of those found so far.
    links: u64,
    seen: u64,
    /// The trees in which it was found.
    trees: Vec<usize>,
}

/// Measures the trees with shared files again. Call this after trees were removed.
pub(crate) fn recount_shared(room: &Room) -> Result<()> {
    let sharing = room.index().read("list trees", |connection| {
        let sql = "SELECT id FROM layers WHERE has_tree AND shared > 0 ORDER BY created_at, id";
        text_column(connection, sql)
    })?;
    let mut sizes = Vec::with_capacity(sharing.len());
    let mut linked: HashMap<(u64, u64), Linked> = HashMap::new();
    for id in sharing {
        let tree = tree_path(room, &id);
        let Ok(entries) = Dir::open(&tree).and_then(|dir| {
            let view = View { xattrs: false, ..View::of(&dir) };
            walk::entries(view, Path::new("/"))
        }) else {
            continue;
        };
        let place = sizes.len();
        let mut own = blocks_around(&room.trees().join(&id))?;
        for metadata in entries.iter().map(|entry| &entry.metadata) {
            let bytes = metadata.blocks * 512;
            if metadata.links < 2 || metadata.kind == FileKind::Directory {
                own += bytes;
                continue;
            }
            let file = linked.entry((metadata.device, metadata.inode)).or_insert_with(|| Linked {
                bytes,
                links: metadata.links,
                seen: 0,
                trees: Vec::new(),
            });
            file.seen += 1;
            if file.trees.last() != Some(&place) {
                file.trees.push(place);
            }
        }
        sizes.push((id, own, 0));
    }
    for file in linked.into_values() {
        // If a name was not found, the file counts with the tree that has the name.
        let owner = file.trees.first().filter(|_| file.seen == file.links).copied();
        for place in file.trees {
            let size = &mut sizes[place];
            if owner == Some(place) { size.1 += file.bytes } else { size.2 += file.bytes }
        }
    }
    set(room, &sizes)
}

fn set(room: &Room, sizes: &[(String, u64, u64)]) -> Result<()> {
    if sizes.is_empty() {
        return Ok(());
    }
    room.index().write("note sizes", |transaction| {
        let sql = "UPDATE layers SET disk = ?2, shared = ?3 WHERE id = ?1 AND has_tree";
        let mut statement = transaction.prepare_cached(sql)?;
        for (id, own, shared) in sizes {
            statement.execute((id, own.cast_signed(), shared.cast_signed()))?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use crate::{LayerId, Store};

    fn sizes(store: &Store, id: &LayerId) -> (u64, u64) {
        store
            .room()
            .index()
            .read("test", |connection| {
                let sql = "SELECT disk, shared FROM layers WHERE id = ?1";
                connection.query_row(sql, [id.as_str()], |row| {
                    Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64))
                })
            })
            .unwrap()
    }

    #[test]
    fn shared_files_count_with_who_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let layers = store.layers();
        let tree = layers.begin().unwrap();
        fs::write(tree.fs().join("f"), vec![1; 100_000]).unwrap();
        let first = layers.commit(tree, None).unwrap();
        let file = layers.tree_path(&first).join("f");
        let bytes = fs::metadata(&file).unwrap().blocks() * 512;
        let repeat = || {
            let tree = layers.begin().unwrap();
            fs::hard_link(&file, tree.fs().join("f")).unwrap();
            layers.commit(tree, None).unwrap()
        };
        let (second, third) = (repeat(), repeat());
        let bare = sizes(&store, &second).0;
        assert_eq!(sizes(&store, &first), (bare + bytes, 0));
        assert_eq!(sizes(&store, &third), (bare, bytes));
        let key = kiln_oci::Digest::of(b"key");
        store.cache().put(&key, &[Some(second.clone()), Some(third.clone())], "").unwrap();
        drop((layers, store));
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.collect().unwrap().layers, 1);
        assert_eq!(sizes(&store, &second), (bare + bytes, 0));
        assert_eq!(sizes(&store, &third), (bare, bytes));
    }
}

//! The tables of the index, and the migration of older indexes.
//!
//! Digests are stored as 32 bytes, times as nanoseconds since 1970. For `epoch` columns, see "Power
//! loss" in the crate's docs; for `sum` columns, see `sums`; for `stamp` and `seal`, see
//! `layers::integrity`. There are no foreign keys: code that deletes rows does so in the right
//! order, and each look-up verifies its results.

use rusqlite::{Connection, Transaction, TransactionBehavior};

/// The version of the indexes that this kiln writes: the number of migrations.
pub(crate) const VERSION: u32 = MIGRATIONS.len() as u32;

/// The migrations. Each converts an index of the version equal to its position to the next version.
/// Never change a migration that was released.
const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('epoch', 1), ('durable', 0), ('boot', '');

CREATE TABLE blobs (
    digest BLOB PRIMARY KEY,
    size   INTEGER NOT NULL,
    epoch  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE layers (
    id          TEXT PRIMARY KEY,
    parent      TEXT,
    diff_id     BLOB,
    chain_id    BLOB,
    has_tree    INTEGER NOT NULL,
    tree_epoch  INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    description TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX layers_by_parent ON layers (parent);
CREATE INDEX layers_by_chain ON layers (chain_id);

CREATE TABLE layer_blobs (
    layer      TEXT NOT NULL,
    digest     BLOB NOT NULL,
    media_type TEXT NOT NULL,
    size       INTEGER NOT NULL,
    origin     TEXT,
    PRIMARY KEY (layer, digest)
) STRICT, WITHOUT ROWID;

CREATE TABLE images (
    row        INTEGER PRIMARY KEY,
    name       TEXT UNIQUE,
    media_type TEXT NOT NULL,
    digest     BLOB NOT NULL,
    size       INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX images_by_digest ON images (digest);

CREATE TABLE cache_links (
    definition BLOB PRIMARY KEY,
    canonical  BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE cache_records (
    key         BLOB PRIMARY KEY,
    description TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    used_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE cache_outputs (
    key    BLOB NOT NULL,
    number INTEGER NOT NULL,
    layer  TEXT,
    PRIMARY KEY (key, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX cache_outputs_by_layer ON cache_outputs (layer);

CREATE TABLE file_digests (
    fingerprint BLOB PRIMARY KEY,
    digest      BLOB NOT NULL,
    epoch       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE lease_layers (
    process TEXT NOT NULL,
    lease   INTEGER NOT NULL,
    layer   TEXT NOT NULL,
    PRIMARY KEY (process, lease, layer)
) STRICT, WITHOUT ROWID;

CREATE TABLE lease_blobs (
    process TEXT NOT NULL,
    lease   INTEGER NOT NULL,
    digest  BLOB NOT NULL,
    PRIMARY KEY (process, lease, digest)
) STRICT, WITHOUT ROWID;

CREATE TABLE builds (
    id         TEXT PRIMARY KEY,
    started_at INTEGER NOT NULL,
    ended_at   INTEGER,
    status     TEXT NOT NULL,
    reference  TEXT,
    steps      TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX builds_by_start ON builds (started_at);
",
    "
ALTER TABLE blobs ADD COLUMN changed_at INTEGER NOT NULL DEFAULT 0;
",
    // The function that `sums` registers computes the sums. A row that is wrong before the
    // migration stays wrong.
    "
ALTER TABLE layers ADD COLUMN stamp BLOB;
ALTER TABLE layers ADD COLUMN entries INTEGER;
ALTER TABLE layers ADD COLUMN seal BLOB;
ALTER TABLE layers ADD COLUMN checked_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE layers ADD COLUMN sum INTEGER;
ALTER TABLE layer_blobs ADD COLUMN sum INTEGER;
ALTER TABLE images ADD COLUMN sum INTEGER;
ALTER TABLE cache_links ADD COLUMN sum INTEGER;
ALTER TABLE cache_records ADD COLUMN sum INTEGER;

UPDATE layers SET sum = row_sum(id, parent, diff_id, chain_id, has_tree, created_at, description,
    stamp, entries, seal);
UPDATE layer_blobs SET sum = row_sum(layer, digest, media_type, size, origin);
UPDATE images SET sum = row_sum(name, media_type, digest, size, created_at);
UPDATE cache_links SET sum = row_sum(definition, canonical);
UPDATE cache_records SET sum = row_sum(key, description, (
    SELECT group_concat(number || '=' || coalesce(layer, ''), ',') FROM (
        SELECT number, layer FROM cache_outputs WHERE key = cache_records.key ORDER BY number)));

CREATE TRIGGER layers_inserted AFTER INSERT ON layers BEGIN
    UPDATE layers SET sum = row_sum(id, parent, diff_id, chain_id, has_tree, created_at,
        description, stamp, entries, seal) WHERE id = NEW.id;
END;
CREATE TRIGGER layers_updated AFTER UPDATE OF id, parent, diff_id, chain_id, has_tree, created_at,
    description, stamp, entries, seal ON layers
    WHEN OLD.sum IS row_sum(OLD.id, OLD.parent, OLD.diff_id, OLD.chain_id, OLD.has_tree,
        OLD.created_at, OLD.description, OLD.stamp, OLD.entries, OLD.seal) BEGIN
    UPDATE layers SET sum = row_sum(id, parent, diff_id, chain_id, has_tree, created_at,
        description, stamp, entries, seal) WHERE id = NEW.id;
END;
CREATE TRIGGER layer_blobs_inserted AFTER INSERT ON layer_blobs BEGIN
    UPDATE layer_blobs SET sum = row_sum(layer, digest, media_type, size, origin)
    WHERE layer = NEW.layer AND digest = NEW.digest;
END;
CREATE TRIGGER layer_blobs_updated AFTER UPDATE OF layer, digest, media_type, size, origin
    ON layer_blobs
    WHEN OLD.sum IS row_sum(OLD.layer, OLD.digest, OLD.media_type, OLD.size, OLD.origin) BEGIN
    UPDATE layer_blobs SET sum = row_sum(layer, digest, media_type, size, origin)
    WHERE layer = NEW.layer AND digest = NEW.digest;
END;
CREATE TRIGGER images_inserted AFTER INSERT ON images BEGIN
    UPDATE images SET sum = row_sum(name, media_type, digest, size, created_at)
    WHERE row = NEW.row;
END;
CREATE TRIGGER images_updated AFTER UPDATE OF name, media_type, digest, size, created_at ON images
    WHEN OLD.sum IS row_sum(OLD.name, OLD.media_type, OLD.digest, OLD.size, OLD.created_at) BEGIN
    UPDATE images SET sum = row_sum(name, media_type, digest, size, created_at)
    WHERE row = NEW.row;
END;
",
    // The table was unused before. The long column is the last, so that reading the others doesn't
    // read it.
    "
DROP TABLE builds;
CREATE TABLE builds (
    row        INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    started_at INTEGER NOT NULL,
    ended_at   INTEGER,
    status     TEXT NOT NULL,
    process    TEXT NOT NULL,
    log_bytes  INTEGER NOT NULL,
    reference  TEXT,
    record     TEXT NOT NULL
) STRICT;
CREATE INDEX builds_by_start ON builds (started_at);
",
    "
CREATE TABLE blob_repositories (
    digest     BLOB NOT NULL,
    repository TEXT NOT NULL,
    PRIMARY KEY (digest, repository)
) STRICT, WITHOUT ROWID;
",
    // The tables explain why steps were not cached: see `recipes` and `listings` in `cache`.
    // Triggers use SQLite's clock. The long columns are the last.
    "
CREATE TABLE recipes (
    row     INTEGER PRIMARY KEY,
    key     BLOB NOT NULL UNIQUE,
    seen_at INTEGER NOT NULL,
    recipe  TEXT NOT NULL
) STRICT;
CREATE INDEX recipes_by_use ON recipes (seen_at);

CREATE TABLE removals (
    key        BLOB PRIMARY KEY,
    removed_at INTEGER NOT NULL,
    reason     TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER cache_records_deleted AFTER DELETE ON cache_records BEGIN
    INSERT OR REPLACE INTO removals
    VALUES (OLD.key, CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000000, 'pruned');
END;

CREATE TABLE listings (
    row     INTEGER PRIMARY KEY,
    digest  BLOB NOT NULL UNIQUE,
    bytes   INTEGER NOT NULL,
    seen_at INTEGER NOT NULL,
    listing BLOB NOT NULL
) STRICT;
CREATE INDEX listings_by_use ON listings (seen_at, row, bytes);

INSERT INTO meta VALUES ('pepper', randomblob(16));

ALTER TABLE builds ADD COLUMN family BLOB;
CREATE INDEX builds_by_family ON builds (family, started_at);
",
    "
CREATE TABLE step_durations (
    kind         BLOB PRIMARY KEY,
    microseconds INTEGER NOT NULL,
    noted_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

DROP TABLE file_digests;
CREATE TABLE file_pages (
    device  INTEGER NOT NULL,
    page    INTEGER NOT NULL,
    records BLOB NOT NULL,
    epoch   INTEGER NOT NULL,
    sum     INTEGER NOT NULL,
    PRIMARY KEY (device, page)
) STRICT;

CREATE TABLE layer_contents (
    diff_id BLOB PRIMARY KEY,
    content BLOB NOT NULL,
    sum     INTEGER NOT NULL
) STRICT;
CREATE TRIGGER layers_deleted AFTER DELETE ON layers
    WHEN EXISTS (SELECT 1 FROM layer_contents WHERE diff_id = OLD.diff_id) BEGIN
    DELETE FROM layer_contents WHERE diff_id = OLD.diff_id
        AND NOT EXISTS (SELECT 1 FROM layers WHERE diff_id = OLD.diff_id);
END;
",
    // The columns have the disk space in bytes; NULL if it is unknown. `shared` is the size of a
    // tree's files that also have names in other trees, and isn't part of `disk`.
    "
ALTER TABLE layers ADD COLUMN disk INTEGER;
ALTER TABLE layers ADD COLUMN shared INTEGER NOT NULL DEFAULT 0;
ALTER TABLE blobs ADD COLUMN disk INTEGER;
ALTER TABLE cache_records ADD COLUMN kind TEXT NOT NULL DEFAULT 'regular';
CREATE TABLE places (
    path        TEXT PRIMARY KEY,
    bytes       INTEGER NOT NULL,
    is_measured INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    used_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE reservations (
    process TEXT PRIMARY KEY,
    bytes   INTEGER NOT NULL,
    waits   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
",
    // The column `day` has days since 1970.
    "
CREATE TABLE file_page_uses (
    device INTEGER NOT NULL,
    page   INTEGER NOT NULL,
    day    INTEGER NOT NULL,
    PRIMARY KEY (device, page)
) STRICT, WITHOUT ROWID;
INSERT INTO file_page_uses SELECT device, page, unixepoch() / 86400 FROM file_pages;
",
    // The table has the differences between the tar of a layer and its tree. A layer without
    // differences has no row.
    "
CREATE TABLE layer_changes (
    layer   TEXT PRIMARY KEY,
    changes BLOB NOT NULL,
    sum     INTEGER NOT NULL
) STRICT;
CREATE TRIGGER layers_with_changes_deleted AFTER DELETE ON layers BEGIN
    DELETE FROM layer_changes WHERE layer = OLD.id;
END;
",
    // The column `earlier` names the layer whose tree is the lower part of this layer's tree. The
    // table has the latest whole tree of copies of the same kind. A sum that is wrong stays wrong.
    "
ALTER TABLE layers ADD COLUMN earlier TEXT;
CREATE INDEX layers_by_earlier ON layers (earlier) WHERE earlier IS NOT NULL;
DROP TRIGGER layers_inserted;
DROP TRIGGER layers_updated;
UPDATE layers SET sum = row_sum(id, parent, diff_id, chain_id, has_tree, created_at, description,
    stamp, entries, seal, earlier)
    WHERE sum IS row_sum(id, parent, diff_id, chain_id, has_tree, created_at, description, stamp,
        entries, seal);
CREATE TRIGGER layers_inserted AFTER INSERT ON layers BEGIN
    UPDATE layers SET sum = row_sum(id, parent, diff_id, chain_id, has_tree, created_at,
        description, stamp, entries, seal, earlier) WHERE id = NEW.id;
END;
CREATE TRIGGER layers_updated AFTER UPDATE OF id, parent, diff_id, chain_id, has_tree, created_at,
    description, stamp, entries, seal, earlier ON layers
    WHEN OLD.sum IS row_sum(OLD.id, OLD.parent, OLD.diff_id, OLD.chain_id, OLD.has_tree,
        OLD.created_at, OLD.description, OLD.stamp, OLD.entries, OLD.seal, OLD.earlier) BEGIN
    UPDATE layers SET sum = row_sum(id, parent, diff_id, chain_id, has_tree, created_at,
        description, stamp, entries, seal, earlier) WHERE id = NEW.id;
END;

CREATE TABLE copied_trees (
    shape BLOB PRIMARY KEY,
    layer TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX copied_trees_by_layer ON copied_trees (layer);
CREATE TRIGGER copied_layers_deleted AFTER DELETE ON layers BEGIN
    DELETE FROM copied_trees WHERE layer = OLD.id;
END;
",
    // The table has the segments of packed layers' blobs: see `content::segments`.
    "
CREATE TABLE segments (
    blob       BLOB NOT NULL,
    number     INTEGER NOT NULL,
    key        BLOB NOT NULL,
    offset     INTEGER NOT NULL,
    size       INTEGER NOT NULL,
    length     INTEGER NOT NULL,
    crc        INTEGER NOT NULL,
    digest     BLOB NOT NULL,
    tar_state  BLOB NOT NULL,
    blob_state BLOB NOT NULL,
    sum        INTEGER NOT NULL,
    PRIMARY KEY (blob, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX segments_by_key ON segments (key);
CREATE TRIGGER blobs_with_segments_deleted AFTER DELETE ON blobs BEGIN
    DELETE FROM segments WHERE blob = OLD.digest;
END;
",
];

/// Returns the version of an index; 0 for an empty one.
pub(crate) fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Migrates an index to [`VERSION`]. The caller ensures that no other process does the same.
pub(crate) fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "wal")?;
    let transaction = Transaction::new(connection, TransactionBehavior::Immediate)?;
    let from = version(&transaction)?;
    for step in MIGRATIONS.iter().skip(from as usize) {
        transaction.execute_batch(step)?;
    }
    if from < VERSION {
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_older_version_becomes_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        for from in 0..=VERSION {
            let path = dir.path().join(from.to_string());
            let mut connection = Connection::open(&path).unwrap();
            crate::db::sums::register(&connection).unwrap();
            for step in MIGRATIONS.iter().take(from as usize) {
                connection.execute_batch(step).unwrap();
            }
            if from > 0 {
                let blob = "INSERT INTO blobs (digest, size, epoch) VALUES (x'00', 1, 1)";
                connection.execute(blob, []).unwrap();
            }
            connection.pragma_update(None, "user_version", from).unwrap();
            migrate(&mut connection).unwrap();
            migrate(&mut connection).unwrap();
            assert_eq!(version(&connection).unwrap(), VERSION);
            let count = "SELECT count(changed_at) FROM blobs";
            let kept: u32 = connection.query_row(count, [], |row| row.get(0)).unwrap();
            assert_eq!(kept, u32::from(from > 0));
        }
    }
}

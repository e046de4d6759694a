//! Checksums of the index's rows.
//!
//! Rows that lead to content have a checksum of their values. SQLite computes the sums of `layers`,
//! `layer_blobs` and `images` by triggers, so that every statement updates them. If a row's sum was
//! wrong before an update, it stays wrong. The sum of a cache record also covers its outputs, and
//! is computed where the record is written. Every query lets SQLite compare the sum. A damaged
//! layer or image is an error, and a damaged cache record or link is a miss.
//!
//! The sums don't protect against attackers. They detect damage by disks and accidental changes.

use kiln_oci::DigestHasher;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Type, ValueRef};
use rusqlite::{Connection, Row};

/// The expression for the checksum of a row of `layers`.
pub(crate) const LAYER: &str = "row_sum(layers.id, layers.parent, layers.diff_id, layers.chain_id,
    layers.has_tree, layers.created_at, layers.description, layers.stamp, layers.entries,
    layers.seal, layers.earlier)";

/// The expression for the checksum of a row of `layer_blobs`.
pub(crate) const LAYER_BLOB: &str = "row_sum(layer_blobs.layer, layer_blobs.digest,
    layer_blobs.media_type, layer_blobs.size, layer_blobs.origin)";

/// The expression for the checksum of a row of `images`.
pub(crate) const IMAGE: &str = "row_sum(images.name, images.media_type, images.digest, images.size,
    images.created_at)";

/// The expression for the checksum of a row of `cache_links`.
pub(crate) const LINK: &str = "row_sum(cache_links.definition, cache_links.canonical)";

/// The expression for the checksum of a row of `cache_records` and its outputs.
pub(crate) const RECORD: &str = "row_sum(cache_records.key, cache_records.description, (
    SELECT group_concat(number || '=' || coalesce(layer, ''), ',') FROM (
        SELECT number, layer FROM cache_outputs WHERE key = cache_records.key ORDER BY number)))";

/// The expression for the checksum of a row of `file_pages`.
pub(crate) const FILE_PAGE: &str =
    "row_sum(file_pages.device, file_pages.page, file_pages.records)";

/// The expression for the checksum of a row of `layer_contents`.
pub(crate) const LAYER_CONTENTS: &str = "row_sum(layer_contents.diff_id, layer_contents.content)";

/// The expression for the checksum of a row of `layer_changes`.
pub(crate) const LAYER_CHANGES: &str = "row_sum(layer_changes.layer, layer_changes.changes)";

/// The expression for the checksum of a row of `segments`.
pub(crate) const SEGMENT: &str = "row_sum(segments.blob, segments.number, segments.key,
    segments.offset, segments.size, segments.length, segments.crc, segments.digest,
    segments.tar_state, segments.blob_state)";

/// The tables with checksums, and the expressions for these.
pub(crate) const TABLES: [(&str, &str); 9] = [
    ("layers", LAYER),
    ("layer_blobs", LAYER_BLOB),
    ("images", IMAGE),
    ("cache_links", LINK),
    ("cache_records", RECORD),
    ("file_pages", FILE_PAGE),
    ("layer_contents", LAYER_CONTENTS),
    ("layer_changes", LAYER_CHANGES),
    ("segments", SEGMENT),
];

/// The error of a row whose checksum is wrong.
#[derive(Debug, thiserror::Error)]
#[error("wrong checksum")]
pub(crate) struct WrongSum;

/// Registers the SQL function that computes checksums.
pub(crate) fn register(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_scalar_function("row_sum", -1, flags, |context| Ok(sum(context)))
}

/// Returns a checksum of values with their types and lengths.
fn sum(context: &Context<'_>) -> i64 {
    let mut hasher = DigestHasher::new();
    for index in 0..context.len() {
        let (kind, bytes) = match context.get_raw(index) {
            ValueRef::Null => (0, Vec::new()),
            ValueRef::Integer(number) => (1, number.to_le_bytes().to_vec()),
            ValueRef::Real(number) => (2, number.to_le_bytes().to_vec()),
            ValueRef::Text(text) => (3, text.to_vec()),
            ValueRef::Blob(blob) => (4, blob.to_vec()),
        };
        hasher.update(&[kind]);
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(&bytes);
    }
    let digest = hasher.finish();
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_bytes()[..8]);
    i64::from_le_bytes(first)
}

/// Fails if a column with the comparison of a row's checksum is false.
pub(crate) fn check(row: &Row<'_>, column: usize) -> rusqlite::Result<()> {
    if row.get(column)? {
        return Ok(());
    }
    Err(rusqlite::Error::FromSqlConversionFailure(column, Type::Integer, Box::new(WrongSum)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_tell_values_apart() {
        let connection = Connection::open_in_memory().unwrap();
        register(&connection).unwrap();
        let sum = |values: &str| -> i64 {
            connection
                .query_row(&format!("SELECT row_sum({values})"), [], |row| row.get(0))
                .unwrap()
        };
        let all = ["", "NULL", "1", "'1'", "x'31'", "1, NULL", "'a', 'bc'", "'ab', 'c'", "1.0"];
        let sums: std::collections::BTreeSet<i64> = all.iter().map(|values| sum(values)).collect();
        assert_eq!(sums.len(), all.len());
        assert_eq!(sum("'a', 2"), sum("'a', 2"));
    }
}

//! The reports of removed images and of a removed cache, in docker's words.

use kiln::image::removal::Removed;
use kiln_oci::Digest;
use kiln_store::Pruned;
use time::OffsetDateTime;

use super::printer::{Printer, human_age, human_size, table};

/// Returns docker's lines about a removed image: its names with the prefix `untagged`, and its
/// digests with the prefix `deleted`.
pub(crate) fn image(
    removed: &Removed,
    untagged: &str,
    deleted: &str,
    gone: Vec<Digest>,
) -> Vec<String> {
    let names = removed.untagged.iter().map(|name| format!("{untagged}: {name}"));
    let digests = removed.deleted.iter().copied().chain(gone);
    names.chain(digests.map(|digest| format!("{deleted}: {digest}"))).collect()
}

/// Prints the removed items, if any.
pub(crate) fn cache(pruned: &Pruned, printer: &Printer) {
    if pruned.items.is_empty() {
        return;
    }
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let rows: Vec<Vec<String>> = pruned
        .items
        .iter()
        .map(|item| {
            let age = format!("{} ago", human_age(now - item.used_at / 1_000_000_000));
            vec![item.id.clone(), "true".to_owned(), human_size(item.bytes), age]
        })
        .collect();
    printer.line(table(&["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"], &rows));
}

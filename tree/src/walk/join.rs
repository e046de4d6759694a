//! Joining of a walk's parts in order.

use std::mem;

use super::{Candidate, Entry, Part};

/// A directory whose entries are being joined.
struct Level {
    rest: std::vec::IntoIter<Candidate>,
    /// The index of the directory's entry in the list, if it is only shown for the entries below
    /// it.
    hidden: Option<usize>,
}

/// Returns a single list of all entries, without excluded directories that contain no visible
/// entries.
pub(super) fn join(mut parts: Vec<Part>) -> Vec<Entry> {
    parts.sort_unstable_by_key(|part| (part.directory, part.chunk));
    let directories = parts.last().map_or(0, |part| part.directory + 1);
    let mut below: Vec<Vec<Candidate>> = Vec::new();
    below.resize_with(directories, Vec::new);
    let mut total = 0;
    for part in parts {
        total += part.seen.len();
        let seen = &mut below[part.directory];
        if seen.is_empty() {
            *seen = part.seen;
        } else {
            seen.extend(part.seen);
        }
    }
    let mut entries = Vec::with_capacity(total);
    let mut take = |directory: usize, hidden| {
        // A directory without a part is empty, or was removed.
        let seen = below.get_mut(directory).map(mem::take).unwrap_or_default();
        Level { rest: seen.into_iter(), hidden }
    };
    let mut levels = vec![take(0, None)];
    while let Some(level) = levels.last_mut() {
        if let Some(seen) = level.rest.next() {
            let hidden = seen.hidden.then_some(entries.len());
            entries.push(seen.entry);
            if let Some(directory) = seen.below {
                levels.push(take(directory, hidden));
            }
        } else {
            if level.hidden.is_some_and(|index| index + 1 == entries.len()) {
                entries.pop();
            }
            levels.pop();
        }
    }
    entries
}

//! The files in which two content digests differ.

use kiln_store::{Listings, Result};
use kiln_tree::{Difference, Listing, PatternMatcher, Place};

use super::cause::{Cause, FileChange};
use super::recipe::Contents;

/// The attribute of a local source with the patterns of its ignore file.
const EXCLUDES: &str = "local.excludepatterns";
/// The most files that are named.
const SHOWN: usize = 3;

/// Returns the files that differ between two content digests.
///
/// # Errors
/// Fails if the store can't be read.
pub(super) fn causes(
    listings: &Listings,
    old: &Contents,
    new: &Contents,
    from: &str,
) -> Result<Vec<Cause>> {
    let listing = |contents: &Contents| -> Result<Option<Listing<'static>>> {
        Ok(listings.get(&contents.digest)?.and_then(|bytes| Listing::decode(&bytes)))
    };
    let found = match (listing(old)?, listing(new)?) {
        (Some(old), Some(new)) => old.differences(&new),
        _ => Vec::new(),
    };
    if found.is_empty() {
        return Ok(vec![Cause::Content { from: from.to_owned() }]);
    }
    let count = found.len();
    let (old_excludes, new_excludes) = (excludes(old), excludes(new));
    let file = |(place, difference): (Place<'_>, Difference)| {
        let path = whole_path(&place, &new.selected);
        Cause::File {
            change: change(&path, difference, old_excludes.as_ref(), new_excludes.as_ref()),
            path: shown(&path),
            from: from.to_owned(),
        }
    };
    let mut causes: Vec<Cause> = found.into_iter().take(SHOWN).map(file).collect();
    if count > SHOWN {
        causes.push(Cause::MoreFiles { count: count - SHOWN, from: from.to_owned() });
    }
    Ok(causes)
}

/// Returns a file's path from the root of its source.
fn whole_path(place: &Place<'_>, selected: &[String]) -> Vec<u8> {
    let below = place.path.as_ref();
    if let Some(whole) = below.strip_prefix(b"/") {
        return whole.to_vec();
    }
    let asked = selected.get(place.selection as usize).map_or("", |path| path.trim_matches('/'));
    let parts: Vec<&[u8]> =
        [asked.as_bytes(), below].into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(&b'/')
}

/// Returns the patterns of a context's ignore file.
fn excludes(contents: &Contents) -> Option<PatternMatcher> {
    let patterns = contents.ingredients.iter().find(|named| named.name == EXCLUDES)?;
    let patterns: Option<Vec<String>> = serde_json::from_str(&patterns.value.shown).ok()?;
    PatternMatcher::new(&patterns?).ok()
}

/// Returns the difference of a file. `old` and `new` are the patterns of the two ignore files.
fn change(
    path: &[u8],
    difference: Difference,
    old: Option<&PatternMatcher>,
    new: Option<&PatternMatcher>,
) -> FileChange {
    let is_excluded = |by: Option<&PatternMatcher>| by.is_some_and(|by| by.matches(path));
    let mode = |mode: u32| format!("{mode:03o}");
    let pair = |(a, b): (u32, u32)| format!("{a}:{b}");
    match difference {
        Difference::Added if is_excluded(old) => FileChange::NoLongerIgnored,
        Difference::Added => FileChange::Added,
        Difference::Removed if is_excluded(new) && !is_excluded(old) => FileChange::Ignored,
        Difference::Removed => FileChange::Removed,
        Difference::Type(old, new) => FileChange::Type { old, new },
        Difference::Content(old, new) => FileChange::Content { old, new },
        Difference::Target(old, new) => FileChange::Target { old: shown(&old), new: shown(&new) },
        Difference::Mode(old, new) => FileChange::Mode { old: mode(old), new: mode(new) },
        Difference::Owner(old, new) => FileChange::Owner { old: pair(old), new: pair(new) },
        Difference::Device(old, new) => FileChange::Device { old: pair(old), new: pair(new) },
        Difference::Capability => FileChange::Capability,
    }
}

/// Returns a path for display. Escapes control characters.
fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    if text.is_empty() {
        return "the directory itself".to_owned();
    }
    if text.chars().any(char::is_control) { text.escape_debug().to_string() } else { text.into() }
}

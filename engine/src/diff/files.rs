//! Comparison of the files that a container sees.

use std::collections::BTreeMap;

use anyhow::Result;
use kiln_tree::EntryType;

use super::entries::{self, Entry, LayerEntries, LayerReader, follow};
use super::report::EntryChange;
use super::source::Side;

/// The prefix of an entry that hides a name of the layers below.
const WHITEOUT: &[u8] = b".wh.";
/// The name of an entry that hides a directory's contents in the layers below.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The most symbolic links that are followed for one path.
const LINKS: usize = 40;

/// The files of an image, by path without a leading slash.
#[derive(Clone, Default)]
struct Files {
    /// By their paths without a slash in front.
    entries: BTreeMap<Vec<u8>, Entry>,
    /// The directory that was resolved last, by its name and as it really is. The next one is mostly the
    /// same or below it, and may have thousands of parts.
    last: Option<(Vec<u8>, Vec<u8>)>,
}

/// Compares the files of two images.
pub(super) fn compare(
    a: &Side,
    b: &Side,
    reader: &mut LayerReader<'_>,
) -> Result<Vec<EntryChange>> {
    let shared = a.diff_ids().iter().zip(b.diff_ids()).take_while(|(a, b)| a == b).count();
    let mut base = Files::default();
    base.apply_all(a, 0..shared, reader)?;
    let mut in_a = base.clone();
    in_a.apply_all(a, shared..a.diff_ids().len(), reader)?;
    let mut in_b = base;
    in_b.apply_all(b, shared..b.diff_ids().len(), reader)?;
    let mut changes = entries::compare(&in_a.by_name(), &in_b.by_name());
    for change in &mut changes {
        change.path.insert(0, '/');
    }
    Ok(changes)
}

impl Files {
    fn by_name(&self) -> BTreeMap<&[u8], &Entry> {
        self.entries.iter().map(|(name, entry)| (name.as_slice(), entry)).collect()
    }

    fn apply_all(
        &mut self,
        side: &Side,
        places: std::ops::Range<usize>,
        reader: &mut LayerReader<'_>,
    ) -> Result<()> {
        for place in places {
            let layer = reader.read(&side.diff_ids()[place], &side.layers[place])?;
            self.apply(&layer);
        }
        Ok(())
    }

    /// Applies a layer. Its whiteouts hide only files of the layers below, whatever their position
    /// in the layer.
    fn apply(&mut self, layer: &LayerEntries) {
        for (name, ..) in &layer.entries {
            let (parent, base) = split(name);
            let parent = self.real(parent);
            if base == OPAQUE {
                self.remove_below(&parent);
            } else if let Some(hidden) = base.strip_prefix(WHITEOUT) {
                self.remove(&join(&parent, hidden));
            }
        }
        for (name, entry, _) in &layer.entries {
            let (parent, base) = split(name);
            if base.starts_with(WHITEOUT) {
                continue;
            }
            let path = join(&self.real(parent), base);
            if entry.kind != EntryType::Directory {
                self.remove_below(&path);
            }
            let linked = (entry.kind == EntryType::Link).then(|| self.linked(entry));
            let entry = match linked.and_then(|linked| self.entries.get(&linked)) {
                Some(target) => follow(entry, target),
                None => entry.clone(),
            };
            self.insert(path, entry);
        }
    }

    /// Returns the path of a hard link's target.
    fn linked(&mut self, entry: &Entry) -> Vec<u8> {
        let (parent, base) = split(&entry.link);
        join(&self.real(parent), base)
    }

    /// Resolves the symbolic links in a directory's path.
    fn real(&mut self, path: &[u8]) -> Vec<u8> {
        let last = self.last.take();
        let known = last.and_then(|(named, real)| Some((rest_below(path, &named)?, real)));
        let (rest, mut real) = known.unwrap_or((path, Vec::new()));
        let mut left: Vec<Vec<u8>> = parts(rest);
        left.reverse();
        let mut links = 0;
        while let Some(part) = left.pop() {
            if part == b".." {
                real = split(&real).0.to_vec();
                continue;
            }
            let next = join(&real, &part);
            match self.entries.get(&next) {
                Some(entry) if entry.kind == EntryType::Symlink && links < LINKS => {
                    links += 1;
                    if entry.link.starts_with(b"/") {
                        real.clear();
                    }
                    left.extend(parts(&entry.link).into_iter().rev());
                }
                _ => real = next,
            }
        }
        self.last = Some((path.to_vec(), real.clone()));
        real
    }

    fn insert(&mut self, path: Vec<u8>, entry: Entry) {
        let is_link = entry.kind == EntryType::Symlink;
        let before = self.entries.insert(path, entry);
        if is_link || before.is_some_and(|before| before.kind == EntryType::Symlink) {
            self.last = None;
        }
    }

    fn remove(&mut self, path: &[u8]) {
        self.entries.remove(path);
        self.last = None;
        self.remove_below(path);
    }

    fn remove_below(&mut self, path: &[u8]) {
        let start = if path.is_empty() { Vec::new() } else { [path, b"/"].concat() };
        let below = self.entries.range(start.clone()..);
        let below = below.take_while(|(name, _)| name.starts_with(&start));
        let below: Vec<Vec<u8>> = below.map(|(name, _)| name.clone()).collect();
        for name in below {
            self.entries.remove(&name);
            self.last = None;
        }
    }
}

/// Returns the part of a path below a directory, which is empty for the directory itself.
fn rest_below<'a>(path: &'a [u8], directory: &[u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(directory)?;
    (rest.is_empty() || rest.starts_with(b"/")).then_some(rest)
}

fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    parts.map(<[u8]>::to_vec).collect()
}

/// Splits a path into its parent, which may be empty, and its last component.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn join(parent: &[u8], base: &[u8]) -> Vec<u8> {
    match (parent, base) {
        (b"", base) => base.to_vec(),
        (parent, b"") => parent.to_vec(),
        (parent, base) => [parent, b"/", base].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(entries: &[(EntryType, &str, &str)]) -> LayerEntries {
        let mut tar = tar::Builder::new(Vec::new());
        for (kind, name, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            if *kind == EntryType::Symlink {
                header.set_size(0);
                tar.append_link(&mut header, name, content).unwrap();
            } else {
                header.set_size(content.len() as u64);
                tar.append_data(&mut header, name, content.as_bytes()).unwrap();
            }
        }
        LayerEntries::of_tar(&tar.into_inner().unwrap())
    }

    #[test]
    fn links_lead_where_they_lead_when_an_entry_comes() {
        use EntryType::{Directory, Regular, Symlink};
        let mut files = Files::default();
        files.apply(&layer(&[
            (Directory, "a/b/", ""),
            (Directory, "c/", ""),
            (Symlink, "l", "a"),
            (Regular, "l/one", "1"),
            (Regular, "l/b/two", "2"),
            // The link leads elsewhere from here on, and then is none any more.
            (Symlink, "l", "c"),
            (Regular, "l/three", "3"),
            (Directory, "l/", ""),
            (Regular, "l/four", "4"),
        ]));
        let names = |files: &Files| {
            let names = files.entries.keys();
            names.map(|name| String::from_utf8_lossy(name).into_owned()).collect::<Vec<_>>()
        };
        let expected = ["a/b", "a/b/two", "a/one", "c", "c/three", "l", "l/four"];
        assert_eq!(names(&files), expected);
        files.apply(&layer(&[(Regular, "l/.wh..wh..opq", ""), (Regular, "a/.wh.b", "")]));
        assert_eq!(names(&files), ["a/one", "c", "c/three", "l"]);
    }

    #[test]
    fn thousands_of_levels_are_resolved_once() {
        use EntryType::{Directory, Regular};
        let deepest = "d/".repeat(2000);
        let levels = (1..=2000).map(|level| (Directory, &deepest[..2 * level], ""));
        let names: Vec<String> = (0..2000).map(|number| format!("{deepest}{number}")).collect();
        let names = names.iter().map(|name| (Regular, name.as_str(), ""));
        let layer = layer(&levels.chain(names).collect::<Vec<_>>());
        let begun = std::time::Instant::now();
        let mut files = Files::default();
        files.apply(&layer);
        assert_eq!(files.entries.len(), 4000);
        assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    }
}

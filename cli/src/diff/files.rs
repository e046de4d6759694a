//! Comparison of the files that a container sees.

use std::collections::BTreeMap;

use anyhow::Result;
use kiln_tree::tar_reader::EntryType;

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
struct Files(BTreeMap<Vec<u8>, Entry>);

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
        self.0.iter().map(|(name, entry)| (name.as_slice(), entry)).collect()
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
            let entry = match self.0.get(&self.linked(entry)) {
                Some(target) if entry.kind == EntryType::Link => follow(entry, target),
                _ => entry.clone(),
            };
            self.0.insert(path, entry);
        }
    }

    /// Returns the path of a hard link's target.
    fn linked(&self, entry: &Entry) -> Vec<u8> {
        let (parent, base) = split(&entry.link);
        join(&self.real(parent), base)
    }

    /// Resolves the symbolic links in a directory's path.
    fn real(&self, path: &[u8]) -> Vec<u8> {
        let mut left: Vec<Vec<u8>> = parts(path);
        left.reverse();
        let (mut real, mut links) = (Vec::new(), 0);
        while let Some(part) = left.pop() {
            if part == b".." {
                real = split(&real).0.to_vec();
                continue;
            }
            let next = join(&real, &part);
            match self.0.get(&next) {
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
        real
    }

    fn remove(&mut self, path: &[u8]) {
        self.0.remove(path);
        self.remove_below(path);
    }

    fn remove_below(&mut self, path: &[u8]) {
        let start = if path.is_empty() { Vec::new() } else { [path, b"/"].concat() };
        let below = self.0.range(start.clone()..).take_while(|(name, _)| name.starts_with(&start));
        let below: Vec<Vec<u8>> = below.map(|(name, _)| name.clone()).collect();
        for name in below {
            self.0.remove(&name);
        }
    }
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

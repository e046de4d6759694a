//! Include and exclude patterns of a selection.

use super::Selection;
use crate::error::Result;
use crate::pattern::{ParentMatches, PatternMatcher};
use crate::walk::{Entry, Found, Pointed, Position};

/// An entry that a selection selects.
pub(crate) struct Picked {
    /// The entry in the walked tree.
    pub(crate) entry: Entry,
    /// The length in bytes of the part of its path above the part below the selected path.
    pub(crate) above: usize,
    /// `true` for a directory that is only included because an entry below it is selected.
    pub(crate) passed: bool,
}

impl Picked {
    /// Returns the path below the selected path; empty for the selected path itself.
    pub(crate) fn path(&self) -> Vec<u8> {
        self.entry.path.tail(self.above)
    }

    /// Returns `true` for the entry at the selected path itself.
    pub(crate) fn is_root(&self) -> bool {
        self.entry.path.len() <= self.above
    }
}

/// The include and exclude patterns of a selection.
pub(super) struct Filter {
    include: Option<PatternMatcher>,
    exclude: Option<PatternMatcher>,
    /// `true` if `exclude` also applies to the entries that a source path names.
    excludes_matches: bool,
}

/// The decision about an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mark {
    /// The entry isn't selected.
    #[default]
    LeftOut,
    /// The entry is selected.
    Selected,
    /// The directory is only included because an entry below it is selected.
    Passed,
}

/// The decisions about the entries of a walk.
#[derive(Debug)]
pub(super) struct Marks(Vec<Vec<Mark>>);

impl Marks {
    fn of(found: &Found) -> Self {
        Self(found.sizes().map(|size| vec![Mark::default(); size]).collect())
    }

    /// Returns the decision about an entry.
    pub(super) fn get(&self, position: Position) -> Mark {
        self.0[position.part as usize][position.row as usize]
    }

    /// Returns the number of selected entries.
    pub(super) fn count(&self) -> usize {
        self.0.iter().flatten().filter(|mark| **mark != Mark::LeftOut).count()
    }

    fn set(&mut self, position: Position, mark: Mark) {
        self.0[position.part as usize][position.row as usize] = mark;
    }
}

/// A directory above the current entry.
struct Ancestor {
    path: Vec<u8>,
    matches: Matches,
    /// The directory, until an entry below it is selected.
    waiting: Option<Position>,
}

#[derive(Default)]
struct Matches {
    include: ParentMatches,
    exclude: ParentMatches,
}

impl Filter {
    pub(super) fn new(selection: &Selection) -> Result<Self> {
        let compile = |patterns: &[String]| {
            (!patterns.is_empty()).then(|| PatternMatcher::new(patterns)).transpose()
        };
        Ok(Self {
            include: compile(&selection.include)?,
            exclude: compile(&selection.exclude)?,
            excludes_matches: selection.exclude_matches,
        })
    }

    /// Returns `true` if the exclude patterns match `path`, which a source path names, or a
    /// directory on the way there that its wildcards match. The first `base` bytes of the path
    /// precede the wildcards, including the slash.
    ///
    /// The patterns are relative to a directory. It can be the parent of the path, the directory in
    /// which the wildcards begin, or the root.
    pub(super) fn excludes_match(&self, path: &[u8], base: usize) -> bool {
        let Some(exclude) = self.exclude.as_ref().filter(|_| self.excludes_matches) else {
            return false;
        };
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let ends = slashes.map(|(slash, _)| slash).chain([path.len()]);
        let mut names = Vec::new();
        for end in ends.filter(|end| *end > base) {
            names.extend([&path[..end], &path[base..end]]);
        }
        names.extend(path.rsplit(|byte| *byte == b'/').next());
        exclude.matches_any(&names)
    }

    /// Decides about the entries of a walk. Paths are relative to the first entry, which is always
    /// selected, since the patterns apply to the entries below it. Returns `None` if all entries are
    /// selected.
    pub(super) fn marks(&self, found: &Found) -> Option<Marks> {
        if self.include.is_none() && self.exclude.is_none() {
            return None;
        }
        let mut marks = Marks::of(found);
        let mut cursor = found.cursor();
        let Some(first) = cursor.next() else { return Some(marks) };
        marks.set(first.position, Mark::Selected);
        let cut = if first.path.is_empty() { 0 } else { first.path.len() + 1 };
        let mut way: Vec<Ancestor> = Vec::new();
        let start = Matches::default();
        while let Some(Pointed { seen, path, position }) = cursor.next() {
            let path = &path[cut..];
            while way.last().is_some_and(|above| !is_below(path, &above.path)) {
                way.pop();
            }
            let parent = way.last().map_or(&start, |above| &above.matches);
            let (is_selected, matches) = self.decide(path, parent);
            if is_selected {
                let waiting = way.iter_mut().filter_map(|above| above.waiting.take());
                waiting.for_each(|position| marks.set(position, Mark::Passed));
                marks.set(position, Mark::Selected);
            }
            if seen.metadata.is_dir() {
                let waiting = (!is_selected).then_some(position);
                way.push(Ancestor { path: path.to_vec(), matches, waiting });
            }
        }
        Some(marks)
    }

    fn decide(&self, path: &[u8], parent: &Matches) -> (bool, Matches) {
        let (included, include) = match &self.include {
            Some(patterns) => patterns.matches_below(path, &parent.include),
            None => (true, ParentMatches::default()),
        };
        let (excluded, exclude) = match &self.exclude {
            Some(patterns) => patterns.matches_below(path, &parent.exclude),
            None => (false, ParentMatches::default()),
        };
        (included && !excluded, Matches { include, exclude })
    }
}

/// Returns `true` if a path is below another.
pub(super) fn is_below(path: &[u8], parent: &[u8]) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.starts_with(b"/"))
}

//! Include and exclude patterns of a selection.

use super::Selection;
use crate::error::Result;
use crate::pattern::{ParentMatches, PatternMatcher};
use crate::walk::Entry;

/// An entry that is selected.
pub(crate) struct Picked {
    /// The entry.
    pub(crate) entry: Entry,
    /// The number of bytes of its path that are in front of the part below what was asked for.
    pub(crate) above: usize,
    /// Whether it is a directory that is only there because something below it is.
    pub(crate) passed: bool,
}

impl Picked {
    /// Returns its path below what was asked for; empty for that itself.
    pub(crate) fn path(&self) -> Vec<u8> {
        self.entry.path.tail(self.above)
    }

    /// Tells whether it is what was asked for.
    pub(crate) fn is_root(&self) -> bool {
        self.entry.path.len() <= self.above
    }
}

/// Which entries below a path are selected.
pub(super) struct Filter {
    include: Option<PatternMatcher>,
    exclude: Option<PatternMatcher>,
    /// Whether `exclude` is also about what a source path names.
    excludes_matches: bool,
}

/// A directory on the way to the current entry.
struct Above {
    path: Vec<u8>,
    matches: Matches,
    /// The directory, if it isn't selected: it is once something below it is.
    waiting: Option<Entry>,
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

    /// Tells whether the exclude patterns are about `path`, which a source path names, or a directory
    /// that its wildcards match on the way there. The first `base` bytes of the path are in front of
    /// the wildcards, with their slash.
    ///
    /// Patterns are relative to a directory, and this may be the one that the path is in, the one that
    /// the wildcards are in, or the root.
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

    /// Returns the selected entries of a walk, with their paths below its first one. That one is
    /// always selected: patterns are about what is below it.
    pub(super) fn apply(&self, entries: Vec<Entry>) -> Vec<Picked> {
        let mut entries = entries.into_iter();
        let Some(first) = entries.next() else { return Vec::new() };
        let cut = if first.path.is_empty() { 0 } else { first.path.len() + 1 };
        let picked = |entry| Picked { entry, above: cut, passed: false };
        let above = first.path.len();
        let mut selected = vec![Picked { entry: first, above, passed: false }];
        if self.include.is_none() && self.exclude.is_none() {
            selected.extend(entries.map(picked));
            return selected;
        }
        let mut way: Vec<Above> = Vec::new();
        let start = Matches::default();
        for entry in entries {
            let path = entry.path.tail(cut);
            while way.last().is_some_and(|above| !is_below(&path, &above.path)) {
                way.pop();
            }
            let parent = way.last().map_or(&start, |above| &above.matches);
            let (is_selected, matches) = self.decide(&path, parent);
            if is_selected {
                for above in &mut way {
                    let waiting = above.waiting.take();
                    selected.extend(waiting.map(|entry| Picked { passed: true, ..picked(entry) }));
                }
            }
            let is_dir = entry.metadata.is_dir();
            let waiting = if is_selected {
                selected.push(picked(entry));
                None
            } else {
                Some(entry)
            };
            if is_dir {
                way.push(Above { path, matches, waiting });
            }
        }
        selected
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

/// Tells whether a path is below another.
pub(super) fn is_below(path: &[u8], parent: &[u8]) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.starts_with(b"/"))
}

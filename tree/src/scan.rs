//! The traversal under everything here that looks at whole trees.
//!
//! One task per directory, on rayon's threads. A task opens its directory by its path from the
//! root when it runs, so that waiting tasks hold no descriptors, and no tree is too deep or too wide.
//! The order in which tasks run can't be seen in the result: it is sorted, and of several errors the
//! one with the first path is reported.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::dir::entry_names;
use crate::error::{Error, Result};
use crate::metadata::Metadata;
use crate::pattern::{ParentMatches, PatternMatcher};
use crate::view::View;
use crate::{names, resolve};

/// What of a tree is selected.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules<'a> {
    /// The view's patterns, matched against paths from its root.
    pub(crate) ignored: Option<&'a PatternMatcher>,
    /// Only these, matched against paths from where the scan begins.
    pub(crate) include: Option<&'a PatternMatcher>,
    /// Not these, likewise.
    pub(crate) exclude: Option<&'a PatternMatcher>,
}

/// What the rules say of a directory, for its entries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    ignored: ParentMatches,
    include: ParentMatches,
    exclude: ParentMatches,
}

/// What the rules say of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is selected.
    Selected,
    /// It isn't; if it is a directory, something below it may be, and brings it along.
    Passed,
    /// Neither it nor anything below it is.
    Skipped,
}

impl Rules<'_> {
    /// Judges an entry. `base` is where the scan begins, as a path from the view's root, and `path`
    /// the entry's from there.
    pub(crate) fn judge(&self, base: &[u8], path: &[u8], known: &Known) -> (Verdict, Known) {
        let mut below = Known::default();
        let mut verdict = Verdict::Selected;
        let mut lower = |to: Verdict| {
            if verdict != Verdict::Skipped {
                verdict = to;
            }
        };
        if let Some(ignored) = self.ignored {
            let whole = names::join(base, path);
            let (matched, found) = ignored.matches_below(&whole, &known.ignored);
            below.ignored = found;
            if matched {
                let pass = ignored.may_except_below(&whole);
                lower(if pass { Verdict::Passed } else { Verdict::Skipped });
            }
        }
        if let Some(include) = self.include {
            let (matched, found) = include.matches_below(path, &known.include);
            below.include = found;
            if !matched {
                let pass = include.may_match_below(path);
                lower(if pass { Verdict::Passed } else { Verdict::Skipped });
            }
        }
        if let Some(exclude) = self.exclude {
            let (matched, found) = exclude.matches_below(path, &known.exclude);
            below.exclude = found;
            if matched {
                let pass = exclude.has_exceptions();
                lower(if pass { Verdict::Passed } else { Verdict::Skipped });
            }
        }
        (verdict, below)
    }

    /// Returns what is known of the directory where a scan begins.
    pub(crate) fn known_at(&self, base: &[u8]) -> Known {
        let mut known = Known::default();
        if let Some(ignored) = self.ignored {
            let mut path = Vec::new();
            for name in names::components(base) {
                path = names::join(&path, name);
                known.ignored = ignored.matches_below(&path, &known.ignored).1;
            }
        }
        known
    }
}

/// An entry that a scan met.
#[derive(Clone, Debug)]
pub(crate) struct Found<T> {
    /// Its path from where the scan began, without a leading slash.
    pub(crate) path: Vec<u8>,
    /// Its metadata as the view shows it.
    pub(crate) metadata: Metadata,
    /// What was looked up about it.
    pub(crate) extra: T,
    selected: bool,
}

/// Returns all entries below the directory `base` (a real path) that the rules select, and the
/// directories on the way to them, parents first, siblings sorted by bytes. `look` finds out more
/// about an entry, given its directory and name.
pub(crate) fn scan<T, L>(
    view: View<'_>,
    base: &Path,
    rules: Rules<'_>,
    look: L,
) -> Result<Vec<Found<T>>>
where
    T: Send,
    L: Fn(BorrowedFd<'_>, &[u8], &Metadata) -> Result<T, Errno> + Sync,
{
    let scanner = Scanner {
        view,
        base: names::below_root(base).to_vec(),
        root: base,
        rules,
        look,
        found: Mutex::new(Vec::new()),
        errors: Errors::default(),
    };
    let known = rules.known_at(&scanner.base);
    rayon::scope(|scope| scanner.directory(scope, Vec::new(), known));
    scanner.errors.into_result()?;
    let mut found = scanner.found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    found.sort_unstable_by(|a, b| names::compare(&a.path, &b.path));
    Ok(without_empty_passages(found))
}

/// Drops the directories that were only passed and lead to nothing.
fn without_empty_passages<T>(found: Vec<Found<T>>) -> Vec<Found<T>> {
    let mut kept: Vec<Found<T>> = Vec::with_capacity(found.len());
    for entry in found.into_iter().rev() {
        // What is below a directory follows it at once.
        let leads = |below: &Found<T>| {
            below.path.strip_prefix(&entry.path[..]).is_some_and(|rest| rest.starts_with(b"/"))
        };
        if entry.selected || kept.last().is_some_and(leads) {
            kept.push(entry);
        }
    }
    kept.reverse();
    kept
}

/// Collects the errors of parallel tasks.
#[derive(Debug, Default)]
pub(crate) struct Errors {
    first: Mutex<Option<(Vec<u8>, Error)>>,
    failed: AtomicBool,
}

impl Errors {
    /// Tells whether there has been an error, so that other tasks may stop.
    pub(crate) fn any(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Notes an error about a path.
    pub(crate) fn note(&self, path: &[u8], error: Error) {
        self.failed.store(true, Ordering::Relaxed);
        let mut first = self.first.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let earlier = first.as_ref().is_none_or(|(other, _)| names::compare(path, other).is_lt());
        if earlier {
            *first = Some((path.to_vec(), error));
        }
    }

    /// Returns the error with the first path.
    pub(crate) fn into_result(self) -> Result<()> {
        match self.first.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }
}

struct Scanner<'a, T, L> {
    view: View<'a>,
    /// Where the scan begins, without a leading slash; empty for the root.
    base: Vec<u8>,
    root: &'a Path,
    rules: Rules<'a>,
    look: L,
    found: Mutex<Vec<Found<T>>>,
    errors: Errors,
}

impl<T, L> Scanner<'_, T, L>
where
    T: Send,
    L: Fn(BorrowedFd<'_>, &[u8], &Metadata) -> Result<T, Errno> + Sync,
{
    fn directory<'s>(&'s self, scope: &rayon::Scope<'s>, path: Vec<u8>, known: Known) {
        if self.errors.any() {
            return;
        }
        match self.entries(&path, &known) {
            Ok((found, below)) => {
                let mut all = self.found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                all.extend(found);
                drop(all);
                for (path, known) in below {
                    scope.spawn(move |scope| self.directory(scope, path, known));
                }
            }
            Err(error) => self.errors.note(&path, error),
        }
    }

    fn whole(&self, path: &[u8]) -> PathBuf {
        self.root.join(names::path(path))
    }

    #[expect(clippy::type_complexity, reason = "the entries, and the directories to go on with")]
    fn entries(
        &self,
        path: &[u8],
        known: &Known,
    ) -> Result<(Vec<Found<T>>, Vec<(Vec<u8>, Known)>)> {
        let whole = self.whole(path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = match resolve::open(self.view.dir.as_fd(), &whole, flags, Mode::empty()) {
            Ok(fd) => fd,
            // Removed or replaced since it was listed.
            Err(Errno::NOENT | Errno::NOTDIR) if !path.is_empty() => return Ok(Default::default()),
            Err(errno) => return Err(Error::at("open", &whole, errno)),
        };
        let listed = entry_names(fd.as_fd()).map_err(|errno| Error::io("read", &whole, errno))?;
        let (mut found, mut below) = (Vec::with_capacity(listed.len()), Vec::new());
        for name in listed {
            let path = names::join(path, &name);
            let (verdict, known) = self.rules.judge(&self.base, &path, known);
            if verdict == Verdict::Skipped {
                continue;
            }
            let looked = Metadata::of_entry(fd.as_fd(), &name).and_then(|metadata| {
                let extra = (self.look)(fd.as_fd(), &name, &metadata)?;
                Ok((metadata, extra))
            });
            let (metadata, extra) = match looked {
                Ok(looked) => looked,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(Error::io("stat", &self.whole(&path), errno)),
            };
            let selected = verdict == Verdict::Selected;
            if metadata.is_dir() {
                below.push((path.clone(), known));
            } else if !selected {
                continue;
            }
            found.push(Found { path, metadata: self.view.show(metadata), extra, selected });
        }
        Ok((found, below))
    }
}

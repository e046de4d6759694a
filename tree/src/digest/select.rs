//! The evaluation of selections.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::Selection;
pub(crate) use super::filter::Picked;
use super::filter::{Filter, is_below};
use super::survey::Survey;
use crate::error::{Error, Result};
use crate::metadata::{FileKind, Metadata};
use crate::names;
use crate::resolve;
use crate::view::View;
use crate::walk::{self, Found, Pointed};
use crate::wildcard;

/// A selected path and its entries.
pub(crate) struct Selected {
    /// The path that the wildcards matched, relative to the view's root, with the links in the
    /// selected path; empty without wildcards.
    pub(crate) path: Vec<u8>,
    /// The selected entries at and below the path; empty if the path doesn't exist.
    pub(crate) entries: Vec<Picked>,
}

/// Returns the selected paths in order.
pub(crate) fn select(view: View<'_>, selection: &Selection) -> Result<Vec<Selected>> {
    Ok(survey(view, selection)?.into_iter().map(Survey::into_selected).collect())
}

/// Returns the selected paths in order, with their entries in a compact form.
pub(super) fn survey(view: View<'_>, selection: &Selection) -> Result<Vec<Survey>> {
    let filter = Filter::new(selection)?;
    let path = names::rooted(selection.path.as_bytes());
    if selection.wildcard && wildcard::has_wildcards(names::bytes(&path)) {
        return select_matches(view, &path, selection.follow, &filter);
    }
    let survey = match real_path(view, &path, selection.follow)? {
        Some(real) => Survey::new(Vec::new(), walk::find(view, &real)?, &filter),
        None => Survey::default(),
    };
    // If the path is a directory, the patterns apply to its contents.
    let is_other = survey.first_kind().is_some_and(|kind| kind != FileKind::Directory);
    let asked = names::bytes(&path).strip_prefix(b"/").unwrap_or_default();
    let base = asked.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    if is_other && filter.excludes_match(asked, base) {
        return Ok(Vec::new());
    }
    Ok(vec![survey])
}

/// Returns the real path of `path`, which is absolute and clean, or `None` if it can't exist.
fn real_path(view: View<'_>, path: &Path, follow: bool) -> Result<Option<PathBuf>> {
    let (followed, last) = match names::split(path) {
        Some((parent, name)) if !follow => (parent, Some(name)),
        _ => (path, None),
    };
    // A directory is visible if an entry below it is. The walk determines this.
    let visible = |path: &Path, metadata: &Metadata| {
        Ok(metadata.is_dir() || !walk::is_excluded(view, names::bytes(path)))
    };
    match resolve::real_path(view.dir.as_fd(), followed, Some(&visible)) {
        Ok(mut real) => {
            real.extend(last);
            Ok(Some(real))
        }
        Err(Errno::NOTDIR | Errno::NOENT | Errno::NAMETOOLONG) => Ok(None),
        Err(errno) => Err(Error::io("resolve", path, errno)),
    }
}

/// Returns the selected entries of each path that matches `pattern`, which is absolute and clean.
///
/// Links in front of the first wildcard are followed, links behind it are not.
fn select_matches(
    view: View<'_>,
    pattern: &Path,
    follow: bool,
    filter: &Filter,
) -> Result<Vec<Survey>> {
    let (base, paths) = matching(view, pattern, true)?;
    let asked = without_wildcards(pattern);
    let asked = names::bytes(&asked);
    let start = if asked.len() > 1 { asked.len() } else { 0 };
    let mut selected = Vec::new();
    for path in paths {
        let matched = path.strip_prefix(base.as_slice()).unwrap_or(&path);
        let matched = names::rooted(&names::join(asked, matched));
        let matched = &names::bytes(&matched)[1..];
        if filter.excludes_match(matched, start) {
            continue;
        }
        let mut found = walk::find(view, names::path(&path))?;
        let Some(first) = found.cursor().next().map(|first| first.seen.metadata.kind) else {
            continue;
        };
        if follow && first == FileKind::Symlink {
            found = match real_path(view, &names::rooted(&path), true)? {
                Some(real) => walk::find(view, &real)?,
                None => Found::default(),
            };
        }
        selected.push(Survey::new(matched.to_vec(), found, filter));
    }
    Ok(selected)
}

/// Returns the directory in which the wildcards of `pattern` begin, and the matching paths, in
/// order. `pattern` is absolute and clean; the results have no leading slash. Some of the paths may
/// not exist or not be visible. `follow` applies to a link right in front of the wildcards; earlier
/// links are always followed.
pub(crate) fn matching(
    view: View<'_>,
    pattern: &Path,
    follow: bool,
) -> Result<(Vec<u8>, Vec<Vec<u8>>)> {
    let parts: Vec<&[u8]> = names::components(names::bytes(pattern)).collect();
    let literal = without_wildcards(pattern);
    let Some(base) = real_path(view, &literal, follow)? else { return Ok(Default::default()) };
    let literal = names::components(names::bytes(&literal)).count();
    let base = names::bytes(&base).strip_prefix(b"/").unwrap_or_default();
    let rest = Pattern { whole: pattern, parts: &parts[literal..] };
    Ok((base.to_vec(), rest.matches_below(view, base)?))
}

/// Returns the part of a pattern in front of the first component with wildcards.
fn without_wildcards(pattern: &Path) -> PathBuf {
    let parts = names::components(names::bytes(pattern));
    let literal = parts.take_while(|part| !wildcard::has_wildcards(part));
    names::from_components(&literal.collect::<Vec<_>>())
}

/// A pattern from the first component with wildcards on.
struct Pattern<'a> {
    whole: &'a Path,
    parts: &'a [&'a [u8]],
}

impl Pattern<'_> {
    /// Returns the matching paths below the directory `base`, sorted in the order of a walk. Some
    /// of them may not exist or not be visible.
    fn matches_below(&self, view: View<'_>, base: &[u8]) -> Result<Vec<Vec<u8>>> {
        let joined = self.parts.join(&b'/');
        self.is_match(&joined, b"")?;
        if joined.contains(&b'[') {
            return self.matches_anywhere(view, base, &joined);
        }
        let mut paths = vec![base.to_vec()];
        for part in self.parts {
            let mut next = Vec::new();
            for path in paths {
                if !wildcard::has_wildcards(part) {
                    next.push(names::join(&path, &unescaped(part)));
                    continue;
                }
                for name in walk::names(view, &path)? {
                    if self.is_match(part, &name)? {
                        next.push(names::join(&path, &name));
                    }
                }
            }
            paths = next;
        }
        Ok(paths)
    }

    /// Does the same for patterns with character classes, which may match a slash.
    fn matches_anywhere(
        &self,
        view: View<'_>,
        base: &[u8],
        pattern: &[u8],
    ) -> Result<Vec<Vec<u8>>> {
        let mut found: Vec<Vec<u8>> = Vec::new();
        let entries = walk::find(view, names::path(base))?;
        let mut cursor = entries.cursor();
        while let Some(Pointed { path: whole, .. }) = cursor.next() {
            let path = whole.strip_prefix(base).unwrap_or(whole);
            let path = path.strip_prefix(b"/").unwrap_or(path);
            let is_below = |found: &Vec<u8>| is_below(whole, found);
            if !path.is_empty()
                && !found.last().is_some_and(is_below)
                && self.is_match(pattern, path)?
            {
                found.push(whole.to_vec());
            }
        }
        Ok(found)
    }

    fn is_match(&self, pattern: &[u8], name: &[u8]) -> Result<bool> {
        wildcard::matches(pattern, name)
            .map_err(|_| Error::invalid(self.whole, "malformed pattern"))
    }
}

/// Returns the name that a component without wildcards matches.
fn unescaped(part: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(part.len());
    let mut bytes = part.iter();
    while let Some(byte) = bytes.next() {
        name.extend(if *byte == b'\\' { bytes.next() } else { Some(byte) });
    }
    name
}

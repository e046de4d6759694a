//! Packing of several trees into one tar.
//!
//! Each tree is in a directory of its own, or all share the root. In the latter case, a directory
//! of several trees is written once, as in the first tree. Other entries must be in a single tree.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::header::Header;
use super::stream::Stream;
use super::{Packed, Plan};
use crate::error::{Error, Result};
use crate::metadata::{FileKind, Owner, Timestamp};

/// A path that two trees contain and that can't be merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The path, relative to the roots.
    pub path: PathBuf,
    /// The index of the first tree with the path.
    pub first: usize,
    /// The index of the other tree.
    pub second: usize,
}

impl Plan<'_> {
    /// Puts all entries into `directory` of the tar, which has the time `mtime`.
    #[must_use]
    pub fn below(mut self, directory: &str, mtime: Timestamp) -> Self {
        self.below = Some((directory.as_bytes().to_vec(), mtime));
        self
    }

    /// Writes the directory that contains all entries.
    fn write_place(&self, stream: &mut Stream<'_>) -> Result<u64> {
        let Some((directory, mtime)) = &self.below else { return Ok(0) };
        let header = Header {
            path: directory,
            kind: FileKind::Directory,
            mode: 0o755,
            owner: Owner::default(),
            size: 0,
            mtime: mtime.seconds,
            target: Cow::Borrowed(&[]),
            is_hard_link: false,
            capability: None,
        };
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        let name = OsStr::from_bytes(directory).as_ref();
        stream.put(&bytes).map_err(|error| Error::io("pack", name, error))?;
        Ok(1)
    }
}

/// Writes several trees into one tar, in order. Several trees may be in the same directory.
///
/// # Errors
/// Fails if a file can't be read or has changed since it was planned, or if `sink` fails.
pub fn write_together(plans: &[Plan<'_>], sink: &mut dyn Write) -> Result<Packed> {
    let mut stream = Stream::new(sink);
    let mut entries = 0;
    let mut directories = HashSet::new();
    let mut places = HashSet::new();
    for plan in plans {
        if places.insert(plan.below.as_ref().map(|(directory, _)| directory)) {
            entries += plan.write_place(&mut stream)?;
        }
        let repeated = |path: &[u8], kind: FileKind| {
            plans.len() > 1 && kind == FileKind::Directory && !directories.insert(path.to_vec())
        };
        entries += plan.write_to(&mut stream, repeated)?;
    }
    let bytes = stream.finish().map_err(|error| Error::io("pack", "/".as_ref(), error))?;
    Ok(Packed { entries, bytes })
}

/// Returns the first path that two of the trees contain and that isn't a directory in both.
pub fn find_conflict(plans: &[Plan<'_>]) -> Option<Conflict> {
    let mut seen: HashMap<Vec<u8>, (usize, bool)> = HashMap::new();
    for (second, plan) in plans.iter().enumerate() {
        for item in &plan.items {
            let is_directory = item.entry.metadata.kind == FileKind::Directory;
            let path = item.entry.path.to_vec();
            let known = seen.entry(path.clone()).or_insert((second, is_directory));
            let (first, was_directory) = *known;
            if first != second && !(is_directory && was_directory) {
                return Some(Conflict { path: OsStr::from_bytes(&path).into(), first, second });
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::dir::Dir;
    use crate::pack::{PackOptions, Whiteouts};

    const OPTIONS: PackOptions = PackOptions { whiteouts: Whiteouts::None, clamp_mtime: None };

    fn tree(files: &[&str]) -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().unwrap();
        for file in files {
            let path = temp.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, *file).unwrap();
        }
        let dir = Dir::open(temp.path()).unwrap();
        (temp, dir)
    }

    fn entries(plans: &[Plan<'_>]) -> Vec<(String, String)> {
        let mut bytes = Vec::new();
        let packed = write_together(plans, &mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entry = |entry: std::io::Result<tar::Entry<'_, _>>| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let link = entry.link_name().unwrap().map(|link| link.display().to_string());
            (path, link.unwrap_or_else(|| std::io::read_to_string(&mut entry).unwrap()))
        };
        let entries: Vec<_> = archive.entries().unwrap().map(entry).collect();
        assert_eq!(packed.entries, entries.len() as u64);
        entries
    }

    #[test]
    fn trees_lie_beside_each_other() {
        let ((one, first), (_two, second)) = (tree(&["d/a"]), tree(&["d/a"]));
        std::fs::hard_link(one.path().join("d/a"), one.path().join("d/b")).unwrap();
        let plans = [("x", &first), ("y", &second)]
            .map(|(name, dir)| Plan::new(dir, OPTIONS).unwrap().below(name, Timestamp::default()));
        let found: BTreeMap<_, _> = entries(&plans).into_iter().collect();
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["x/", "x/d/", "x/d/a", "x/d/b", "y/", "y/d/", "y/d/a"]);
        assert_eq!((found["x/d/b"].as_str(), found["y/d/a"].as_str()), ("x/d/a", "d/a"));
    }

    #[test]
    fn trees_share_directories_and_nothing_else() {
        let (_one, first) = tree(&["d/a"]);
        let (_two, second) = tree(&["d/b"]);
        let (_three, third) = tree(&["d"]);
        let plan = |dir| Plan::new(dir, OPTIONS).unwrap();
        let plans = [plan(&first), plan(&second)];
        assert_eq!(find_conflict(&plans), None);
        let names: Vec<String> = entries(&plans).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["d/", "d/a", "d/b"]);
        let conflict = |plans: &[Plan<'_>]| find_conflict(plans).unwrap();
        let same = Conflict { path: Path::new("d/a").into(), first: 0, second: 2 };
        assert_eq!(conflict(&[plan(&first), plan(&second), plan(&first)]), same);
        let kinds = Conflict { path: Path::new("d").into(), first: 0, second: 1 };
        assert_eq!(conflict(&[plan(&first), plan(&third)]), kinds);
    }
}

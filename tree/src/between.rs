//! The differences between two complete trees.
//!
//! Both trees are walked side by side. Entries are compared by the rules of
//! [`is_unchanged`], as BuildKit compares trees of which neither is built on the other.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::changes::{Located, is_unchanged};
use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::state::Touched;
use crate::walk::{list_names, open_without_links};
use crate::{names, path_limit};

/// Returns the entries of `upper` that `lower` lacks or has in another form, and the entries of
/// `lower` that `upper` lacks. The entries of a removed directory aren't listed.
///
/// # Errors
/// Fails if an entry can't be read, or if a path is too long.
pub fn changes_between(lower: &Dir, upper: &Dir) -> Result<Vec<Touched>> {
    let mut touched = Vec::new();
    let mut waiting = vec![Vec::new()];
    while let Some(path) = waiting.pop() {
        let failed = |errno| Error::io("compare", names::path(&path), errno);
        let Some(above) = open(upper, &path).map_err(failed)? else { continue };
        let below = open(lower, &path).map_err(failed)?;
        let mut all: BTreeSet<Vec<u8>> =
            list_names(above.as_fd()).map_err(failed)?.into_iter().collect();
        if let Some(below) = &below {
            all.extend(list_names(below.as_fd()).map_err(failed)?);
        }
        for name in all {
            let child = names::join(&path, &name);
            path_limit::check(&child, 0)?;
            let old = below.as_ref().map(|below| Located::look(below.as_fd(), &name));
            let old = old.transpose().map_err(failed)?.flatten();
            let Some(new) = Located::look(above.as_fd(), &name).map_err(failed)? else {
                touched.push(Touched { path: child, gone: true });
                continue;
            };
            let is_same =
                old.map(|old| is_unchanged(&old, &new)).transpose().map_err(failed)? == Some(true);
            if new.metadata.is_dir() {
                waiting.push(child.clone());
            }
            if !is_same {
                touched.push(Touched { path: child, gone: false });
            }
        }
    }
    Ok(touched)
}

/// Opens a directory without following links. `None` if there is no directory at the path.
fn open(tree: &Dir, path: &[u8]) -> Result<Option<OwnedFd>, Errno> {
    match open_without_links(tree.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        opened => opened.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match content.strip_prefix("-> ") {
                Some(target) => symlink(target, path).unwrap(),
                None => fs::write(path, content).unwrap(),
            }
        }
        dir
    }

    /// Gives all entries one time.
    fn settle(dir: &Path) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                settle(&path);
            }
            let time = filetime(&path);
            assert!(time.success());
        }
    }

    fn filetime(path: &Path) -> std::process::ExitStatus {
        std::process::Command::new("touch").args(["-h", "-d@1000"]).arg(path).status().unwrap()
    }

    fn changes(lower: &[(&str, &str)], upper: &[(&str, &str)]) -> String {
        let (lower, upper) = (tree(lower), tree(upper));
        settle(lower.path());
        settle(upper.path());
        let (lower, upper) = (Dir::open(lower.path()).unwrap(), Dir::open(upper.path()).unwrap());
        let mut found: Vec<String> = changes_between(&lower, &upper)
            .unwrap()
            .into_iter()
            .map(|it| {
                let path = String::from_utf8(it.path).unwrap();
                if it.gone { format!("-{path}") } else { format!("+{path}") }
            })
            .collect();
        found.sort();
        found.join(" ")
    }

    #[test]
    fn trees_are_compared_entry_by_entry() {
        let lower =
            [("a/same", "1"), ("a/changed", "1"), ("a/gone", "1"), ("d/x", "1"), ("l", "-> a")];
        let upper = [("a/same", "1"), ("a/changed", "2"), ("a/new/x", "1"), ("l", "-> b")];
        assert_eq!(changes(&lower, &upper), "+a/changed +a/new +a/new/x +l -a/gone -d");
        assert_eq!(changes(&lower, &lower), "");
        assert_eq!(changes(&lower, &[]), "-a -d -l");
        assert_eq!(changes(&[], &upper[3..]), "+l");
    }

    #[test]
    fn files_and_directories_replace_each_other() {
        assert_eq!(changes(&[("x", "1")], &[("x/y", "1")]), "+x +x/y");
        assert_eq!(changes(&[("x/y", "1")], &[("x", "1")]), "+x");
        assert_eq!(changes(&[("x", "-> d"), ("d/y", "1")], &[("x/y", "1")]), "+x +x/y -d");
    }
}

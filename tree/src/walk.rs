//! Walking a tree.

use std::path::Path;

use crate::error::Result;
use crate::metadata::Metadata;
use crate::names;
use crate::scan::{Rules, scan};
use crate::view::View;

/// An entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalkEntry {
    /// Its path from the root, without a leading slash.
    pub path: std::path::PathBuf,
    /// Its metadata, as the view shows it.
    pub metadata: Metadata,
}

/// Returns all that a view shows, except its root, sorted by path components: parents before what
/// is in them, siblings by bytes. Directories are read in parallel.
///
/// # Errors
/// Fails where a directory can't be read. What vanishes meanwhile is left out.
pub fn walk(view: View<'_>) -> Result<Vec<WalkEntry>> {
    let rules = Rules { ignored: view.excludes, ..Rules::default() };
    let found = scan(view, Path::new("/"), rules, |_, _, _| Ok(()))?;
    let entries = found.into_iter();
    Ok(entries
        .map(|entry| WalkEntry {
            path: names::path(&entry.path).to_path_buf(),
            metadata: entry.metadata,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dir::Dir;
    use crate::metadata::Owner;
    use crate::pattern::PatternMatcher;

    fn paths(patterns: &[&str]) -> Vec<String> {
        let temp = tempfile::tempdir().unwrap();
        for file in ["a/1", "a/b/2", "node_modules/x/n", "src/node_modules/m", "src/s.go", "z.log"]
        {
            let path = temp.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let dir = Dir::open(temp.path()).unwrap();
        let excludes = PatternMatcher::new(patterns).unwrap();
        let owner = Some(Owner { uid: 5, gid: 6 });
        let view = View { dir: &dir, excludes: Some(&excludes), owner, xattrs: false };
        let found = walk(view).unwrap();
        assert!(found.iter().all(|entry| entry.metadata.owner == owner.unwrap()));
        found.into_iter().map(|entry| entry.path.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn everything_is_found_in_order() {
        assert_eq!(
            paths(&[]),
            [
                "a",
                "a/1",
                "a/b",
                "a/b/2",
                "node_modules",
                "node_modules/x",
                "node_modules/x/n",
                "src",
                "src/node_modules",
                "src/node_modules/m",
                "src/s.go",
                "z.log"
            ]
        );
    }

    #[test]
    fn excluded_directories_are_seen_where_something_below_is() {
        assert_eq!(paths(&["*", "!a/b"]), ["a", "a/b", "a/b/2"]);
        assert_eq!(
            paths(&["a", "src/**", "!src/**/m", "[nz]*"]),
            ["src", "src/node_modules", "src/node_modules/m"]
        );
        assert_eq!(paths(&["**", "!nothing"]), [""; 0]);
    }
}

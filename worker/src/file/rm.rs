//! Rm actions: removal of files.
//!
//! The parent directory of the path is resolved inside the tree. The removed entry is not followed
//! if it is a link, and neither are links below it.

use std::path::Path;

use kiln_llb::op::RmAction;
use kiln_tree::Dir;

use crate::error::Result;

/// Removes a path with everything below it, or all matches of a pattern.
pub(super) fn rm(target: &Dir, action: &RmAction) -> Result<()> {
    let path = Path::new(&action.path);
    if !action.allow_wildcard || !has_wildcard(&action.path) {
        return remove(target, path, action.allow_not_found);
    }
    // A match may be below another one and already be removed with it.
    target.matching(path)?.iter().try_for_each(|path| remove(target, path, true))
}

fn remove(target: &Dir, path: &Path, allow_not_found: bool) -> Result<()> {
    if !allow_not_found && target.metadata(path, false)?.is_none() {
        return Err(kiln_tree::Error::NotFound { path: path.to_owned() }.into());
    }
    Ok(target.remove_all(path)?)
}

/// Returns `true` if a path contains a wildcard.
pub(crate) fn has_wildcard(path: &str) -> bool {
    let mut characters = path.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_outside_is_removed() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::create_dir(temp.path().join("canary")).unwrap();
        std::fs::write(temp.path().join("canary/f"), "x").unwrap();
        symlink(temp.path().join("canary"), root.join("link")).unwrap();
        symlink("../..", root.join("a/up")).unwrap();
        let dir = Dir::open(&root).unwrap();
        let remove = |path: &str| {
            rm(
                &dir,
                &RmAction { path: path.to_owned(), allow_not_found: true, ..Default::default() },
            )
        };
        for path in ["../canary", "a/../../canary", "a/up/canary", "link/f", "a/up/../canary/f"] {
            let _ = remove(path);
            assert!(temp.path().join("canary/f").exists(), "{path}");
        }
        assert!(remove("..").is_err());
        assert!(remove("/").is_err());
        remove("link").unwrap();
        remove("a").unwrap();
        assert!(!root.join("a").exists() && !root.join("link").exists());
        assert!(temp.path().join("canary/f").exists());
        let missing = RmAction { path: "/nope".to_owned(), ..RmAction::default() };
        assert_eq!(rm(&dir, &missing).unwrap_err().to_string(), "\"/nope\": not found");
    }

    #[test]
    fn what_a_pattern_matches_is_removed() {
        let temp = tempfile::tempdir().unwrap();
        for path in ["a/x.log", "a/keep", "b/x.log", "c.log/deep/x.log"] {
            let path = temp.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let dir = Dir::open(temp.path()).unwrap();
        let remove = |path: &str| {
            let path = path.to_owned();
            rm(&dir, &RmAction { path, allow_wildcard: true, ..RmAction::default() }).unwrap();
        };
        remove("/*/x.log");
        assert!(temp.path().join("a/keep").exists() && !temp.path().join("a/x.log").exists());
        assert!(!temp.path().join("b/x.log").exists());
        remove("*.log");
        assert!(!temp.path().join("c.log").exists());
        remove("/nothing*");
    }

    #[test]
    fn patterns_are_told_from_paths() {
        assert!(has_wildcard("/a*") && has_wildcard("[a]") && has_wildcard("x?"));
        assert!(!has_wildcard("/a\\*b") && !has_wildcard("/a/b"));
    }
}

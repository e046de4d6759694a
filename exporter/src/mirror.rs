//! Removal of everything but the exported files: `mode=delete`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kiln_tree::{Dir, FileKind};

use crate::error::Result;

/// Removes the entries of a directory that none of the sources has. Doesn't follow links.
pub(crate) fn remove_others(dest: &Dir, sources: &[&Dir]) -> Result<()> {
    let mut waiting = vec![PathBuf::new()];
    while let Some(directory) = waiting.pop() {
        for name in dest.open_dir(&directory)?.names()? {
            let path = directory.join(OsStr::from_bytes(&name));
            let Some(found) = dest.metadata(&path, false)? else { continue };
            let mut is_known = false;
            for source in sources {
                is_known |= source.metadata(&path, false)?.is_some();
            }
            if !is_known {
                dest.remove_all(&path)?;
            } else if found.kind == FileKind::Directory {
                waiting.push(path);
            }
        }
    }
    Ok(())
}

/// Removes the entries of a directory that aren't in `names`.
pub(crate) fn keep_only(dest: &Dir, names: &[String]) -> Result<()> {
    for name in dest.names()? {
        if !names.iter().any(|kept| kept.as_bytes() == name) {
            dest.remove_all(Path::new(OsStr::from_bytes(&name)))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_nobody_has_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for directory in ["a/kept/empty", "b", "dest/kept/old", "dest/other/deep"] {
            fs::create_dir_all(at(directory)).unwrap();
        }
        for file in ["b/file", "dest/file", "dest/kept/stale", "dest/other/deep/x", "outside"] {
            fs::write(at(file), "").unwrap();
        }
        std::os::unix::fs::symlink(dir.path(), at("dest/kept/link")).unwrap();
        let open = |path: &str| Dir::open(&at(path)).unwrap();
        remove_others(&open("dest"), &[&open("a"), &open("b")]).unwrap();
        assert!(at("dest/file").exists() && at("dest/kept").exists() && at("outside").exists());
        assert_eq!(fs::read_dir(at("dest/kept")).unwrap().count(), 0);
        assert!(!at("dest/other").exists());
        keep_only(&open("dest"), &["kept".to_owned()]).unwrap();
        assert!(at("dest/kept").exists() && !at("dest/file").exists());
    }
}

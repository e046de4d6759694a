//! The maximal length of a path in an image.
//!
//! A program can create paths of any length by creating directories and changing into them
//! repeatedly. Other programs can't open these paths, and archive readers refuse such names,
//! including kiln's. So a path that is too long for an archive is refused when a layer is created:
//! in the walk over its tree, in the comparisons that find the changes of a step, in the walk over
//! a build context, and when the tar of a copy without a tree, or of a cache mount, is planned. Trees
//! that are no layers may be deeper.
//!
//! The error contains only the beginning of the path, which may have megabytes.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::names;

/// The maximal length in bytes of a name or of a link's target in an archive.
pub(crate) const LONGEST: usize = 4096;

/// The number of bytes of a long path that the error shows.
const SHOWN: usize = 80;

/// Checks that a path fits into an archive. Its name there has `added` more bytes: the slash of a
/// directory, or the prefix of a deletion's mark.
///
/// # Errors
/// Fails if the path is too long.
pub(crate) fn check(path: &[u8], added: usize) -> Result<()> {
    if path.len() + added <= LONGEST { Ok(()) } else { Err(too_long(path)) }
}

/// Checks the path of an entry of the directory `parent`, as [`check`] does.
///
/// # Errors
/// Fails if the path is too long.
pub(crate) fn check_name(parent: &[u8], name: &[u8], added: usize) -> Result<()> {
    let slash = usize::from(!parent.is_empty());
    if parent.len() + slash + name.len() + added <= LONGEST {
        return Ok(());
    }
    Err(too_long(&names::join(parent, name)))
}

fn too_long(path: &[u8]) -> Error {
    let is_start = |end: &usize| path.get(*end).is_none_or(|byte| byte & 0xc0 != 0x80);
    let end = (0..=SHOWN.min(path.len())).rev().find(is_start).unwrap_or_default();
    Error::TooLong { start: PathBuf::from("/").join(names::path(&path[..end])) }
}

#[cfg(test)]
mod tests {
    use rustix::fs::Mode;

    use super::*;
    use crate::changes::Changes;
    use crate::digest::{Selection, content_digest};
    use crate::dir::Dir;
    use crate::pack::{PackOptions, Plan, Whiteouts};
    use crate::stamp::stamp;
    use crate::state::TreeState;
    use crate::view::View;
    use crate::walk::entries;

    /// Creates directories, each in the one before.
    fn deep(root: &Dir, levels: usize) {
        let name = "n".repeat(200);
        let mut here = root.try_clone().unwrap();
        for _ in 0..levels {
            rustix::fs::mkdirat(&here, &name, Mode::RWXU).unwrap();
            here = here.open_dir(name.as_ref()).unwrap();
        }
    }

    #[test]
    fn what_makes_a_layer_refuses_a_path_that_is_too_long() {
        let temp = tempfile::tempdir().unwrap();
        let root = Dir::open(temp.path()).unwrap();
        let below = tempfile::tempdir().unwrap();
        let whole = [Selection { path: "/".to_owned(), ..Selection::default() }];
        let options = PackOptions { whiteouts: Whiteouts::None, clamp_mtime: None };
        let looks: [(&str, &dyn Fn() -> Result<()>); 5] = [
            ("stamp", &|| stamp(&root).map(drop)),
            ("comparison", &|| Changes::find(&root, &[below.path().to_owned()]).map(drop)),
            ("state", &|| TreeState::of(&root).map(drop)),
            ("digest", &|| content_digest(View::of_layer(&root), &whole, None).map(drop)),
            ("archive", &|| Plan::readable(&root, options).map(drop)),
        ];
        deep(&root, 20);
        for (name, look) in &looks {
            look().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        root.remove_all("n".repeat(200).as_ref()).unwrap();
        deep(&root, 300);
        for (name, look) in &looks {
            let error = look().expect_err(name).to_string();
            assert!(error.starts_with(&format!("\"/{}\"…", "n".repeat(80))), "{name}: {error}");
        }
        root.remove_all("n".repeat(200).as_ref()).unwrap();
        deep(&root, 30);
        assert_eq!(entries(View::of(&root), "/".as_ref()).unwrap().len(), 31);
        root.remove_all("n".repeat(200).as_ref()).unwrap();
    }

    #[test]
    fn a_path_is_as_long_as_an_archive_takes_it() {
        let path = b"d/".repeat(LONGEST / 2);
        assert!(check(&path, 0).is_ok() && check(&path, 1).is_err());
        assert!(check_name(&path[..LONGEST - 2], b"f", 0).is_ok());
        assert!(check_name(&path[..LONGEST - 2], b"fg", 0).is_err());
        assert!(check_name(b"", &b"n".repeat(LONGEST), 0).is_ok());
    }

    #[test]
    fn the_error_holds_the_start_of_the_path() {
        let path = ["ä".repeat(39).as_bytes(), &b"x"[..], "ä".repeat(3000).as_bytes()].concat();
        let error = check(&path, 0).unwrap_err().to_string();
        let start = format!("\"/{}x\"", "ä".repeat(39));
        let rest = "… is longer than 4096 bytes, the limit of a path in an image";
        assert_eq!(error, format!("{start}{rest}"));
    }
}

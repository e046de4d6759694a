//! Lexical operations on paths as bytes: cleaning, splitting and joining.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Returns the bytes of a path.
pub(crate) fn bytes(path: &(impl AsRef<OsStr> + ?Sized)) -> &[u8] {
    path.as_ref().as_bytes()
}

/// Returns bytes as a path.
pub(crate) fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Returns an iterator over the components of a path, without `.` and empty ones.
pub(crate) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

/// Returns the path relative to a root: absolute, without `.` and `..`, computed lexically.
pub(crate) fn rooted(path: &[u8]) -> PathBuf {
    let mut kept: Vec<&[u8]> = Vec::new();
    for name in components(path) {
        if name == b".." {
            kept.pop();
        } else {
            kept.push(name);
        }
    }
    from_components(&kept)
}

/// Returns the absolute path with the given components.
pub(crate) fn from_components<T: AsRef<[u8]>>(names: &[T]) -> PathBuf {
    let mut text = Vec::with_capacity(names.iter().map(|name| name.as_ref().len() + 1).sum());
    for name in names {
        text.push(b'/');
        text.extend_from_slice(name.as_ref());
    }
    if text.is_empty() {
        text.push(b'/');
    }
    path(&text).to_path_buf()
}

/// Returns the argument of `openat` for an absolute path: the path without its leading slash, or
/// `.` for the root.
pub(crate) fn relative(rooted: &Path) -> &Path {
    match bytes(rooted).strip_prefix(b"/") {
        Some(b"") => Path::new("."),
        Some(rest) => path(rest),
        None => rooted,
    }
}

/// Splits an absolute, clean path into its parent and its name. Returns `None` for the root.
pub(crate) fn split(rooted: &Path) -> Option<(&Path, &OsStr)> {
    Some((rooted.parent()?, rooted.file_name()?))
}

/// Returns `true` if a path lexically stays where it starts: `.` or `a/..`, but not `/` or `..`.
pub(crate) fn is_dot(path: &[u8]) -> bool {
    let mut depth = 0_usize;
    for name in components(path) {
        if name != b".." {
            depth += 1;
        } else if depth == 0 {
            return false;
        } else {
            depth -= 1;
        }
    }
    depth == 0 && !path.starts_with(b"/")
}

/// Appends a name to a relative path.
pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(parent.len() + name.len() + 1);
    joined.extend_from_slice(parent);
    if !parent.is_empty() && !parent.ends_with(b"/") {
        joined.push(b'/');
    }
    joined.extend_from_slice(name);
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_within_their_root() {
        for (given, cleaned) in [
            ("", "/"),
            (".", "/"),
            ("a/./b//c/", "/a/b/c"),
            ("../../etc/passwd", "/etc/passwd"),
            ("/a/../../b", "/b"),
            ("/..", "/"),
        ] {
            assert_eq!(rooted(given.as_bytes()), Path::new(cleaned), "{given}");
        }
    }
}

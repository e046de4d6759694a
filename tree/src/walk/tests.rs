use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::dir::Dir;
use crate::metadata::Owner;
use crate::pattern::PatternMatcher;

fn tree(paths: &[&str]) -> (tempfile::TempDir, Dir) {
    let temp = tempfile::tempdir().unwrap();
    for path in paths {
        let at = temp.path().join(path);
        if path.ends_with('/') {
            fs::create_dir_all(at).unwrap();
        } else {
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, path).unwrap();
        }
    }
    let dir = Dir::open(temp.path()).unwrap();
    (temp, dir)
}

fn whole(dir: &Dir) -> View<'_> {
    View { xattrs: false, ..View::of(dir) }
}

fn paths(view: View<'_>, path: &str) -> Vec<String> {
    let entries = entries(view, path.as_ref()).unwrap();
    entries.into_iter().map(|entry| String::from_utf8(entry.path.to_vec()).unwrap()).collect()
}

fn shown(paths_there: &[&str], patterns: &[&str]) -> Vec<String> {
    let (_temp, dir) = tree(paths_there);
    let excludes = PatternMatcher::new(patterns).unwrap();
    let mut shown = paths(View { excludes: Some(&excludes), ..whole(&dir) }, "/");
    assert_eq!(shown.remove(0), "");
    shown
}

#[test]
fn entries_come_depth_first_with_names_sorted_by_bytes() {
    let (temp, dir) = tree(&["b/x", "b-a", "b.c", "B", "a/", "b/d/e/f", "ä"]);
    symlink("b/x", temp.path().join("c")).unwrap();
    let expected = ["", "B", "a", "b", "b/d", "b/d/e", "b/d/e/f", "b/x", "b-a", "b.c", "c", "ä"];
    assert_eq!(paths(whole(&dir), "/"), expected);
    assert_eq!(paths(whole(&dir), "b/d"), ["b/d", "b/d/e", "b/d/e/f"]);
    assert_eq!(paths(whole(&dir), "/b/x"), ["b/x"]);
    let link = entries(whole(&dir), "c".as_ref()).unwrap().remove(0);
    assert_eq!((link.target.as_slice(), link.name()), (&b"b/x"[..], &b"c"[..]));
    for missing in ["none", "none/x", "b/x/y", "c/x"] {
        assert_eq!(paths(whole(&dir), missing), [""; 0], "{missing}");
    }
}

#[test]
fn large_directories_stay_in_order() {
    let temp = tempfile::tempdir().unwrap();
    let mut expected = vec![String::new()];
    for number in 1000..3000 {
        fs::create_dir(temp.path().join(number.to_string())).unwrap();
        expected.push(number.to_string());
        if number % 100 == 0 {
            fs::write(temp.path().join(format!("{number}/in")), "").unwrap();
            expected.push(format!("{number}/in"));
        }
    }
    let dir = Dir::open(temp.path()).unwrap();
    assert_eq!(paths(whole(&dir), "/"), expected);
}

#[test]
fn excluded_directories_show_where_something_below_is_brought_back() {
    let there = ["a/b/c", "a/b/d", "a/e", "f/g", "h"];
    let all = ["a", "a/b", "a/b/c", "a/b/d", "a/e", "f", "f/g", "h"];
    assert_eq!(shown(&there, &["nothing"]), all);
    assert_eq!(shown(&there, &["a"]), ["f", "f/g", "h"]);
    assert_eq!(shown(&there, &["*", "!a/b/c"]), ["a", "a/b", "a/b/c"]);
    assert_eq!(shown(&there, &["*", "!a/b/none"]), [""; 0]);
    assert_eq!(shown(&there, &["*", "!**/g"]), ["f", "f/g"]);
    assert_eq!(shown(&there, &["a", "!a/b", "a/b/c"]), ["a", "a/b", "a/b/d", "f", "f/g", "h"]);
    assert_eq!(shown(&there, &["**/b/*"]), ["a", "a/b", "a/e", "f", "f/g", "h"]);
}

#[test]
fn a_walk_that_starts_below_sees_what_one_from_the_root_sees() {
    let (_temp, dir) = tree(&["a/b/c", "a/b/d", "a/e"]);
    for patterns in [&["a", "!a/b"][..], &["a"], &["a/b/c"], &["*", "!a/b/d"], &["a/b/c", "!a"]] {
        let excludes = PatternMatcher::new(patterns).unwrap();
        let view = View { excludes: Some(&excludes), ..whole(&dir) };
        let all = paths(view, "/");
        for start in ["a", "a/b", "a/b/c", "a/b/d", "a/e"] {
            let within = |path: &&String| *path == start || path.starts_with(&format!("{start}/"));
            let expected: Vec<_> = all.iter().filter(within).cloned().collect();
            assert_eq!(paths(view, start), expected, "{patterns:?} {start}");
        }
    }
}

#[test]
fn the_view_decides_on_owners_and_attributes() {
    let (temp, dir) = tree(&["f"]);
    fs::set_permissions(temp.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let path = temp.path().join("f");
    rustix::fs::setxattr(&path, "user.note", b"x", rustix::fs::XattrFlags::empty()).unwrap();
    let owner = Owner { uid: 7, gid: 8 };
    let seen = entries(View { owner: Some(owner), ..whole(&dir) }, "/".as_ref()).unwrap();
    assert!(seen.iter().all(|entry| entry.metadata.owner == owner && entry.xattrs.is_empty()));
    assert_eq!(seen[0].metadata.mode, 0o755, "a context's root has no mode of its own");
    let seen = entries(View { xattrs: true, ..whole(&dir) }, "/".as_ref()).unwrap();
    assert_eq!(seen[1].xattr(b"user.note"), Some(&b"x"[..]));
    assert_eq!(seen[0].metadata.mode, 0o700);
    assert_ne!(seen[0].metadata.owner, owner);
}

#[test]
fn a_comb_of_directories_needs_few_descriptors() {
    let temp = tempfile::tempdir().unwrap();
    let dir = Dir::open(temp.path()).unwrap();
    let mut here = dir.try_clone().unwrap();
    for _ in 0..600 {
        for name in ["0", "1", "2"] {
            rustix::fs::mkdirat(&here, name, rustix::fs::Mode::RWXU).unwrap();
        }
        here = here.open_dir("1".as_ref()).unwrap();
    }
    assert_eq!(entries(whole(&dir), "/".as_ref()).unwrap().len(), 1 + 3 * 600);
    dir.remove_all("1".as_ref()).unwrap();
}

//! Tests with upper directories as overlayfs leaves them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, mknodat, setxattr, utimensat,
};

use super::*;
use crate::Plan;

/// An upper directory and the tree below it.
struct Trees {
    _temp: tempfile::TempDir,
    below: PathBuf,
    upper: PathBuf,
}

impl Trees {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let (below, upper) = (temp.path().join("below"), temp.path().join("upper"));
        fs::create_dir(&below).unwrap();
        fs::create_dir(&upper).unwrap();
        Self { _temp: temp, below, upper }
    }

    fn find(&self) -> Changes {
        Changes::find(&Dir::open(&self.upper).unwrap(), std::slice::from_ref(&self.below)).unwrap()
    }

    /// Returns the names in the tar. Hard links have their target appended.
    fn packed(&self) -> Vec<String> {
        let changes = self.find();
        assert_eq!(Changes::from_bytes(&changes.to_bytes()).unwrap(), changes);
        let dir = Dir::open(&self.upper).unwrap();
        let mut tar = Vec::new();
        Plan::of_changes(&dir, &changes).unwrap().write(&mut tar).unwrap();
        let mut archive = tar::Archive::new(tar.as_slice());
        let name = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            let entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            match entry.link_name().unwrap() {
                Some(link) => format!("{path}={}", link.display()),
                None => path,
            }
        };
        archive.entries().unwrap().map(name).collect()
    }
}

/// Writes a file with a fixed mode and time.
fn file(path: &Path, content: &str, nanoseconds: i64) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    age(path, nanoseconds);
}

fn age(path: &Path, nanoseconds: i64) {
    let time = Timespec { tv_sec: 1_600_000_000, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("CI").is_none(), "{test} needs root");
        eprintln!("skipped {test}: needs root");
    }
    root
}

fn opaque(path: &Path) {
    fs::create_dir_all(path).unwrap();
    setxattr(path, "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
}

fn whiteout(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
}

#[test]
fn what_is_as_it_was_is_left_out() {
    let trees = Trees::new();
    for tree in [&trees.below, &trees.upper] {
        for name in ["d/size", "d/content", "d/time", "d/mode", "d/same", "d/exact", "e/same"] {
            file(&tree.join(name), "text", 0);
        }
        symlink("one", tree.join("d/link")).unwrap();
        symlink("one", tree.join("d/other")).unwrap();
        age(&tree.join("d/exact"), 5);
        age(&tree.join("d/link"), 0);
    }
    file(&trees.upper.join("d/size"), "longer", 0);
    file(&trees.upper.join("d/content"), "TEXT", 0);
    age(&trees.upper.join("d/time"), 1);
    fs::set_permissions(trees.upper.join("d/mode"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(trees.upper.join("d/other")).unwrap();
    symlink("two", trees.upper.join("d/other")).unwrap();
    for tree in [&trees.below, &trees.upper] {
        age(&tree.join("d/other"), 0);
    }
    file(&trees.upper.join("d/new"), "", 0);
    assert_eq!(
        trees.packed(),
        ["d/", "d/content", "d/mode", "d/new", "d/other=two", "d/size", "d/time"]
    );
    // A time with a fraction of a second is sufficient proof.
    file(&trees.upper.join("d/exact"), "TEXT", 5);
    assert!(!trees.packed().contains(&"d/exact".to_owned()));
}

#[test]
fn directories_come_with_what_is_in_them() {
    let trees = Trees::new();
    for tree in [&trees.below, &trees.upper] {
        for path in ["a/b/c", "a/b/d", "e/f"] {
            fs::create_dir_all(tree.join(path)).unwrap();
        }
    }
    age(&trees.upper.join("a/b"), 0);
    assert!(trees.packed().is_empty());
    file(&trees.upper.join("a/b/d/x"), "", 0);
    fs::set_permissions(trees.upper.join("e/f"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(trees.packed(), ["a/", "a/b/", "a/b/d/", "a/b/d/x", "e/", "e/f/"]);
}

#[test]
fn replaced_directories_name_what_is_gone() {
    if !is_root("replaced_directories_name_what_is_gone") {
        return;
    }
    let trees = Trees::new();
    for name in ["o/a", "o/gone/x/y", "o/p/kept", "o/p/z", "o/was-file", "o/was-dir/x", "q/x"] {
        file(&trees.below.join(name), "", 0);
    }
    opaque(&trees.upper.join("o"));
    file(&trees.upper.join("o/p/kept"), "", 0);
    file(&trees.upper.join("o/p.new"), "", 0);
    file(&trees.upper.join("o/was-file/x"), "", 0);
    file(&trees.upper.join("o/was-dir"), "", 0);
    opaque(&trees.upper.join("new"));
    opaque(&trees.upper.join("q"));
    file(&trees.upper.join("q/x"), "", 0);
    assert_eq!(
        trees.packed(),
        [
            "new/",
            "o/",
            "o/.wh.a",
            "o/.wh.gone",
            "o/p/",
            "o/p/.wh.z",
            "o/p.new",
            "o/was-dir",
            "o/was-file/",
            "o/was-file/x"
        ]
    );
}

#[test]
fn deletions_of_nothing_are_left_out() {
    if !is_root("deletions_of_nothing_are_left_out") {
        return;
    }
    let trees = Trees::new();
    file(&trees.below.join("d/there"), "", 0);
    fs::create_dir_all(trees.below.join("e")).unwrap();
    for name in ["d/there", "d/nothing", "e/nothing", "new/nothing"] {
        whiteout(&trees.upper.join(name));
    }
    assert_eq!(trees.packed(), ["d/", "d/.wh.there", "new/"]);
}

#[test]
fn of_names_of_a_file_the_changed_ones_are_written() {
    if !is_root("of_names_of_a_file_the_changed_ones_are_written") {
        return;
    }
    let link = |tree: &Path, old: &str, new: &str| {
        fs::hard_link(tree.join(old), tree.join(new)).unwrap();
    };
    let trees = Trees::new();
    file(&trees.below.join("d/a"), "x", 0);
    file(&trees.upper.join("d/a"), "x", 0);
    for name in ["d/b", "d/c"] {
        link(&trees.upper, "d/a", name);
    }
    assert_eq!(trees.packed(), ["d/", "d/b", "d/c=d/b"]);
    // In a replaced directory, the unchanged names of a file are written with it.
    file(&trees.below.join("o/s/a"), "x", 0);
    file(&trees.below.join("o/z"), "x", 0);
    opaque(&trees.upper.join("o"));
    file(&trees.upper.join("o/s/a"), "x", 0);
    link(&trees.upper, "o/s/a", "o/z");
    assert_eq!(trees.packed(), ["d/", "d/b", "d/c=d/b"]);
    link(&trees.upper, "o/s/a", "o/t");
    let expected = ["d/", "d/b", "d/c=d/b", "o/", "o/t", "o/s/", "o/s/a=o/t", "o/z=o/t"];
    assert_eq!(trees.packed(), expected);
}

#[test]
fn large_trees_are_compared_by_all_threads() {
    let trees = Trees::new();
    for number in 0..3000 {
        for tree in [&trees.below, &trees.upper] {
            file(&tree.join(format!("{}/{number}", number % 5)), "x", 7);
        }
    }
    assert!(trees.packed().is_empty());
    file(&trees.upper.join("3/1503"), "x", 8);
    assert_eq!(trees.packed(), ["3/", "3/1503"]);
}

#[test]
fn what_is_no_list_of_changes_is_refused() {
    for bytes in [&b"x"[..], b"ua", b"?a\0", b"ua\0u"] {
        assert_eq!(Changes::from_bytes(bytes), None);
    }
}

/// Marks a deletion with a file, for file systems that refuse overlayfs's device.
fn file_mark(path: &Path) {
    let name = format!(".kiln-wh.{}", path.file_name().unwrap().to_str().unwrap());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path.with_file_name(&name), "").unwrap();
    fs::set_permissions(path.with_file_name(name), fs::Permissions::from_mode(0o000)).unwrap();
}

#[test]
fn a_chain_is_read_as_the_tree_that_it_makes() {
    if !is_root("a_chain_is_read_as_the_tree_that_it_makes") {
        return;
    }
    let marks: [fn(&Path); 2] = [whiteout, file_mark];
    for mark in marks {
        let temp = tempfile::tempdir().unwrap();
        let at = |path: &str| temp.path().join(path);
        for name in ["d/kept", "d/gone", "d/back", "d/deep/f", "opaque/old", "f/in", "plain", "x"] {
            file(&at("low").join(name), name, 0);
        }
        mark(&at("middle/d/gone"));
        mark(&at("middle/d/back"));
        mark(&at("middle/x"));
        opaque(&at("middle/opaque"));
        file(&at("middle/opaque/new"), "new", 0);
        file(&at("middle/f"), "no directory any more", 0);
        file(&at("top/d/back"), "d/back", 0);
        file(&at("top/d/deep/g"), "g", 0);
        mark(&at("top/plain"));
        let chain: Vec<PathBuf> = ["top", "middle", "low"].map(at).into();

        // The step writes all files again, deletes an entry that doesn't exist, and replaces two
        // directories.
        for name in ["d/kept", "d/gone", "d/back", "d/deep/f", "d/deep/g", "f", "plain", "x"] {
            let text =
                if name == "f" { "no directory any more" } else { &name.replace("d/deep/g", "g") };
            file(&at("upper").join(name), text, 0);
        }
        opaque(&at("upper/opaque"));
        file(&at("upper/opaque/old"), "opaque/old", 0);
        mark(&at("upper/nothing"));

        let whole = at("whole");
        fs::create_dir(&whole).unwrap();
        crate::assemble(&chain, &Dir::open(&whole).unwrap(), crate::Files::Own).unwrap();
        let upper = Dir::open(&at("upper")).unwrap();
        let found = Changes::find(&upper, &chain).unwrap();
        assert_eq!(found, Changes::find(&upper, &[whole]).unwrap());
        let marked = |path: &str| found.of(path.as_bytes());
        for same in ["d/kept", "d/back", "d/deep/f", "d/deep/g", "f"] {
            assert_eq!(marked(same), Some(Mark::Unchanged), "{same}");
        }
        for new in ["d/gone", "plain", "x", "opaque/old"] {
            assert_eq!(marked(new), None, "{new}");
        }
        assert_eq!(marked("opaque/new"), Some(Mark::Deleted));
        assert_eq!(marked("nothing"), Some(Mark::Unchanged));
    }
}

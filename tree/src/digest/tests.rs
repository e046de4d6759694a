use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::dir::Dir;
use crate::metadata::Owner;
use crate::pattern::PatternMatcher;

/// A tree that tests change and digest.
struct Tree {
    temp: tempfile::TempDir,
}

impl Tree {
    fn new() -> Self {
        let tree = Self { temp: tempfile::tempdir().unwrap() };
        fs::set_permissions(tree.temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for path in ["a/b/one.txt", "a/b/two.md", "a/three.txt", "c/four.txt", "five.txt"] {
            tree.write(path, path);
        }
        symlink("a/b", tree.at("to-dir")).unwrap();
        symlink("/a/b/one.txt", tree.at("to-file")).unwrap();
        symlink("nowhere", tree.at("dangling")).unwrap();
        tree
    }

    fn at(&self, path: &str) -> PathBuf {
        self.temp.path().join(path)
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.at(path);
        for parent in path
            .ancestors()
            .skip(1)
            .take_while(|parent| !parent.exists())
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
        {
            fs::create_dir(parent).unwrap();
            fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }

    fn digest(&self, selections: &[Selection]) -> Digest {
        let dir = Dir::open(self.temp.path()).unwrap();
        let view = View::of(&dir);
        content_digest(view, selections, None).unwrap()
    }

    fn ignoring(&self, patterns: &[&str], selection: &Selection) -> Digest {
        let dir = Dir::open(self.temp.path()).unwrap();
        let excludes = PatternMatcher::new(patterns).unwrap();
        let view = View { excludes: Some(&excludes), xattrs: false, ..View::of(&dir) };
        content_digest(view, std::slice::from_ref(selection), None).unwrap()
    }
}

fn path(path: &str) -> Selection {
    Selection { path: path.into(), ..Selection::default() }
}

fn followed(path: &str) -> Selection {
    Selection { path: path.into(), follow: true, ..Selection::default() }
}

fn wildcard(pattern: &str) -> Selection {
    Selection { path: pattern.into(), wildcard: true, ..Selection::default() }
}

fn filtered(path: &str, include: &[&str], exclude: &[&str]) -> Selection {
    let owned = |patterns: &[&str]| patterns.iter().map(|&pattern| pattern.to_owned()).collect();
    Selection {
        path: path.into(),
        include: owned(include),
        exclude: owned(exclude),
        ..Selection::default()
    }
}

/// Returns `true` if a change to the tree changes the selection's digest.
fn notices(selection: &Selection, change: impl FnOnce(&Tree)) -> bool {
    let tree = Tree::new();
    let before = tree.digest(std::slice::from_ref(selection));
    change(&tree);
    before != tree.digest(std::slice::from_ref(selection))
}

#[test]
fn equal_trees_have_equal_digests() {
    let (one, two) = (Tree::new(), Tree::new());
    fs::File::open(two.at("five.txt"))
        .unwrap()
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    let selections = [path("/"), path("a"), followed("to-dir"), wildcard("*.txt"), path("none")];
    assert_eq!(one.digest(&selections), two.digest(&selections));
    for selection in &selections {
        let selection = std::slice::from_ref(selection);
        assert_eq!(one.digest(selection), two.digest(selection));
    }
    assert_ne!(one.digest(&[path("a"), path("c")]), one.digest(&[path("c"), path("a")]));
}

#[test]
fn whatever_a_copy_could_tell_is_noticed() {
    type Change = (&'static str, fn(&Tree));
    let changes: [Change; 13] = [
        ("bytes", |tree| tree.write("a/three.txt", "a/three.tx_")),
        ("size", |tree| tree.write("a/three.txt", "")),
        ("new file", |tree| tree.write("a/new", "")),
        ("new empty directory", |tree| fs::create_dir(tree.at("a/new")).unwrap()),
        ("removal", |tree| fs::remove_file(tree.at("a/three.txt")).unwrap()),
        ("other name", |tree| fs::rename(tree.at("a/three.txt"), tree.at("a/3.txt")).unwrap()),
        ("other name in the same order", |tree| {
            fs::rename(tree.at("a/three.txt"), tree.at("a/thref.txt")).unwrap();
        }),
        ("other place", |tree| {
            fs::rename(tree.at("a/three.txt"), tree.at("a/b/three.txt")).unwrap();
        }),
        ("mode of a file", |tree| {
            fs::set_permissions(tree.at("a/three.txt"), fs::Permissions::from_mode(0o600)).unwrap();
        }),
        ("mode of the directory", |tree| {
            fs::set_permissions(tree.at("a"), fs::Permissions::from_mode(0o700)).unwrap();
        }),
        ("a link in place of a file", |tree| {
            fs::remove_file(tree.at("a/three.txt")).unwrap();
            symlink("b/one.txt", tree.at("a/three.txt")).unwrap();
        }),
        ("a directory in place of a file", |tree| {
            fs::remove_file(tree.at("a/three.txt")).unwrap();
            fs::create_dir(tree.at("a/three.txt")).unwrap();
        }),
        ("contents swapped", |tree| {
            tree.write("a/b/one.txt", "a/b/two.md");
            tree.write("a/b/two.md", "a/b/one.txt");
        }),
    ];
    for (name, change) in changes {
        for selection in [path("a"), path("/"), wildcard("[a]"), filtered("a", &["**"], &[])] {
            assert!(notices(&selection, change), "{name} in {selection:?}");
        }
        assert!(!notices(&path("c"), change), "{name}");
    }
}

#[test]
fn a_link_is_its_target_unless_it_is_followed() {
    let retarget = |tree: &Tree| {
        fs::remove_file(tree.at("to-dir")).unwrap();
        symlink("a/b/.", tree.at("to-dir")).unwrap();
    };
    let edit = |tree: &Tree| tree.write("a/b/one.txt", "other");
    assert!(notices(&path("to-dir"), retarget) && !notices(&path("to-dir"), edit));
    assert!(!notices(&followed("to-dir"), retarget) && notices(&followed("to-dir"), edit));
    assert!(notices(&followed("to-file"), edit) && !notices(&path("to-file"), edit));
    // Links in parents are always followed.
    assert!(notices(&path("to-dir/one.txt"), edit) && !notices(&path("to-dir/one.txt"), retarget));
    let appear = |tree: &Tree| tree.write("nowhere", "now here");
    assert!(notices(&followed("dangling"), appear) && !notices(&path("dangling"), appear));
}

#[test]
fn links_never_lead_out() {
    let outside = tempfile::NamedTempFile::new().unwrap();
    let tree = Tree::new();
    symlink(outside.path(), tree.at("out")).unwrap();
    let before = tree.digest(&[followed("out")]);
    fs::write(outside.path(), "changed").unwrap();
    assert_eq!(before, tree.digest(&[followed("out")]));
    assert_eq!(tree.digest(&[followed("out")]), tree.digest(&[path("none")]));
    symlink("loop", tree.at("loop")).unwrap();
    let dir = Dir::open(tree.temp.path()).unwrap();
    let view = View::of(&dir);
    assert!(content_digest(view, &[followed("loop")], None).is_err());
}

#[test]
fn what_is_not_there_is_part_of_the_digest() {
    for missing in ["none", "none/below", "five.txt/below", "a/new.txt"] {
        let selection = path(missing);
        assert!(!notices(&selection, |tree| tree.write("other", "")));
        if !missing.starts_with("five") {
            assert!(notices(&selection, |tree| tree.write(missing, "")), "{missing}");
        }
    }
    assert!(notices(&wildcard("*.new"), |tree| tree.write("x.new", "")));
    assert!(notices(&path("c"), |tree| fs::remove_dir_all(tree.at("c")).unwrap()));
}

#[test]
fn wildcards_match_names_and_all_below_them() {
    let edit = |name: &'static str| move |tree: &Tree| tree.write(name, "edited");
    assert!(notices(&wildcard("*.txt"), edit("five.txt")));
    assert!(!notices(&wildcard("*.txt"), edit("a/three.txt")), "a star stops at slashes");
    assert!(notices(&wildcard("*/*.txt"), edit("a/three.txt")));
    assert!(!notices(&wildcard("*/*.txt"), edit("a/b/one.txt")));
    assert!(notices(&wildcard("?"), edit("a/b/one.txt")), "matched directories are whole");
    assert!(notices(&wildcard("[ab]/b/t*"), edit("a/b/two.md")));
    assert!(!notices(&wildcard("[ab]/b/t*"), edit("a/b/one.txt")));
    assert!(notices(&wildcard("*/b/one.txt"), edit("a/b/one.txt")));
    assert!(notices(&wildcard("to-d?r/../*/b"), edit("a/b/one.txt")));
    assert!(notices(&wildcard("to-dir/*.md"), edit("a/b/two.md")), "links in front are followed");
    assert!(!notices(&wildcard("to-di?/*.md"), edit("a/b/two.md")), "links that match are not");
    // The matched name is part of the digest, since a copy uses it.
    let rename = |tree: &Tree| fs::rename(tree.at("five.txt"), tree.at("5.txt")).unwrap();
    assert!(notices(&wildcard("*.txt"), rename));
    let follow = Selection { follow: true, ..wildcard("to-f*") };
    assert!(notices(&follow, edit("a/b/one.txt")));
    assert!(!notices(&wildcard("to-f*"), edit("a/b/one.txt")));
    // Without the flag, a star is an ordinary character.
    assert!(!notices(&path("*.txt"), edit("five.txt")));
    assert!(notices(&path("*.txt"), edit("*.txt")));
}

#[test]
fn malformed_patterns_are_errors() {
    let tree = Tree::new();
    let dir = Dir::open(tree.temp.path()).unwrap();
    let view = View::of(&dir);
    for selection in [wildcard("a/[z"), filtered("a", &["[z"], &[]), filtered("a", &[], &["!"])] {
        assert!(
            content_digest(view, std::slice::from_ref(&selection), None).is_err(),
            "{selection:?}"
        );
    }
}

#[test]
fn filters_decide_below_the_path() {
    let edit = |name: &'static str| move |tree: &Tree| tree.write(name, "edited");
    let texts = filtered("a", &["**/*.txt"], &[]);
    assert!(notices(&texts, edit("a/three.txt")) && notices(&texts, edit("a/b/one.txt")));
    assert!(!notices(&texts, edit("a/b/two.md")));
    let narrow = |tree: &Tree| {
        fs::set_permissions(tree.at("a/b"), fs::Permissions::from_mode(0o700)).unwrap();
    };
    assert!(notices(&texts, narrow), "directories on the way are made by a copy");
    assert!(!notices(&filtered("a", &["*.txt"], &[]), narrow), "this one isn't");
    let others = filtered("/", &[], &["a/b", "!a/b/two.md"]);
    assert!(!notices(&others, edit("a/b/one.txt")) && notices(&others, edit("a/b/two.md")));
    assert!(notices(&others, edit("five.txt")));
    let both = Selection { exclude: vec!["b".into()], ..filtered("[a]", &["**/*.txt"], &[]) };
    let both = Selection { wildcard: true, ..both };
    assert!(notices(&both, edit("a/three.txt")) && !notices(&both, edit("a/b/one.txt")));
}

#[test]
fn what_the_view_leaves_out_is_not_there() {
    let tree = Tree::new();
    let absent = tree.ignoring(&["x"], &path("none"));
    let below_b = ["a/b"];
    let before = tree.ignoring(&below_b, &path("/"));
    tree.write("a/b/one.txt", "edited");
    assert_eq!(before, tree.ignoring(&below_b, &path("/")));
    assert_ne!(before, tree.ignoring(&["a/b/two.md"], &path("/")));
    assert_eq!(absent, tree.ignoring(&below_b, &path("a/b/one.txt")));
    assert_eq!(absent, tree.ignoring(&below_b, &followed("to-dir")));
    assert_eq!(absent, tree.ignoring(&["to-dir"], &path("to-dir/one.txt")));
    let nothing = tree.ignoring(&below_b, &wildcard("*/nothing*"));
    assert_eq!(nothing, tree.ignoring(&below_b, &wildcard("*/b")));
    assert_eq!(nothing, tree.ignoring(&below_b, &wildcard("a/[b]/*")));
    let back = ["a", "!a/b/two.md"];
    assert_ne!(absent, tree.ignoring(&back, &path("a/b")));
    let before = tree.ignoring(&back, &path("a"));
    tree.write("a/three.txt", "edited");
    assert_eq!(before, tree.ignoring(&back, &path("a")));
    tree.write("a/b/two.md", "edited");
    assert_ne!(before, tree.ignoring(&back, &path("a")));
}

#[test]
fn owners_count_unless_the_view_gives_them() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root");
        eprintln!("skipped owners_count_unless_the_view_gives_them: needs root");
        return;
    }
    let chown = |tree: &Tree| std::os::unix::fs::chown(tree.at("a/b"), Some(5), Some(6)).unwrap();
    assert!(notices(&path("a"), chown));
    let capable = |tree: &Tree| {
        let value = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(tree.at("a/three.txt"), "security.capability", &value, flags).unwrap();
    };
    assert!(notices(&path("a"), capable));
    let tree = Tree::new();
    let context = || {
        let dir = Dir::open(tree.temp.path()).unwrap();
        let owner = Some(Owner::default());
        let view = View { owner, xattrs: false, ..View::of(&dir) };
        content_digest(view, &[path("/")], None).unwrap()
    };
    let before = context();
    chown(&tree);
    capable(&tree);
    // The root of a context is not transferred, so its mode doesn't matter.
    fs::set_permissions(tree.temp.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(before, context());
}

#[test]
fn device_numbers_count() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root");
        eprintln!("skipped device_numbers_count: needs root");
        return;
    }
    let digest = |minor| {
        let tree = Tree::new();
        let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::RUSR);
        let device = rustix::fs::makedev(1, minor);
        rustix::fs::mknodat(rustix::fs::CWD, tree.at("node"), kind, mode, device).unwrap();
        tree.digest(&[path("node")])
    };
    assert_eq!(digest(3), digest(3));
    assert_ne!(digest(3), digest(5));
}

#[derive(Default)]
struct Memory {
    known: Mutex<HashMap<(u64, u64, u64), [u8; 32]>>,
    puts: AtomicUsize,
}

impl FileDigests for Memory {
    fn get(&self, files: &[&Metadata]) -> Vec<Option<[u8; 32]>> {
        let known = self.known.lock().unwrap();
        let key = |file: &&Metadata| (file.device, file.inode, file.size);
        files.iter().map(|file| known.get(&key(file)).copied()).collect()
    }

    fn put(&self, metadata: &Metadata, digest: [u8; 32]) {
        self.puts.fetch_add(1, Ordering::Relaxed);
        let key = (metadata.device, metadata.inode, metadata.size);
        self.known.lock().unwrap().insert(key, digest);
    }
}

#[test]
fn remembered_files_are_not_read() {
    let tree = Tree::new();
    std::thread::sleep(std::time::Duration::from_millis(100));
    let memory = Memory::default();
    let dir = Dir::open(tree.temp.path()).unwrap();
    let view = View { xattrs: false, ..View::of(&dir) };
    let digest = |root: &Dir| {
        let view = View { dir: root, ..view };
        content_digest(view, &[path("/")], Some(&memory)).unwrap()
    };
    let first = digest(&dir);
    assert_eq!(memory.puts.load(Ordering::Relaxed), 5);
    assert_eq!(first, content_digest(view, &[path("/")], None).unwrap());
    assert_eq!(first, digest(&dir));
    assert_eq!(memory.puts.load(Ordering::Relaxed), 5);
    // This memory ignores times, so an unchanged digest shows that the file isn't read.
    tree.write("five.txt", "FIVE.txt");
    assert_eq!(first, digest(&dir));
    // A file written just now isn't remembered, because it could change again without a new time.
    tree.write("fresh", "fresh");
    assert_ne!(first, digest(&dir));
    assert_eq!(memory.puts.load(Ordering::Relaxed), 5);
    assert!(Path::new(&tree.at("fresh")).exists());
}

#[test]
fn types_count_where_nothing_else_differs() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let digest = |kind| {
        let tree = Tree::new();
        mknodat(CWD, tree.at("node"), kind, Mode::RUSR, 0).unwrap();
        tree.digest(&[path("node")])
    };
    assert_eq!(digest(FileType::Fifo), digest(FileType::Fifo));
    assert_ne!(digest(FileType::Fifo), digest(FileType::Socket));
}

#[test]
fn excludes_may_be_about_what_is_named() {
    let tree = Tree::new();
    let dir = Dir::open(tree.temp.path()).unwrap();
    let view = View::of(&dir);
    let selected = |path: &str, exclude: &[&str]| -> Vec<String> {
        let selection = Selection {
            wildcard: true,
            follow: true,
            exclude_matches: true,
            ..filtered(path, &[], exclude)
        };
        let found = select::select(view, &selection).unwrap();
        let of = |it: &Selected| String::from_utf8(it.entries[0].entry.path.to_vec()).unwrap();
        found.iter().map(of).collect()
    };
    let nothing: [&str; 0] = [];
    for (path, exclude, expected) in [
        ("*.txt", &["five.txt"][..], &nothing[..]),
        ("?", &["a"], &["c"]),
        ("five.txt", &["*.txt"], &nothing),
        ("five.txt", &["*.md"], &["five.txt"]),
        // If the path is a directory, the patterns apply to its contents.
        ("a", &["a"], &["a"]),
        ("to-dir", &["to-dir"], &["a/b"]),
        ("to-file", &["to-file"], &nothing),
        // The patterns are relative to the file's directory, to the directory in which the
        // wildcards begin, or to the root.
        ("a/b/one.txt", &["one.txt"], &nothing),
        ("a/b/one.txt", &["a/b/one.txt"], &nothing),
        ("a/b/one.txt", &["b/one.txt"], &["a/b/one.txt"]),
        ("a/*/one.txt", &["b/one.txt"], &nothing),
        ("a/*/one.txt", &["b"], &nothing),
        ("a/*/one.txt", &["a"], &["a/b/one.txt"]),
        ("to-dir/*", &["*.md"], &["a/b/one.txt"]),
        ("to-dir/*", &["to-dir/two.md"], &["a/b/one.txt"]),
        ("[ac]/*", &["**/*.txt"], &["a/b"]),
        // The last matching pattern decides.
        ("*/*", &["*", "!four.txt"], &["c/four.txt"]),
        ("*/*", &["!four.txt", "*"], &nothing),
    ] {
        assert_eq!(selected(path, exclude), expected, "{path} {exclude:?}");
    }
    // A missing entry is reported in spite of the excludes.
    let found = select::select(view, &filtered("none", &[], &["none"])).unwrap();
    assert!(found[0].entries.is_empty());
    let plain = Selection { wildcard: true, ..filtered("*.txt", &[], &["none"]) };
    let excluding = Selection { exclude_matches: true, ..plain.clone() };
    let alike = |one: &Selection, other: &Selection| {
        let (one, other) =
            (Selecting { view, selection: one }, Selecting { view, selection: other });
        selects_alike(one, other).unwrap()
    };
    assert!(alike(&plain, &excluding));
    let about = Selection { exclude: vec!["five.txt".to_owned()], ..excluding.clone() };
    assert!(!alike(&excluding, &about) && !alike(&plain, &about));
}

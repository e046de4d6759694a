//! Tests of copies, modelled on BuildKit's: destinations, modes, owners and times.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};

use super::*;
use crate::metadata::FileKind;
use crate::pattern::PatternMatcher;
use crate::walk;

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()
}

pub(super) struct Trees {
    _temp: tempfile::TempDir,
    pub(super) from: PathBuf,
    pub(super) to: PathBuf,
}

/// Returns the options of a `COPY` instruction.
pub(super) fn instruction(source: &str, dest: &str) -> CopyOptions {
    CopyOptions {
        source: source.to_owned(),
        dest: dest.to_owned(),
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..CopyOptions::default()
    }
}

impl Trees {
    /// Creates the source tree of most of the golden cases.
    pub(super) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to"));
        std::fs::create_dir_all(from.join("src/sub/deep")).unwrap();
        std::fs::create_dir_all(from.join("src/empty")).unwrap();
        std::fs::create_dir(&to).unwrap();
        for (path, content, mode) in [
            ("src/a.txt", "a", 0o600),
            ("src/b.md", "b", 0o755),
            ("src/sub/c.txt", "c", 0o4755),
            ("src/sub/deep/d.go", "d", 0o644),
            ("top.txt", "top", 0o644),
            ("with space.txt", "spaced", 0o644),
        ] {
            std::fs::write(from.join(path), content).unwrap();
            std::fs::set_permissions(from.join(path), PermissionsExt::from_mode(mode)).unwrap();
        }
        std::fs::set_permissions(from.join("src/empty"), PermissionsExt::from_mode(0o1777))
            .unwrap();
        symlink("a.txt", from.join("src/link")).unwrap();
        symlink("sub", from.join("src/dirlink")).unwrap();
        symlink("/nowhere", from.join("src/dangling")).unwrap();
        std::fs::hard_link(from.join("src/a.txt"), from.join("src/hard")).unwrap();
        Self { _temp: temp, from, to }
    }

    pub(super) fn copy(&self, options: &CopyOptions) -> Result<()> {
        let from = Dir::open(&self.from).unwrap();
        copy(View::of(&from), &Dir::open(&self.to).unwrap(), options)
    }

    fn put(&self, source: &str, dest: &str) {
        self.copy(&instruction(source, dest)).unwrap();
    }

    /// Returns a line for each entry of the destination: path, letter of its type, mode, owner,
    /// content.
    fn listing(&self) -> Vec<String> {
        let dir = Dir::open(&self.to).unwrap();
        let entries = walk::entries(View::of(&dir), Path::new("/")).unwrap();
        let line = |entry: &walk::Entry| {
            let metadata = &entry.metadata;
            let path = String::from_utf8_lossy(&entry.path.to_vec()).into_owned();
            let (kind, content) = match metadata.kind {
                FileKind::Directory => ('d', String::new()),
                FileKind::Symlink => ('l', String::from_utf8_lossy(&entry.target).into_owned()),
                FileKind::File => ('f', text(&self.to.join(&path))),
                _ => ('n', String::new()),
            };
            let (mode, uid, gid) = (metadata.mode, metadata.owner.uid, metadata.owner.gid);
            format!("{path} {kind} {mode:o} {uid}:{gid} {content}").trim_end().to_owned()
        };
        entries[1..].iter().map(line).collect()
    }

    fn paths(&self) -> Vec<String> {
        let listing = self.listing();
        listing.iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    }

    fn error(&self, options: &CopyOptions) -> String {
        self.copy(options).unwrap_err().to_string()
    }
}

#[test]
fn directories_give_their_contents() {
    let trees = Trees::new();
    trees.put("src", "/d");
    assert_eq!(
        trees.listing(),
        [
            "d d 755 0:0",
            "d/a.txt f 600 0:0 a",
            "d/b.md f 755 0:0 b",
            "d/dangling l 777 0:0 /nowhere",
            "d/dirlink l 777 0:0 sub",
            "d/empty d 1777 0:0",
            "d/hard f 600 0:0 a",
            "d/link l 777 0:0 a.txt",
            "d/sub d 755 0:0",
            "d/sub/c.txt f 4755 0:0 c",
            "d/sub/deep d 755 0:0",
            "d/sub/deep/d.go f 644 0:0 d",
        ]
    );
    let inode = |path: &str| std::fs::metadata(trees.to.join(path)).unwrap().ino();
    assert_eq!(inode("d/a.txt"), inode("d/hard"));
    let mtime = |root: &Path, path: &str| {
        let found = std::fs::symlink_metadata(root.join(path)).unwrap();
        (found.mtime(), found.mtime_nsec())
    };
    for path in ["sub", "sub/deep", "a.txt", "link"] {
        let (from, to) = (trees.from.join("src"), trees.to.join("d"));
        assert_eq!(mtime(&from, path), mtime(&to, path), "{path}");
    }
}

#[test]
fn destinations_are_what_they_say_or_are() {
    let trees = Trees::new();
    std::fs::create_dir(trees.to.join("x")).unwrap();
    std::fs::write(trees.to.join("x/top.txt"), "old").unwrap();
    std::fs::create_dir_all(trees.to.join("t/top.txt")).unwrap();
    trees.put("top.txt", "/x");
    trees.put("top.txt", "/y");
    trees.put("/top.txt", "z/");
    trees.put("top.txt", "/t/top.txt");
    trees.put("src/sub", "/f/sub2");
    trees.put(".", "/again/");
    let paths = trees.paths();
    for path in
        ["x/top.txt", "y", "z/top.txt", "t/top.txt/top.txt", "f/sub2/deep/d.go", "again/top.txt"]
    {
        assert!(paths.contains(&path.to_owned()), "{path}");
    }
    // The directory itself, not its contents, is copied into an existing directory.
    let options = CopyOptions { dir_copy_contents: false, ..instruction("src/sub", "/x") };
    trees.copy(&options).unwrap();
    trees.copy(&CopyOptions { dest: "/new".to_owned(), ..options }).unwrap();
    let paths = trees.paths();
    assert!(paths.contains(&"x/sub/deep/d.go".to_owned()));
    assert!(paths.contains(&"new/deep/d.go".to_owned()));
}

#[test]
fn the_root_is_copied_over() {
    let trees = Trees::new();
    std::fs::set_permissions(&trees.to, PermissionsExt::from_mode(0o711)).unwrap();
    trees.put(".", "/");
    assert!(trees.to.join("src/sub/deep/d.go").exists());
    assert_eq!(std::fs::metadata(&trees.to).unwrap().mode() & 0o7777, 0o711);
}

#[test]
fn modes_and_owners_change() {
    let trees = Trees::new();
    let owner = Some(Owner { uid: 1000, gid: 2000 });
    let mode = Some(ModeChange::set(0o640));
    trees.copy(&CopyOptions { owner, mode, ..instruction("src", "/m") }).unwrap();
    let expected = |line: &String| {
        line.contains(" 1000:2000") && (line.contains(" 640 ") || line.contains(" l 777 "))
    };
    assert!(trees.listing().iter().all(expected), "{:#?}", trees.listing());
    let mode = Some(ModeChange::parse("a+x").unwrap());
    trees.copy(&CopyOptions { mode, ..instruction("src/sub", "/x") }).unwrap();
    let mode = Some(ModeChange::parse("u=rw,go=").unwrap());
    trees.copy(&CopyOptions { mode, ..instruction("top.txt", "/s") }).unwrap();
    let owner = Some(Owner { uid: 7, gid: 7 });
    trees.copy(&CopyOptions { owner, ..instruction("top.txt", "/newdir/p/top.txt") }).unwrap();
    let listing = trees.listing();
    for line in [
        "x d 755 0:0",
        "x/c.txt f 4755 0:0 c",
        "x/deep d 755 0:0",
        "x/deep/d.go f 755 0:0 d",
        "s f 600 0:0 top",
        "newdir d 755 7:7",
        "newdir/p d 755 7:7",
        "newdir/p/top.txt f 644 7:7 top",
    ] {
        assert!(listing.contains(&line.to_owned()), "{line}");
    }
}

#[test]
fn existing_directories_are_merged() {
    let trees = Trees::new();
    std::fs::create_dir_all(trees.to.join("d/sub")).unwrap();
    std::fs::write(trees.to.join("d/keep"), "keep").unwrap();
    std::fs::write(trees.to.join("d/a.txt"), "old").unwrap();
    std::fs::set_permissions(trees.to.join("d"), PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::set_permissions(trees.to.join("d/sub"), PermissionsExt::from_mode(0o700)).unwrap();
    trees.put("src", "/d");
    let listing = trees.listing();
    for line in ["d d 777 0:0", "d/keep f 644 0:0 keep", "d/a.txt f 600 0:0 a", "d/sub d 755 0:0"] {
        assert!(listing.contains(&line.to_owned()), "{line} {listing:#?}");
    }
}

#[test]
fn conflicts_are_errors_unless_everything_is_replaced() {
    let trees = Trees::new();
    std::fs::create_dir_all(trees.to.join("d/a.txt/x")).unwrap();
    assert_eq!(
        trees.error(&instruction("src", "/d")),
        "cannot replace to directory /d/a.txt with file"
    );
    std::fs::remove_dir_all(trees.to.join("d")).unwrap();
    std::fs::create_dir(trees.to.join("d")).unwrap();
    symlink("/elsewhere", trees.to.join("d/sub")).unwrap();
    assert_eq!(trees.error(&instruction("src", "/d")), "cannot copy to non-directory: /d/sub");
    std::fs::write(trees.to.join("file"), "").unwrap();
    assert_eq!(trees.error(&instruction("src", "/file")), "cannot copy to non-directory: /file");
    std::fs::remove_file(trees.to.join("d/a.txt")).ok();
    std::fs::create_dir_all(trees.to.join("d/a.txt/x")).unwrap();
    let always = CopyOptions { always_replace: true, ..instruction("src", "/d") };
    trees.copy(&always).unwrap();
    assert!(trees.listing().contains(&"d/a.txt f 600 0:0 a".to_owned()));
    assert!(trees.listing().contains(&"d/sub d 755 0:0".to_owned()));
}

#[test]
fn what_is_missing_is_not_found() {
    let trees = Trees::new();
    assert_eq!(trees.error(&instruction("nope", "/x")), "\"/nope\": not found");
    assert_eq!(trees.error(&instruction("src/dangling", "/x")), "\"/src/dangling\": not found");
    let outside = instruction("../../../../../../../etc/passwd", "/x");
    assert_eq!(trees.error(&outside), "\"/etc/passwd\": not found");
    trees.put("nope*", "/x");
    let strict = CopyOptions { allow_empty_wildcard: false, ..instruction("nope*", "/x") };
    assert_eq!(trees.error(&strict), "/nope* not found");
    let closed = CopyOptions { create_dest_path: false, ..instruction("top.txt", "/no/where") };
    assert!(trees.copy(&closed).is_err());
    assert!(trees.paths().is_empty());
}

#[test]
fn wildcards_and_links_of_the_source_are_resolved() {
    let trees = Trees::new();
    trees.put("src/*.txt", "/t/");
    trees.put("s*c/sub/*", "/v/");
    trees.put("with*", "/w/");
    trees.put("src/link", "/l1");
    trees.put("src/dirlink", "/l2");
    trees.put("src/dirlink/", "/l3/");
    trees.put("src/link", "/l4/");
    let listing = trees.listing();
    for line in [
        "t/a.txt f 600 0:0 a",
        "v/c.txt f 4755 0:0 c",
        "v/d.go f 644 0:0 d",
        "w/with space.txt f 644 0:0 spaced",
        "l1 f 600 0:0 a",
        "l2/c.txt f 4755 0:0 c",
        "l3/deep/d.go f 644 0:0 d",
        "l4/link f 600 0:0 a",
    ] {
        assert!(listing.contains(&line.to_owned()), "{line} {listing:#?}");
    }
    let options = CopyOptions { follow_symlink: false, ..instruction("src/link", "/l5") };
    trees.copy(&options).unwrap();
    assert!(trees.listing().contains(&"l5 l 777 0:0 a.txt".to_owned()));
}

#[test]
fn links_of_the_destination_are_followed_inside() {
    let trees = Trees::new();
    std::fs::create_dir(trees.to.join("real")).unwrap();
    symlink("/real", trees.to.join("ln")).unwrap();
    symlink("../../../real", trees.to.join("rel")).unwrap();
    symlink(&trees.from, trees.to.join("host")).unwrap();
    trees.put("top.txt", "/ln/");
    trees.put("src/b.md", "/rel/sub/b");
    trees.put("top.txt", "/host/top.txt");
    assert!(trees.to.join("real/top.txt").exists() && trees.to.join("real/sub/b").exists());
    assert!(trees.to.join("ln").is_symlink());
    // The host's file of that name is unchanged. The file inside the root is new.
    let inside = trees.to.join(trees.from.strip_prefix("/").unwrap()).join("top.txt");
    assert!(inside.exists());
    // A file replaces a link inside the destination directory, but follows a link that is the
    // destination itself.
    symlink("/real/target", trees.to.join("real/a.txt")).unwrap();
    symlink("/real/named", trees.to.join("named")).unwrap();
    trees.put("src/a.txt", "/real/");
    trees.put("src/a.txt", "/named");
    assert!(!trees.to.join("real/a.txt").is_symlink() && trees.to.join("named").is_symlink());
    assert!(trees.to.join("real/named").exists() && !trees.to.join("real/target").exists());
}

#[test]
fn includes_and_excludes_select() {
    let trees = Trees::new();
    let exclude = vec!["*.md".to_owned(), "sub/deep".to_owned(), "d*".to_owned()];
    trees.copy(&CopyOptions { exclude, ..instruction("src", "/d") }).unwrap();
    assert_eq!(
        trees.paths(),
        ["d", "d/a.txt", "d/empty", "d/hard", "d/link", "d/sub", "d/sub/c.txt"]
    );
    // The options of `COPY --parents`.
    let trees = Trees::new();
    let parents = |include: &str, required: &str| CopyOptions {
        include: vec![include.to_owned()],
        required: vec![PathBuf::from(required)],
        ..instruction("/", "/p/")
    };
    trees.copy(&parents("src/sub/deep/d.go", "/src/sub/deep/d.go")).unwrap();
    trees.copy(&parents("src/b.md", "/src/b.md")).unwrap();
    let owner = Some(Owner { uid: 5, gid: 5 });
    trees.copy(&CopyOptions { owner, ..parents("src/**/*.txt", "/src") }).unwrap();
    assert_eq!(
        trees.listing(),
        [
            "p d 755 0:0",
            "p/src d 755 0:0",
            "p/src/a.txt f 600 5:5 a",
            "p/src/b.md f 755 0:0 b",
            "p/src/sub d 755 0:0",
            "p/src/sub/c.txt f 4755 5:5 c",
            "p/src/sub/deep d 755 0:0",
            "p/src/sub/deep/d.go f 644 0:0 d",
        ]
    );
    assert_eq!(trees.error(&parents("src/no", "/src/no")), "\"/src/no\": not found");
    let matched = |required: &str| CopyOptions {
        required: vec![PathBuf::from(required)],
        ..instruction("src/*.md", "/q/")
    };
    trees.copy(&matched("/src/b.md")).unwrap();
    assert_eq!(trees.error(&matched("/src/a.txt")), "\"/src/a.txt\": not found");
}

#[test]
fn a_context_hides_what_it_ignores() {
    let trees = Trees::new();
    let from = Dir::open(&trees.from).unwrap();
    from.set_xattr(Path::new("top.txt"), b"user.note", b"x").unwrap();
    let excludes = PatternMatcher::new(&["src", "!src/sub/deep", "with*"]).unwrap();
    let owner = Some(Owner::default());
    let view = View { excludes: Some(&excludes), owner, xattrs: false, ..View::of(&from) };
    let to = Dir::open(&trees.to).unwrap();
    std::os::unix::fs::chown(trees.from.join("top.txt"), Some(9), Some(9)).unwrap();
    copy(view, &to, &instruction(".", "/c/")).unwrap();
    assert_eq!(
        trees.listing(),
        [
            "c d 755 0:0",
            "c/src d 755 0:0",
            "c/src/sub d 755 0:0",
            "c/src/sub/deep d 755 0:0",
            "c/src/sub/deep/d.go f 644 0:0 d",
            "c/top.txt f 644 0:0 top",
        ]
    );
    assert!(to.xattrs(Path::new("c/top.txt")).unwrap().is_empty());
    for hidden in ["src/a.txt", "src/link", "with space.txt"] {
        assert!(matches!(copy(view, &to, &instruction(hidden, "/x")), Err(Error::NotFound { .. })));
    }
    copy(view, &to, &instruction("src/sub", "/sub")).unwrap();
}

#[test]
fn special_files_and_holes_arrive() {
    let trees = Trees::new();
    let from = Dir::open(&trees.from).unwrap();
    let device = FileKind::BlockDevice { major: 7, minor: 99 };
    let mode = Attributes { mode: Some(0o622), ..Attributes::default() };
    from.make_node(Path::new("src/fifo"), FileKind::Fifo, &mode).unwrap();
    from.make_node(Path::new("src/block"), device, &mode).unwrap();
    std::os::unix::net::UnixListener::bind(trees.from.join("src/socket")).unwrap();
    let sparse = std::fs::File::create(trees.from.join("src/sparse")).unwrap();
    sparse.set_len(10 << 20).unwrap();
    from.set_xattr(Path::new("src/sub"), b"user.note", b"dir").unwrap();
    from.set_xattr(Path::new("src/a.txt"), b"user.note", b"file").unwrap();
    let mtime = Some(Timestamp { seconds: 981_000_000, nanoseconds: 0 });
    trees.copy(&CopyOptions { mtime, ..instruction("src", "/n/m") }).unwrap();
    let to = Dir::open(&trees.to).unwrap();
    let kind = |path: &str| to.metadata(Path::new(path), false).unwrap().unwrap().kind;
    assert_eq!(kind("n/m/fifo"), FileKind::Fifo);
    assert_eq!(kind("n/m/block"), device);
    assert_eq!(kind("n/m/socket"), FileKind::File);
    let found = std::fs::metadata(trees.to.join("n/m/sparse")).unwrap();
    assert!(found.len() == 10 << 20 && found.blocks() < 100);
    for path in ["n/m/sub", "n/m/a.txt"] {
        assert_eq!(to.xattrs(Path::new(path)).unwrap().len(), 1, "{path}");
    }
    for entry in &walk::entries(View::of(&to), Path::new("/")).unwrap()[1..] {
        assert_eq!(
            Some(entry.metadata.mtime),
            mtime,
            "{}",
            String::from_utf8_lossy(&entry.path.to_vec())
        );
    }
}

#[test]
fn archives_are_unpacked_where_asked() {
    let trees = Trees::new();
    let script = "tar --owner=11 --group=12 -C src -cf t.tar sub a.txt && gzip -k t.tar && \
                  bzip2 -k t.tar && xz -k t.tar && zstd -qk t.tar && gzip -k top.txt && touch empty";
    let status =
        std::process::Command::new("sh").args(["-ec", script]).current_dir(&trees.from).status();
    assert!(status.unwrap().success());
    let add = |source: &str, dest: &str| CopyOptions { unpack: true, ..instruction(source, dest) };
    for archive in ["t.tar", "t.tar.gz", "t.tar.bz2", "t.tar.xz", "t.tar.zst"] {
        trees.copy(&add(archive, "/x")).unwrap();
        assert!(trees.listing().contains(&"x/sub/c.txt f 4755 11:12 c".to_owned()), "{archive}");
        std::fs::remove_dir_all(trees.to.join("x")).unwrap();
    }
    trees.copy(&add("top.txt.gz", "/plain/")).unwrap();
    trees.copy(&add("empty", "/plain/")).unwrap();
    trees.copy(&add("src/sub", "/plain/")).unwrap();
    trees.put("t.tar.gz", "/plain/");
    let owner = Some(Owner { uid: 5, gid: 6 });
    symlink("/real", trees.to.join("ln")).unwrap();
    trees.copy(&CopyOptions { owner, ..add("t.tar", "/ln/") }).unwrap();
    let paths = trees.paths();
    assert_eq!(paths.iter().filter(|path| path.starts_with("plain")).count(), 7, "{paths:?}");
    let listing = trees.listing();
    for line in ["real d 755 5:6", "real/a.txt f 600 5:6 a"] {
        assert!(listing.contains(&line.to_owned()), "{line} {listing:#?}");
    }
}

#[test]
fn many_files_in_many_directories_arrive() {
    let trees = Trees::new();
    for dir in 0..40 {
        let path = trees.from.join(format!("many/{}/{dir}", dir % 7));
        std::fs::create_dir_all(&path).unwrap();
        for file in 0..40 {
            std::fs::write(path.join(format!("{file}")), format!("{dir} {file}")).unwrap();
        }
    }
    trees.put("many", "/many");
    let status = std::process::Command::new("diff")
        .args(["-r", "from/many", "to/many"])
        .current_dir(trees.from.parent().unwrap())
        .status();
    assert!(status.unwrap().success());
}

//! Archives that have exploited other programs, each with a harmless variant.

use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::pack::{PackOptions, Whiteouts, pack};
use crate::tar_writer::{Fields, encode};

mod field;

use field::{Archive, Field, describe, fields};

#[test]
fn links_lead_nowhere_outside() {
    let canary = |field: &Field| field.temp.path().join("canary").to_str().unwrap().to_owned();
    let field = Field::new();
    let outside = canary(&field);
    // An absolute link or one with `..`, then files through it: they stay inside.
    field
        .unpack(
            Archive::default()
                .symlink("abs", &outside)
                .file("abs/secret", "mine")
                .symlink("up", "../../../../../../../../..")
                .file("up/up-file", "x")
                .symlink("rel", "../canary")
                .file("rel/secret", "own"),
        )
        .unwrap();
    assert_eq!(field.read(&format!(".{outside}/secret")), "mine");
    assert_eq!(field.read("up-file"), "x");
    assert_eq!(field.read("canary/secret"), "own");
    // A chain of links.
    let field = Field::new();
    field
        .unpack(
            Archive::default()
                .symlink("a", "b")
                .symlink("b", "c")
                .symlink("c", "../../canary")
                .file("a/secret", "mine"),
        )
        .unwrap();
    assert_eq!(field.read("canary/secret"), "mine");
    // The harmless variant: links with many `..` that stay inside.
    let field = Field::new();
    field
        .unpack(
            Archive::default().dir("x/y/z", 0o755).symlink("x/y/z/l", "../../../t").file("t", "t"),
        )
        .unwrap();
    assert_eq!(field.read("x/y/z/l"), "t");
}

#[test]
fn directories_make_way_for_links() {
    // The contents of the directory are gone. Its time is not set on the link's target either.
    let field = Field::new();
    let unpacked = field.unpack(
        Archive::default()
            .dir("other/d", 0o755)
            .dir("loop/d", 0o755)
            .symlink("loop", "../loop")
            .dir("link/d", 0o700)
            .symlink("link", "other"),
    );
    unpacked.unwrap();
    assert!(std::fs::symlink_metadata(field.root().join("loop")).unwrap().is_symlink());
    assert_eq!(std::fs::metadata(field.root().join("other/d")).unwrap().mode() & 0o777, 0o755);
}

#[test]
fn files_replace_links_and_never_go_through_them() {
    let field = Field::new();
    let outside = field.temp.path().join("canary/secret");
    field
        .unpack(
            Archive::default()
                .symlink("l", outside.to_str().unwrap())
                .file("l", "content")
                .dir("d", 0o755),
        )
        .unwrap();
    assert_eq!(field.read("l"), "content");
    // A link, then a directory entry of the same name with mode 0777.
    let outside = field.temp.path().join("canary");
    field
        .unpack(
            Archive::default()
                .symlink("foo", outside.to_str().unwrap())
                .dir("foo/", 0o777)
                .file("foo/x", "x"),
        )
        .unwrap();
    assert!(std::fs::symlink_metadata(field.root().join("foo")).unwrap().is_dir());
    // A link that existed before the archive was unpacked.
    symlink(&outside, field.root().join("old")).unwrap();
    field.unpack(Archive::default().dir("old", 0o777)).unwrap();
    assert!(std::fs::symlink_metadata(field.root().join("old")).unwrap().is_dir());
    // The harmless variant: a directory is merged.
    field.unpack(Archive::default().dir("foo", 0o700)).unwrap();
    assert_eq!(field.read("foo/x"), "x");
    assert_eq!(std::fs::metadata(field.root().join("foo")).unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn hard_links_stay_inside() {
    let field = Field::new();
    let secret = field.temp.path().join("canary/secret");
    let secret = secret.to_str().unwrap();
    // By a name outside: inside there is no such file.
    assert!(field.unpack(Archive::default().link("l", "../canary/secret")).is_err());
    assert!(field.unpack(Archive::default().link("l", secret)).is_err());
    // To a link: the link gets another name, and its target is not touched.
    field.unpack(Archive::default().symlink("s", secret).link("h", "s")).unwrap();
    assert_eq!(std::fs::read_link(field.root().join("h")).unwrap(), Path::new(secret));
    field.unpack(Archive::default().link("h2", "h").file("h2", "x")).unwrap();
    // To itself, to the root, and to a directory.
    assert!(field.unpack(Archive::default().file("me", "").link("me", "me")).is_err());
    assert!(field.unpack(Archive::default().link("r", "/")).is_err());
    assert!(field.unpack(Archive::default().dir("d", 0o755).link("r", "d")).is_err());
    // The harmless variant: an absolute target, and one through a link inside.
    field
        .unpack(
            Archive::default()
                .file("a/f", "f")
                .symlink("via", "/a")
                .link("x", "/a/f")
                .link("y", "via/f"),
        )
        .unwrap();
    let inode = |name: &str| std::fs::metadata(field.root().join(name)).unwrap().ino();
    assert_eq!((inode("x"), inode("y")), (inode("a/f"), inode("a/f")));
}

#[test]
fn names_are_confined() {
    let field = Field::new();
    field
        .unpack(
            Archive::default()
                .file("../../canary/secret", "1")
                .file("/absolute", "2")
                .file("a/../../../b", "3")
                .dir("..", 0o777)
                .dir("./", 0o777)
                .dir("/", 0o777),
        )
        .unwrap();
    assert_eq!(field.names(), ["absolute", "b", "canary", "canary/secret"]);
    assert_eq!(std::fs::metadata(field.root()).unwrap().mode() & 0o7777, 0o755);
    let long = "n/".repeat(3000);
    assert!(field.unpack(Archive::default().file(&long, "")).is_err());
    assert!(field.unpack(Archive::default().pax(b"12 path=a\0b\n").file("x", "")).is_err());
    assert!(field.unpack(Archive::default().file("absolute/below-a-file", "")).is_err());
}

#[test]
fn add_takes_roots_and_links_as_docker_does() {
    let field = Field::new();
    let add = |archive: Archive| field.unpack_with(&archive.end(), UnpackOptions::default());
    let mode = || std::fs::metadata(field.root()).unwrap().mode() & 0o7777;
    add(Archive::default().dir("./", 0o700).dir("a/..", 0o701)).unwrap();
    assert_eq!(mode(), 0o755);
    add(Archive::default().dir("/", 0o711)).unwrap();
    assert_eq!(mode(), 0o711);
    add(Archive::default().dir("../", 0o755)).unwrap();
    assert_eq!(mode(), 0o755);
    assert!(add(Archive::default().file("/", "")).is_err());
    assert!(add(Archive::default().symlink("ln", "/nowhere").file("ln/x/f", "")).is_err());
    let inside = Archive::default().dir("there", 0o755).symlink("l", "/there").file("l/x/f", "");
    add(inside).unwrap();
    assert_eq!(field.names(), ["l", "ln", "there", "there/x", "there/x/f"]);
}

#[test]
fn loops_are_errors() {
    let field = Field::new();
    assert!(field.unpack(Archive::default().symlink("l", "l").file("l/x", "")).is_err());
    assert!(
        field
            .unpack(Archive::default().symlink("a", "b").symlink("b", "a").file("a/x", ""))
            .is_err()
    );
}

#[test]
fn whiteouts_remove_inside_only() {
    let field = Field::new();
    let outside = field.temp.path().join("canary");
    symlink(&outside, field.root().join("out")).unwrap();
    std::fs::create_dir(field.root().join("d")).unwrap();
    for name in ["d/a", "d/b", "d/c", "keep"] {
        std::fs::write(field.root().join(name), "").unwrap();
    }
    // Through a link whose target doesn't exist inside.
    field.unpack(Archive::default().file("out/.wh.secret", "")).unwrap();
    field.unpack(Archive::default().file("out/.wh..wh..opq", "")).unwrap();
    for name in [".wh.", ".wh..", ".wh...", "d/.wh.."] {
        assert!(field.unpack(Archive::default().file(name, "")).is_err(), "{name}");
    }
    // Deleting the link itself.
    field.unpack(Archive::default().file(".wh.out", "").file("d/.wh.a", "")).unwrap();
    assert_eq!(
        field.names().iter().filter(|name| name.starts_with('d') || *name == "out").count(),
        3
    );
    // An opaque mark hides older entries, but not those of this archive, before or after the mark.
    field
        .unpack(
            Archive::default()
                .file("d/new", "")
                .file("d/sub/x", "")
                .file("d/.wh..wh..opq", "")
                .file("d/late", ""),
        )
        .unwrap();
    let names = field.names();
    let below: Vec<_> = names.iter().filter(|name| name.starts_with('d')).collect();
    assert_eq!(below, ["d", "d/late", "d/new", "d/sub", "d/sub/x"]);
    assert!(names.contains(&"keep".to_owned()));
    // `ADD` ignores marks.
    let archive = Archive::default().file(".wh.keep", "").end();
    field.unpack_with(&archive, UnpackOptions::default()).unwrap();
    assert!(field.root().join(".wh.keep").exists() && field.root().join("keep").exists());
}

#[test]
fn everything_about_an_entry_is_set() {
    let field = Field::new();
    let capability = vec![(b"security.capability".to_vec(), {
        let mut value = vec![1, 0, 0, 2];
        value.extend([0, 4, 0, 0]);
        value.resize(20, 0);
        value
    })];
    let file = fields(b'0', b"bin/ping", b"");
    let file = Fields { mode: 0o4711, uid: 7, gid: 3_000_000, xattrs: &capability, ..file };
    let device = Fields { device: (1, 3), mode: 0o666, ..fields(b'3', b"dev/null", b"") };
    field
        .unpack(
            Archive::default()
                .dir("bin", 0o2775)
                .add(&file, b"ping")
                .link("bin/pong", "bin/ping")
                .add(&device, b"")
                .add(&fields(b'6', b"dev/fifo", b""), b"")
                .symlink("bin/sh", "busybox"),
        )
        .unwrap();
    let found = std::fs::metadata(field.root().join("bin/ping")).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid(), found.nlink()), (0o644, 0, 0, 2));
    assert_eq!(std::fs::metadata(field.root().join("bin")).unwrap().mtime(), 1_000_000_000);
    assert_eq!(std::fs::metadata(field.root().join("bin")).unwrap().mode() & 0o7777, 0o2775);
    assert_eq!(std::fs::metadata(field.root().join("dev")).unwrap().mode() & 0o7777, 0o755);
    let link = std::fs::symlink_metadata(field.root().join("bin/sh")).unwrap();
    assert_eq!(link.mtime(), 1_000_000_000);
    let null = field.dir.metadata(Path::new("dev/null"), false).unwrap().unwrap();
    assert_eq!((null.kind, null.mode), (FileKind::CharDevice { major: 1, minor: 3 }, 0o666));
    // A single name keeps owner, setuid and capability.
    field.unpack(Archive::default().add(&file, b"ping")).unwrap();
    let found = std::fs::metadata(field.root().join("bin/ping")).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o4711, 7, 3_000_000));
    assert_eq!(field.dir.xattrs(Path::new("bin/ping")).unwrap(), capability);
    // So does a second name whose header has the same owner.
    let again = Fields { kind: b'1', name: b"bin/peng", link: b"bin/ping", ..file.clone() };
    field.unpack(Archive::default().add(&again, b"")).unwrap();
    assert_eq!(field.dir.xattrs(Path::new("bin/peng")).unwrap(), capability);
    // The owner of `ADD --chown`.
    let owner = Some(Owner { uid: 5, gid: 6 });
    let options = UnpackOptions { owner, ..UnpackOptions::default() };
    field.unpack_with(&Archive::default().file("x", "").end(), options).unwrap();
    assert_eq!(std::fs::metadata(field.root().join("x")).unwrap().uid(), 5);
}

#[test]
fn overlay_and_trusted_attributes_are_left_out() {
    let field = Field::new();
    let xattrs = [
        (b"trusted.overlay.opaque".to_vec(), b"y".to_vec()),
        (b"user.overlay.redirect".to_vec(), b"/etc".to_vec()),
        (b"user.note".to_vec(), b"kept".to_vec()),
    ];
    let dir = Fields { xattrs: &xattrs, ..fields(b'5', b"d", b"") };
    field.unpack(Archive::default().add(&dir, b"")).unwrap();
    let found = field.dir.xattrs(Path::new("d")).unwrap();
    assert_eq!(found, [(b"user.note".to_vec(), b"kept".to_vec())]);
}

#[test]
fn sizes_that_disagree_are_refused() {
    // The attack: a header with size 0, a PAX record with 1024, and an archive inside the content.
    let inner = Archive::default().file("smuggled", "x");
    for header_size in [0, 512] {
        let mut archive = Archive::default().pax(b"13 size=1024\n");
        let outer = Fields { size: header_size, ..fields(b'0', b"outer", b"") };
        archive.0.extend(encode(&outer));
        let field = Field::new();
        assert!(field.unpack(archive.raw(&inner.0)).is_err());
        assert!(field.names().is_empty());
    }
    // The harmless variant: both sizes are equal.
    let field = Field::new();
    field.unpack(Archive::default().pax(b"10 size=1\n").file("f", "x").file("g", "y")).unwrap();
    assert_eq!(field.names(), ["f", "g"]);
    // A directory with content.
    let field = Field::new();
    let dir = Fields { ..fields(b'5', b"d", b"") };
    assert!(field.unpack(Archive::default().add(&dir, &inner.0)).is_err());
}

#[test]
fn malformed_archives_are_errors() {
    let whole = Archive::default().file("f", "content").end();
    let options = UnpackOptions::default();
    for cut in [1, 511, 513, 518] {
        assert!(Field::new().unpack_with(&whole[..cut], options).is_err(), "cut at {cut}");
    }
    // An archive without an end marker, or with half of it, is valid.
    assert!(Field::new().unpack_with(&whole[..1024], options).is_ok());
    assert!(Field::new().unpack_with(&whole[..1536], options).is_ok());
    assert!(Field::new().unpack_with(b"", options).is_ok());
    let mut flipped = whole.clone();
    flipped[0] = b'g';
    assert!(Field::new().unpack_with(&flipped, options).is_err());
    let lone = [&[0; 512][..], &whole].concat();
    assert!(Field::new().unpack_with(&lone, options).is_err());
    for kind in [b'V', b'M', b'?'] {
        let entry = fields(kind, b"x", b"");
        assert!(Field::new().unpack(Archive::default().add(&entry, b"")).is_err());
    }
    for records in [
        &b"9 path=a"[..],
        b"99 path=a\n",
        b"0 a=b\n",
        b"x path=a\n",
        b"6 ab\n\n",
        b"12 size=-1\n\n",
    ] {
        assert!(Field::new().unpack(Archive::default().pax(records).file("f", "")).is_err());
    }
    assert!(Field::new().unpack(Archive::default().pax(b"10 path=b\n")).is_err());
}

#[test]
fn memory_and_amounts_are_bounded() {
    let field = Field::new();
    // An extended header that claims to have 1 GiB.
    let mut archive = Archive::default();
    archive.0.extend(encode(&Fields { size: 1 << 30, ..fields(b'x', b"x", b"") }));
    assert!(field.unpack(archive).is_err());
    let mut archive = Archive::default();
    archive.0.extend(encode(&Fields { size: 1 << 30, ..fields(b'L', b"x", b"") }));
    assert!(field.unpack(archive).is_err());
    // An unlimited number of extended headers.
    let mut archive = Archive::default();
    for _ in 0..3000 {
        archive = archive.pax(b"");
    }
    assert!(field.unpack(archive.file("f", "")).is_err());
    let archive = Archive::default().file("a", "12345").file("b", "6").end();
    for (limits, good) in
        [((Some(6), Some(2)), true), ((Some(5), None), false), ((None, Some(1)), false)]
    {
        let (max_bytes, max_entries) = limits;
        let options = UnpackOptions { max_bytes, max_entries, ..UnpackOptions::default() };
        assert_eq!(Field::new().unpack_with(&archive, options).is_ok(), good);
    }
    // Parents without entries count too.
    let archive = Archive::default().file("a/b/c/d", "").end();
    for (most, good) in [(4, true), (3, false)] {
        let options = UnpackOptions { max_entries: Some(most), ..UnpackOptions::default() };
        assert_eq!(Field::new().unpack_with(&archive, options).is_ok(), good);
    }
    // So do the names of directories, which are longer here than the memory for them.
    let long = "d/".repeat(1900);
    let mut archive = Archive::default();
    for number in 0..1200 {
        archive = archive.dir(&format!("{long}{number}"), 0o755);
    }
    let options = UnpackOptions { max_entries: Some(1 << 15), ..UnpackOptions::default() };
    let error = Field::in_memory().unpack_with(&archive.end(), options).unwrap_err().to_string();
    assert!(error.contains("limit of directories"), "{error}");
}

#[test]
fn a_tree_of_four_thousand_levels_is_unpacked_and_removed() {
    let field = Field::in_memory();
    let deep = "d/".repeat(2000);
    // Names are as long as the kernel accepts, and links lead further.
    let archive = Archive::default()
        .file(&format!("{deep}f"), "deep")
        .symlink("l", deep.trim_end_matches('/'))
        .file(&format!("l/{deep}f"), "deeper");
    // The helper of the tests can't read a path of this length.
    unpack(&mut &archive.end()[..], &field.dir, UnpackOptions::default()).unwrap();
    assert_eq!(field.names().len(), 4003);
    field.dir.remove_all(Path::new("d")).unwrap();
    assert_eq!(field.names(), ["l"]);
    assert!(field.unpack(Archive::default().dir(&"d/".repeat(4000), 0o755)).is_err());
}

/// Runs GNU tar in a directory. Returns its output.
fn gnu_tar(dir: &Path, args: &[&str]) -> Vec<u8> {
    let output = std::process::Command::new("tar").current_dir(dir).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn archives_of_gnu_tar_are_read() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    std::fs::create_dir(root.join("d".repeat(120))).unwrap();
    std::fs::write(root.join(&long), "long").unwrap();
    symlink(&long, root.join("link")).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    for at in 0..30_u64 {
        sparse.write_all_at(b"data", at * 1_000_000).unwrap();
    }
    sparse.set_len(40_000_000).unwrap();
    let expected = std::fs::read(root.join("sparse")).unwrap();
    for format in [
        &["--format=gnu"][..],
        &["--format=pax"],
        &["--format=gnu", "--sparse"],
        &["--format=pax", "--sparse", "--sparse-version=0.0"],
        &["--format=pax", "--sparse", "--sparse-version=0.1"],
        &["--format=pax", "--sparse", "--sparse-version=1.0"],
    ] {
        let archive = gnu_tar(root, &[&["-c"], format, &["."]].concat());
        let field = Field::new();
        field.unpack_with(&archive, UnpackOptions::default()).unwrap();
        assert_eq!(field.read(&long), "long", "{format:?}");
        assert_eq!(field.read("link"), "long");
        assert!(std::fs::read(field.root().join("sparse")).unwrap() == expected, "{format:?}");
        let blocks = std::fs::metadata(field.root().join("sparse")).unwrap().blocks();
        assert!(blocks < 10_000, "{format:?}: holes are filled");
        let mtime = |root: &Path| std::fs::metadata(root.join("sparse")).unwrap().mtime();
        assert_eq!(mtime(&field.root()), mtime(root));
    }
}

#[test]
fn holes_take_neither_time_nor_room() {
    #[derive(Debug, Default)]
    struct Taken(AtomicU64);
    impl crate::dir::Room for Taken {
        fn take(&self, bytes: u64) -> io::Result<()> {
            self.0.fetch_add(bytes, Ordering::Relaxed);
            Ok(())
        }
    }
    const SIZE: u64 = 200 << 30;
    let temp = tempfile::tempdir().unwrap();
    let sparse = File::create(temp.path().join("sparse")).unwrap();
    sparse.write_all_at(b"data", SIZE / 2).unwrap();
    sparse.set_len(SIZE).unwrap();
    for format in ["--format=gnu", "--sparse-version=0.1", "--sparse-version=1.0"] {
        let archive = gnu_tar(temp.path(), &["-c", "--sparse", format, "sparse"]);
        let (root, taken) = (tempfile::tempdir().unwrap(), Arc::new(Taken::default()));
        let dir = Dir::open(root.path()).unwrap().with_room(taken.clone());
        unpack(&mut &archive[..], &dir, UnpackOptions::default()).unwrap();
        let file = std::fs::metadata(root.path().join("sparse")).unwrap();
        assert_eq!(file.len(), SIZE, "{format}");
        assert!(file.blocks() < 1000 && taken.0.load(Ordering::Relaxed) < 1 << 20, "{format}");
    }
}

#[test]
fn a_tree_survives_packing_and_unpacking() {
    let field = Field::new();
    let archive = Archive::default()
        .dir("a", 0o1777)
        .file("a/f", "content")
        .link("a/g", "a/f")
        .symlink("a/l", "f")
        .file(&format!("a/{}", "x".repeat(200)), "long")
        .file("größe", "")
        .add(&Fields { device: (0, 0), ..fields(b'6', b"fifo", b"") }, b"")
        .add(&Fields { uid: 1 << 30, mtime: 1 << 34, ..fields(b'0', b"big", b"") }, b"");
    field.unpack(archive).unwrap();
    let mut packed = Vec::new();
    let options = PackOptions { whiteouts: Whiteouts::None, clamp_mtime: None };
    pack(&field.dir, &mut packed, options).unwrap();
    let second = Field::new();
    second.unpack_with(&packed, UnpackOptions::default()).unwrap();
    assert_eq!(describe(&second.root()), describe(&field.root()));
    let mut again = Vec::new();
    pack(&second.dir, &mut again, options).unwrap();
    assert!(again == packed);
}

/// While another thread swaps a directory with a link to the outside repeatedly, no operation
/// through that name reaches the outside.
#[test]
fn races_are_lost_by_the_attacker() {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use rustix::fs::{CWD, RenameFlags, renameat_with};

    let field = Field::in_memory();
    let (root, outside) = (field.root(), field.temp.path().join("canary"));
    std::fs::create_dir(root.join("d")).unwrap();
    symlink(&outside, root.join("swap")).unwrap();
    let from = field.temp.path().join("from");
    std::fs::create_dir(&from).unwrap();
    std::fs::write(from.join("secret"), "x").unwrap();
    let canary = field.outside();
    let archive = Archive::default().file("d/secret", "x").dir("d/sub", 0o777).end();
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let path = Path::new("d/secret");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let (a, b) = (root.join("d"), root.join("swap"));
                renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).unwrap();
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        let source = Dir::open(&from).unwrap();
        let options = crate::CopyOptions {
            source: "/".to_owned(),
            dest: "/d".to_owned(),
            dir_copy_contents: true,
            ..crate::CopyOptions::default()
        };
        // Each operation may fail, but none may reach the outside.
        for _ in 0..2500 {
            let _ = unpack(&mut &archive[..], &field.dir, UnpackOptions::default());
            let _ = crate::copy(crate::View::of(&source), &field.dir, &options);
            let _ = field.dir.write_file(path, b"x", &Attributes::default());
            let _ = field.dir.remove_all(path);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let rounds = rounds.into_inner();
    println!("a tree that is unpacked: {rounds} rounds");
    assert!(rounds >= 10_000, "only {rounds} rounds");
    assert_eq!(field.outside(), canary);
}

#[test]
fn nothing_depends_on_openat2() {
    crate::resolve::without_openat2(|| {
        links_lead_nowhere_outside();
        files_replace_links_and_never_go_through_them();
        hard_links_stay_inside();
        names_are_confined();
        loops_are_errors();
        whiteouts_remove_inside_only();
        everything_about_an_entry_is_set();
        races_are_lost_by_the_attacker();
    });
}

mod random {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Flipping bits of an archive never causes a panic, and nothing outside is touched.
        #[test]
        fn mutated_archives_are_survived(flips in proptest::collection::vec((0..6000_usize, any::<u8>()), 1..6)) {
            let mut archive = Archive::default()
                .pax(b"11 path=xy\n")
                .file("x", "content")
                .symlink("l", "../../canary")
                .dir("l", 0o777)
                .link("h", "x")
                .file("l/secret", "y")
                .end();
            for (at, value) in flips {
                let length = archive.len();
                archive[at % length] = value;
            }
            drop(Field::in_memory().unpack_with(&archive, UnpackOptions { whiteouts: true, ..Default::default() }));
        }
    }
}

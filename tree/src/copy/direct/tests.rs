//! Comparisons of tars that copies create directly with tars packed from trees.

use std::os::unix::fs::symlink;

use super::super::tests::{Trees, instruction};
use super::*;
use crate::copy::plan_copies;
use crate::mode::ModeChange;

/// Compares the tar packed from the tree that copies create with the tar created directly.
fn assert_direct(trees: &Trees, copies: &[CopyOptions]) {
    let from = Dir::open(&trees.from).unwrap();
    let empty = tempfile::tempdir().unwrap();
    let below = Dir::open(empty.path()).unwrap();
    let begun = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let copied: Vec<_> = copies.iter().map(|copy| (View::of(&from), copy.clone())).collect();
    let mut direct = Vec::new();
    plan_copies(&copied, &below)
        .unwrap()
        .unwrap_or_else(|| panic!("no plan for {copies:?}"))
        .write(&mut direct)
        .unwrap();
    for options in copies {
        trees.copy(options).unwrap();
    }
    let mut packed = Vec::new();
    let options = crate::PackOptions { whiteouts: crate::Whiteouts::Overlay, clamp_mtime: None };
    crate::pack(&Dir::open(&trees.to).unwrap(), &mut packed, options).unwrap();
    let members = |tar: &[u8]| {
        let mut archive = tar::Archive::new(tar);
        let member = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.unwrap();
            let mut header = entry.header().clone();
            if header.mtime().unwrap() >= begun.as_secs() {
                header.set_mtime(1);
                header.set_cksum();
            }
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            (entry.path_bytes().into_owned(), header.as_bytes().to_vec(), content)
        };
        archive.entries().unwrap().map(member).collect::<Vec<_>>()
    };
    let (direct, packed) = (members(&direct), members(&packed));
    let names = |members: &[(Vec<u8>, Vec<u8>, Vec<u8>)]| {
        members.iter().map(|m| String::from_utf8_lossy(&m.0).into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&direct), names(&packed), "{copies:?}");
    assert!(direct == packed, "{copies:?}");
}

#[test]
fn what_goes_straight_into_a_tar_is_what_a_tree_would_pack_to() {
    let old = Timestamp { seconds: 1_000, nanoseconds: 7 };
    let owner = Some(Owner { uid: 7, gid: 9 });
    for copies in [
        vec![instruction(".", "/")],
        vec![instruction(".", "/to/here/")],
        vec![instruction("src", "/dir")],
        vec![instruction("src/[abs]*", "/all/")],
        vec![instruction("src/a.txt", "/"), instruction("src/hard", "/")],
        vec![instruction("src/a.txt", "/one/name"), instruction("top.txt", "/one/name")],
        vec![
            instruction("src", "/x"),
            instruction("top.txt", "/x/sub/"),
            instruction("src/sub", "/x"),
        ],
        vec![CopyOptions { owner, mtime: Some(old), ..instruction("src", "/deep/er") }],
        vec![CopyOptions {
            mode: Some(ModeChange::parse("u+x,go-r").unwrap()),
            ..instruction(".", "/m")
        }],
        vec![CopyOptions { mode: Some(ModeChange::set(0o640)), ..instruction("src", "/p/q/r") }],
        vec![CopyOptions { dir_copy_contents: false, ..instruction("src", "/made/") }],
        vec![CopyOptions { include: vec!["**/*.go".into()], ..instruction("src", "/go") }],
        vec![CopyOptions { exclude: vec!["sub".into()], ..instruction("src", "/rest") }],
        vec![CopyOptions { always_replace: true, ..instruction("src", "/r") }],
    ] {
        let trees = Trees::new();
        let long = trees.from.join("src/sub").join("n".repeat(200));
        std::fs::write(&long, vec![b'x'; 70_000]).unwrap();
        std::fs::hard_link(&long, trees.from.join("src/sub.first")).unwrap();
        std::os::unix::net::UnixListener::bind(trees.from.join("src/socket")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            trees.from.join("src/fifo"),
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();
        for path in ["src/sub", "src", "src/a.txt"] {
            let file = std::fs::File::open(trees.from.join(path)).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000);
            file.set_modified(time).unwrap();
        }
        assert_direct(&trees, &copies);
    }
}

#[test]
fn what_is_in_the_way_is_left_to_a_copy_into_a_tree() {
    let trees = Trees::new();
    std::fs::create_dir_all(trees.to.join("d/a.txt")).unwrap();
    std::fs::write(trees.to.join("d/sub"), "").unwrap();
    symlink("d", trees.to.join("d/link")).unwrap();
    std::fs::create_dir(trees.to.join("group")).unwrap();
    std::fs::set_permissions(
        trees.to.join("group"),
        std::os::unix::fs::PermissionsExt::from_mode(0o2775),
    )
    .unwrap();
    let (from, to) = (Dir::open(&trees.from).unwrap(), Dir::open(&trees.to).unwrap());
    for (source, dest) in
        [("src", "/d"), ("src/link", "/d/"), ("src/sub", "/d/sub"), ("top.txt", "/group/x/y/")]
    {
        let options = CopyOptions { follow_symlink: false, ..instruction(source, dest) };
        assert!(plan_copies(&[(View::of(&from), options)], &to).unwrap().is_none(), "{dest}");
    }
    let missing = instruction("nothing", "/");
    let missing = CopyOptions { allow_wildcard: false, ..missing };
    assert!(plan_copies(&[(View::of(&from), missing)], &to).is_err());
}

#[test]
fn what_is_there_already_is_left_out() {
    let trees = Trees::new();
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000);
    // Copying over a link requires a tree.
    for link in ["src/link", "src/dirlink", "src/dangling"] {
        std::fs::remove_file(trees.from.join(link)).unwrap();
    }
    for path in ["src/a.txt", "src/sub", "top.txt"] {
        let file = std::fs::File::open(trees.from.join(path)).unwrap();
        file.set_modified(old).unwrap();
    }
    trees.copy(&instruction(".", "/")).unwrap();
    let (from, to) = (Dir::open(&trees.from).unwrap(), Dir::open(&trees.to).unwrap());
    let archived = |dir: &Dir| {
        let options = crate::PackOptions { whiteouts: crate::Whiteouts::None, clamp_mtime: None };
        let mut bytes = Vec::new();
        crate::pack(dir, &mut bytes, options).unwrap();
        bytes
    };
    let archive = archived(&to);
    let skeleton = |with_contents: bool| {
        let mut skeleton = crate::Skeleton::default();
        let options = crate::PackOptions { whiteouts: crate::Whiteouts::None, clamp_mtime: None };
        let whole = Plan::new(&to, options).unwrap().manifest();
        assert!(whole.is_detailed() && skeleton.add(&whole));
        if with_contents {
            // The first plan requests contents.
            names(&from, &[instruction(".", "/")], &skeleton);
            for (layer, wanted) in skeleton.wanted() {
                let found = crate::contents(&mut archive.as_slice(), &wanted).unwrap();
                assert_eq!((layer, found.len()), (0, wanted.len()));
                skeleton.learn(layer, found);
            }
            assert!(skeleton.wanted().is_empty());
        }
        skeleton
    };
    let (known, unknown) = (skeleton(true), skeleton(false));
    for below in [&to as &dyn Below, &known] {
        assert_eq!(names(&from, &[instruction(".", "/")], below), [""; 0]);
    }
    // Only the contents prove that the files are equal.
    let whole = ["src", "src/a.txt", "src/hard", "top.txt"];
    assert_eq!(names(&from, &[instruction(".", "/")], &unknown), whole);
    std::fs::write(trees.from.join("top.txt"), "TOP").unwrap();
    std::fs::File::open(trees.from.join("top.txt")).unwrap().set_modified(old).unwrap();
    std::fs::write(trees.from.join("src/new"), "").unwrap();
    let moded = CopyOptions {
        mode: Some(ModeChange::parse("g+w").unwrap()),
        ..instruction("src/sub", "/src/sub")
    };
    for below in [&to as &dyn Below, &known] {
        let copies = [instruction(".", "/"), moded.clone()];
        let found = names(&from, &copies, below);
        for expected in ["src", "src/new", "src/sub", "top.txt"] {
            assert!(found.iter().any(|name| name == expected), "{expected}: {found:?}");
        }
        assert!(!found.contains(&"src/a.txt".to_owned()), "{found:?}");
    }
}

/// Returns the names in the tar of a plan.
fn names(from: &Dir, copies: &[CopyOptions], below: &dyn Below) -> Vec<String> {
    let copied: Vec<_> = copies.iter().map(|copy| (View::of(from), copy.clone())).collect();
    let plan = plan_copies(&copied, below).unwrap().unwrap();
    let name = |item: &Item| String::from_utf8_lossy(&item.entry.path.to_vec()).into_owned();
    plan.items().iter().map(name).collect()
}

#[test]
fn what_is_named_and_excluded_is_no_part_of_a_layer() {
    let trees = Trees::new();
    let (from, to) = (Dir::open(&trees.from).unwrap(), Dir::open(&trees.to).unwrap());
    let options = |source: &str| CopyOptions {
        exclude: vec!["top.txt".to_owned(), "src".to_owned()],
        exclude_matches: true,
        ..instruction(source, "/d/")
    };
    for (source, count) in [("top.txt", 0), ("*", 2)] {
        let options = options(source);
        let plan = plan_copies(&[(View::of(&from), options.clone())], &to).unwrap().unwrap();
        let mut archive = Vec::new();
        plan.write(&mut archive).unwrap();
        let entries = tar::Archive::new(&archive[..]).entries().unwrap().count();
        crate::copy(View::of(&from), &to, &options).unwrap();
        let copied = std::fs::read_dir(trees.to.join("d")).map_or(0, |names| names.count() + 1);
        assert_eq!((entries, copied), (count, count), "{source}");
    }
}

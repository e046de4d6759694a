//! Without privileges, trees have the same contents, because what the kernel refuses is recorded.
//!
//! Each test runs as root first, and then once more in a process of another user.

#![expect(clippy::disallowed_methods, reason = "tests open the files that they create")]
#![expect(clippy::unwrap_used, reason = "a test fails by it")]
#![expect(clippy::print_stdout, reason = "the process without privileges reports to the test")]

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use kiln_oci::Digest;
use kiln_tree::{
    Attributes, CopyOptions, Dir, FileKind, Files, Ids, ModeChange, Owner, PackOptions, Selection,
    Touched, TreeState, UnpackOptions, View, Whiteouts, assemble, content_digest, extract, pack,
    records, unpack,
};
use tar::{Builder, EntryType, Header};

/// The variable that is set in the process without privileges.
const CHILD: &str = "KILN_TEST_UNPRIVILEGED";

/// The user of the process without privileges.
const USER: u32 = 1000;

/// A file capability of the second version.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// Compares the results of `make` as root and as another user.
fn compare(test: &str, make: fn(&Path) -> Vec<String>) {
    let temp = tempfile::tempdir().unwrap();
    let made = make(temp.path());
    if std::env::var_os(CHILD).is_some() {
        assert!(Ids::current().is_unprivileged());
        println!("<<{}>>", made.join("\n"));
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return;
    }
    assert!(!Ids::current().has_records(), "root must see the files as they are");
    // The other user may not reach this program.
    let place = tempfile::Builder::new().tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let program = place.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = Command::new(program);
    command.args(["--exact", test, "--nocapture"]).env(CHILD, "1").current_dir("/tmp");
    let output = command.uid(USER).gid(USER).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let (_, rest) = text.split_once("<<").unwrap();
    let (found, _) = rest.split_once(">>").unwrap();
    assert_eq!(found, made.join("\n"));
}

/// Returns the size and the digest of the tar of a tree.
fn packed(dir: &Dir, whiteouts: Whiteouts) -> String {
    let mut bytes = Vec::new();
    pack(dir, &mut bytes, PackOptions { whiteouts, clamp_mtime: None }).unwrap();
    format!("{} {}", bytes.len(), Digest::of(&bytes))
}

fn digest(dir: &Dir) -> String {
    let all = Selection { path: "/".to_owned(), ..Selection::default() };
    content_digest(View::of(dir), &[all], None).unwrap().to_string()
}

/// An archive with everything that a process without privileges can't make.
fn archive() -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    let mut add = |name: &str, kind, mode, owner: (u64, u64), link: &str| {
        let mut header = Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_mtime(1_000_000_000);
        header.set_size(0);
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        if matches!(kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        tar.append(&header, std::io::empty()).unwrap();
    };
    add("closed/", EntryType::Directory, 0o000, (0, 0), "");
    add("closed/in/", EntryType::Directory, 0o3555, (7, 8), "");
    add("closed/in/file", EntryType::Regular, 0o000, (9, 10), "");
    add("own", EntryType::Regular, 0o444, (USER.into(), USER.into()), "");
    add("setuid", EntryType::Regular, 0o4755, (0, 50), "");
    add("setgid", EntryType::Regular, 0o2711, (0, 50), "");
    add("link", EntryType::Symlink, 0o777, (0, 0), "own");
    add("owned-link", EntryType::Symlink, 0o777, (5, 6), "own");
    add("second", EntryType::Link, 0o4755, (0, 50), "setuid");
    add("null", EntryType::Char, 0o666, (0, 0), "");
    add("disk", EntryType::Block, 0o060, (0, 6), "");
    add("fifo", EntryType::Fifo, 0o4600, (33, 0), "");
    tar.append_pax_extensions([("SCHILY.xattr.security.capability", CAPABILITY)]).unwrap();
    let mut header = Header::new_ustar();
    header.set_path("capable").unwrap();
    header.set_mode(0o755);
    header.set_uid(3);
    header.set_gid(4);
    header.set_mtime(1_000_000_000);
    header.set_size(4);
    header.set_cksum();
    tar.append(&header, &b"text"[..]).unwrap();
    tar.into_inner().unwrap()
}

fn unpacked(at: &Path) -> Dir {
    std::fs::create_dir(at).unwrap();
    let dir = Dir::open(at).unwrap();
    let options = UnpackOptions { whiteouts: true, ..UnpackOptions::default() };
    unpack(&mut archive().as_slice(), &dir, options).unwrap();
    dir
}

#[test]
fn archives_are_unpacked_and_packed_alike() {
    compare("archives_are_unpacked_and_packed_alike", |at| {
        let dir = unpacked(&at.join("tree"));
        // A second unpacking replaces everything.
        let options = UnpackOptions { whiteouts: true, ..UnpackOptions::default() };
        let once = packed(&dir, Whiteouts::Overlay);
        unpack(&mut archive().as_slice(), &dir, options).unwrap();
        assert_eq!(packed(&dir, Whiteouts::Overlay), once);
        let shown = |path: &str| {
            let found = dir.metadata(path.as_ref(), false).unwrap().unwrap();
            format!("{:?} {:o} {:?}", found.kind, found.mode, found.owner)
        };
        let mut all: Vec<String> =
            ["closed", "closed/in/file", "own", "setuid", "second", "null", "disk", "fifo", "link"]
                .map(shown)
                .to_vec();
        all.push(format!("{:?}", dir.xattrs("capable".as_ref()).unwrap()));
        all.push(digest(&dir));
        all.push(once);
        all
    });
}

#[test]
fn copies_and_layers_are_alike() {
    compare("copies_and_layers_are_alike", |at| {
        let from = unpacked(&at.join("from"));
        let beside = |name: &str| {
            std::fs::create_dir(at.join(name)).unwrap();
            Dir::open(&at.join(name)).unwrap()
        };
        let options = CopyOptions {
            source: "/".to_owned(),
            dest: "/copy/".to_owned(),
            dir_copy_contents: true,
            create_dest_path: true,
            mtime: Some(kiln_tree::Timestamp { seconds: 1_000_000_000, nanoseconds: 0 }),
            ..CopyOptions::default()
        };
        let to = beside("to");
        kiln_tree::copy(View::of(&from), &to, &options).unwrap();
        let owned = CopyOptions {
            source: "/closed".to_owned(),
            dest: "/owned/".to_owned(),
            owner: Some(Owner { uid: USER, gid: 0 }),
            mode: Some(ModeChange::parse("a-rwx").unwrap()),
            ..options
        };
        kiln_tree::copy(View::of(&from), &to, &owned).unwrap();
        let mut all = vec![packed(&to, Whiteouts::None), digest(&to)];

        // A layer on top, in an assembled tree.
        let work = beside("work");
        assemble(&[at.join("to")], &work, Files::Own).unwrap();
        all.push(packed(&work, Whiteouts::None));
        let state = TreeState::of(&work).unwrap();
        state.settle(&Dir::open(at).unwrap()).unwrap();
        work.remove_all("copy/own".as_ref()).unwrap();
        work.remove_all("copy/null".as_ref()).unwrap();
        let attributes = Attributes {
            mode: Some(0o1000),
            owner: Some(Owner { uid: 5, gid: 6 }),
            mtime: Some(kiln_tree::Timestamp { seconds: 1_000_000_000, nanoseconds: 0 }),
        };
        work.set_attributes("copy/disk".as_ref(), &attributes).unwrap();
        let time = Attributes { mode: None, owner: None, ..attributes };
        work.set_attributes("copy".as_ref(), &time).unwrap();
        let touched = state.touched(&state.again(&work).unwrap());
        assert!(touched.contains(&Touched { path: b"copy/own".to_vec(), gone: true }));
        for file_marks in [false, true] {
            let layer = beside(&format!("layer-{file_marks}"));
            extract(&work, &touched, &layer, file_marks).unwrap();
            all.push(packed(&layer, Whiteouts::Overlay));
            let again = beside(&format!("again-{file_marks}"));
            let layers = [at.join(format!("layer-{file_marks}")), at.join("to")];
            assemble(&layers, &again, Files::Shared).unwrap();
            all.push(packed(&again, Whiteouts::None));
        }
        all
    });
}

#[test]
fn records_are_what_the_documentation_says() {
    let temp = tempfile::tempdir().unwrap();
    let dir = unpacked(&temp.path().join("tree"));
    if std::env::var_os(CHILD).is_none() {
        compare("records_are_what_the_documentation_says", |_| vec![String::new()]);
        return;
    }
    let at = |name: &str| temp.path().join("tree").join(name);
    let read = |name: &str, record: &[u8]| {
        let mut value = vec![0; 64];
        let record = std::str::from_utf8(record).unwrap();
        let size = rustix::fs::lgetxattr(at(name), record, value.as_mut_slice()).ok()?;
        Some(String::from_utf8_lossy(&value[..size]).into_owned())
    };
    let on_disk = |name: &str| std::fs::symlink_metadata(at(name)).unwrap().mode() & 0o7777;
    assert_eq!(on_disk("closed"), 0o700);
    assert_eq!(read("closed", records::MODE).as_deref(), Some("0"));
    assert_eq!(read("own", records::MODE).as_deref(), Some("444"));
    assert_eq!(read("own", records::OWNER).as_deref(), Some("1000:1000"));
    assert_eq!(read("setuid", records::OWNER).as_deref(), Some("0:50"));
    assert_eq!((on_disk("setuid"), read("setuid", records::MODE)), (0o4755, None));
    assert_eq!(read("null", records::DEVICE).as_deref(), Some("c:1:3"));
    assert_eq!(read("disk", records::DEVICE).as_deref(), Some("b:1:3"));
    assert!(read("capable", &records::xattr(b"security.capability")).is_some());
    // A mode that was changed without the record counts.
    std::fs::set_permissions(at("own"), std::os::unix::fs::PermissionsExt::from_mode(0o640))
        .unwrap();
    assert_eq!(dir.metadata("own".as_ref(), false).unwrap().unwrap().mode, 0o640);
    // A file that is no longer empty stands for no device.
    std::fs::write(at("null"), "text").unwrap();
    let found = dir.metadata("null".as_ref(), false).unwrap().unwrap();
    assert_eq!(found.kind, FileKind::File);
    let mut text = String::new();
    dir.open_file("null".as_ref()).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "text");
    println!("<<>>");
}

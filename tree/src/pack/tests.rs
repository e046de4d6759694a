use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, chownat, mknodat, setxattr,
    utimensat,
};

use super::*;

const OVERLAY: PackOptions = PackOptions { whiteouts: Whiteouts::Overlay, clamp_mtime: None };

fn packed(path: &Path, options: PackOptions) -> Vec<u8> {
    let mut out = Vec::new();
    let dir = Dir::open(path).unwrap();
    let packed = pack(&dir, &mut out, options).unwrap();
    assert_eq!(packed.bytes, out.len() as u64);
    out
}

/// Reads a tar with Python. Returns a line for each member.
fn members(tar: &[u8]) -> Vec<String> {
    const SCRIPT: &str = "
import hashlib, sys, tarfile
for m in tarfile.open(sys.argv[1], 'r:'):
    caps = m.pax_headers.get('SCHILY.xattr.security.capability', '')
    print(repr(m.name), m.type.decode(), oct(m.mode)[2:], f'{m.uid}:{m.gid}', m.size, int(m.mtime),
          repr(m.linkname), f'{m.devmajor},{m.devminor}', f'{m.uname}{m.gname}{len(caps)}')
";
    let temp = tempfile::NamedTempFile::new().unwrap();
    fs::write(temp.path(), tar).unwrap();
    let output = Command::new("python3").args(["-c", SCRIPT]).arg(temp.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Returns a tar's names as GNU tar lists them.
fn gnu_names(tar: &[u8]) -> Vec<String> {
    let temp = tempfile::NamedTempFile::new().unwrap();
    fs::write(temp.path(), tar).unwrap();
    let arguments = ["--quoting-style=literal", "-tf"];
    let output = Command::new("tar").args(arguments).arg(temp.path()).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn names(lines: &[String]) -> Vec<&str> {
    lines.iter().map(|line| line.split('\'').nth(1).unwrap()).collect()
}

fn age(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("CI").is_none(), "{test} needs root");
        eprintln!("skipped {test}: needs root");
    }
    root
}

/// Creates the same tree each time, at another path and with other inodes.
fn sample(root: &Path) {
    fs::create_dir_all(root.join("b/inner")).unwrap();
    fs::create_dir_all(root.join("b-side")).unwrap();
    fs::write(root.join("b/inner/file"), "content").unwrap();
    fs::write(root.join("b/empty"), "").unwrap();
    fs::write(root.join("b.txt"), vec![b'x'; 513]).unwrap();
    fs::hard_link(root.join("b/inner/file"), root.join("z-link")).unwrap();
    symlink("../somewhere", root.join("b/link")).unwrap();
    mode(&root.join("b/inner/file"), 0o4755);
    mode(&root.join("b"), 0o1777);
    for (path, directory_mode) in [("b/inner", 0o755), ("b-side", 0o750)] {
        mode(&root.join(path), directory_mode);
    }
    for path in ["b.txt", "b/empty"] {
        mode(&root.join(path), 0o644);
    }
    for path in ["b/inner/file", "b/inner", "b/empty", "b/link", "b", "b-side", "b.txt"] {
        age(&root.join(path), 1_700_000_000, 999_999_999);
    }
}

#[test]
fn a_tree_is_packed_as_python_and_gnu_tar_read_it() {
    let temp = tempfile::tempdir().unwrap();
    sample(temp.path());
    let tar = packed(temp.path(), OVERLAY);
    let own = fs::metadata(temp.path()).unwrap();
    let owner = format!("{}:{}", own.uid(), own.gid());
    assert_eq!(
        members(&tar),
        [
            "'b' 5 1777 OWNER 0 1700000000 '' 0,0 0",
            "'b/empty' 0 644 OWNER 0 1700000000 '' 0,0 0",
            "'b/inner' 5 755 OWNER 0 1700000000 '' 0,0 0",
            "'b/inner/file' 0 4755 OWNER 7 1700000000 '' 0,0 0",
            "'b/link' 2 777 OWNER 0 1700000000 '../somewhere' 0,0 0",
            "'b-side' 5 750 OWNER 0 1700000000 '' 0,0 0",
            "'b.txt' 0 644 OWNER 513 1700000000 '' 0,0 0",
            "'z-link' 1 4755 OWNER 0 1700000000 'b/inner/file' 0,0 0",
        ]
        .map(|line| line.replace("OWNER", &owner))
    );
    assert_eq!(
        gnu_names(&tar),
        ["b/", "b/empty", "b/inner/", "b/inner/file", "b/link", "b-side/", "b.txt", "z-link"]
    );
    // No value needs an extra block: there are 8 headers, 3 blocks of content, and 2 at the end.
    assert_eq!(tar.len(), (8 + 3 + 2) * 512);
}

#[test]
fn the_bytes_depend_on_the_content_alone() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for temp in [&one, &two] {
        for number in 0..1500 {
            let path = temp.path().join(format!("many/{}/{number}", number % 7));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, number.to_string().repeat(number)).unwrap();
        }
        sample(temp.path());
    }
    let clamp = PackOptions {
        whiteouts: Whiteouts::None,
        clamp_mtime: Some(Timestamp { seconds: 1_000_000_000, nanoseconds: 0 }),
    };
    let first = packed(one.path(), clamp);
    assert_eq!(first, packed(two.path(), clamp));
    assert!(members(&first).iter().all(|line| line.contains(" 1000000000 ")));
    mode(&two.path().join("many/3/10"), 0o600);
    assert_ne!(first, packed(two.path(), clamp));
}

#[test]
fn times_are_clamped_and_cut_to_seconds() {
    let temp = tempfile::tempdir().unwrap();
    for (name, seconds) in [("old", 5), ("before", -7), ("late", 2_000), ("far", 1 << 33)] {
        fs::write(temp.path().join(name), "").unwrap();
        age(&temp.path().join(name), seconds, 600_000_000);
    }
    let times = |options| {
        let lines = members(&packed(temp.path(), options));
        lines.iter().map(|line| line.split(' ').nth(5).unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(times(OVERLAY), ["-7", "8589934592", "2000", "5"]);
    let clamp_mtime = Some(Timestamp { seconds: 1_000, nanoseconds: 0 });
    assert_eq!(times(PackOptions { clamp_mtime, ..OVERLAY }), ["-7", "1000", "1000", "5"]);
}

#[test]
fn long_and_foreign_names_survive() {
    let temp = tempfile::tempdir().unwrap();
    let long = "d".repeat(90);
    let split = format!("{long}/{}", "f".repeat(90));
    let far = format!("{long}/{long}/{}", "g".repeat(200));
    let foreign = "größe";
    for name in [split.as_str(), &far, foreign] {
        let path = temp.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    symlink(&far, temp.path().join("link")).unwrap();
    fs::hard_link(temp.path().join(&far), temp.path().join("z")).unwrap();
    let tar = packed(temp.path(), OVERLAY);
    let lines = members(&tar);
    let expected = [long.as_str(), &format!("{long}/{long}"), &far, &split, foreign, "link", "z"];
    assert_eq!(names(&lines), expected);
    assert!(lines[5].contains(" 2 777 ") && lines[5].contains(&far));
    assert!(lines[6].contains("'z' 1 ") && lines[6].contains(&far));
    assert_eq!(gnu_names(&tar).len(), expected.len());
    // A split name needs no PAX header. The only ones are for the far entry, for the foreign one,
    // and for both links.
    let headers =
        tar.chunks(512).filter(|block| block[156] == b'x' && &block[257..262] == b"ustar");
    assert_eq!(headers.count(), 4);
}

#[test]
fn names_that_are_not_text_are_kept() {
    use std::os::unix::ffi::OsStrExt as _;
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join(std::ffi::OsStr::from_bytes(b"a\xff\nb")), "x").unwrap();
    let lines = members(&packed(temp.path(), OVERLAY));
    assert_eq!(names(&lines), ["a\\udcff\\nb"]);
}

#[test]
fn whole_directories_are_packed_deeper_than_any_path() {
    let temp = tempfile::tempdir().unwrap();
    let dir = Dir::open(temp.path()).unwrap();
    let mut here = dir.try_clone().unwrap();
    for _ in 0..1200 {
        rustix::fs::mkdirat(&here, "deeper", Mode::RWXU).unwrap();
        here = here.open_dir("deeper".as_ref()).unwrap();
    }
    let plan = Plan::new(&dir, OVERLAY).unwrap();
    assert_eq!(plan.len(), 1200);
    let mut out = Vec::new();
    plan.write(&mut out).unwrap();
    assert_eq!(gnu_names(&out).last().unwrap().len(), 1200 * 7);
    dir.remove_all("deeper".as_ref()).unwrap();
}

#[test]
fn a_file_that_changes_after_planning_is_an_error() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("file");
    for (now, later, word) in [(1000, 999, "shrunk"), (1000, 1001, "grown"), (9, 1 << 20, "grown")]
    {
        fs::write(&path, vec![1; now]).unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let plan = Plan::new(&dir, OVERLAY).unwrap();
        fs::write(&path, vec![1; later]).unwrap();
        let error = plan.write(&mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("file"), "{error}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(word), "{source}");
    }
    fs::write(&path, "x").unwrap();
    let dir = Dir::open(temp.path()).unwrap();
    let plan = Plan::new(&dir, OVERLAY).unwrap();
    fs::remove_file(&path).unwrap();
    symlink("/etc/passwd", &path).unwrap();
    assert!(plan.write(&mut Vec::new()).is_err(), "a link that took a file's place is followed");
}

#[test]
fn contents_are_whole_whatever_their_size() {
    let temp = tempfile::tempdir().unwrap();
    let sizes = [1, 511, 512, 513, 32_767, 262_143, 262_144, 262_145, 700_001];
    let content = |size: usize| (0..size).map(|at| (at * 31 % 251) as u8).collect::<Vec<_>>();
    for size in sizes {
        fs::write(temp.path().join(format!("{size:07}")), content(size)).unwrap();
    }
    // A hole is written as zeros.
    fs::File::create(temp.path().join("hole")).unwrap().set_len(300_000).unwrap();
    let tar = packed(temp.path(), OVERLAY);
    let mut archive = tar::Archive::new(tar.as_slice());
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut read = Vec::new();
        std::io::Read::read_to_end(&mut entry.unwrap(), &mut read).unwrap();
        found.push(read);
    }
    let mut expected: Vec<_> = sizes.iter().map(|size| content(*size)).collect();
    expected.push(vec![0; 300_000]);
    assert_eq!(found, expected);
}

#[test]
fn special_files_are_packed_and_sockets_left_out() {
    if !is_root("special_files_are_packed_and_sockets_left_out") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let node = |name: &str, kind, device| {
        mknodat(CWD, temp.path().join(name), kind, Mode::from_raw_mode(0o600), device).unwrap();
        mode(&temp.path().join(name), 0o620);
        age(&temp.path().join(name), 1, 0);
    };
    node("block", FileType::BlockDevice, rustix::fs::makedev(259, 65_537));
    node("char", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    node("fifo", FileType::Fifo, 0);
    let _socket = std::os::unix::net::UnixListener::bind(temp.path().join("socket")).unwrap();
    let big = temp.path().join("big-ids");
    fs::write(&big, "").unwrap();
    mode(&big, 0o644);
    let id = |id| Some(rustix::fs::Uid::from_raw(id));
    chownat(
        CWD,
        &big,
        id(4_000_000_000),
        Some(rustix::fs::Gid::from_raw(2_097_152)),
        AtFlags::empty(),
    )
    .unwrap();
    age(&big, 1, 0);
    assert_eq!(
        members(&packed(temp.path(), OVERLAY)),
        [
            "'big-ids' 0 644 4000000000:2097152 0 1 '' 0,0 0",
            "'block' 4 620 0:0 0 1 '' 259,65537 0",
            "'char' 3 620 0:0 0 1 '' 1,3 0",
            "'fifo' 6 620 0:0 0 1 '' 0,0 0",
        ]
    );
}

#[test]
fn deletions_become_marks() {
    if !is_root("deletions_become_marks") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir_all(temp.path().join("opaque/new")).unwrap();
    fs::create_dir_all(temp.path().join("seen")).unwrap();
    for name in ["gone", "opaque/old", "seen/gone"] {
        let (path, kind) = (temp.path().join(name), FileType::CharacterDevice);
        mknodat(CWD, path, kind, Mode::empty(), 0).unwrap();
    }
    // The kernel creates all whiteouts of a mount as links to one inode.
    fs::hard_link(temp.path().join("gone"), temp.path().join("gone-too")).unwrap();
    let set = |path: &str, name: &str, value: &[u8]| {
        setxattr(temp.path().join(path), name, value, XattrFlags::empty()).unwrap();
    };
    set("opaque", "trusted.overlay.opaque", b"y");
    set("opaque/new", "user.overlay.opaque", b"y");
    set("seen", "trusted.overlay.opaque", b"n");
    set("seen", "trusted.overlay.origin", b"anything");
    let tar = packed(temp.path(), OVERLAY);
    let lines = members(&tar);
    assert_eq!(
        names(&lines),
        [
            ".wh.gone",
            ".wh.gone-too",
            "opaque",
            "opaque/.wh..wh..opq",
            "opaque/new",
            "opaque/new/.wh..wh..opq",
            "opaque/.wh.old",
            "seen",
            "seen/.wh.gone"
        ]
    );
    for mark in lines.iter().filter(|line| line.contains(".wh.")) {
        assert!(mark.ends_with("' 0 0 0:0 0 0 '' 0,0 0"), "{mark}");
    }
    assert!(!tar.windows(8).any(|bytes| bytes == b".overlay"), "overlayfs's attributes are packed");

    let plain = packed(temp.path(), PackOptions { whiteouts: Whiteouts::None, ..OVERLAY });
    assert!(names(&members(&plain)).iter().all(|name| !name.contains(".wh.")));

    set("seen", "trusted.overlay.redirect", b"/elsewhere");
    let dir = Dir::open(temp.path()).unwrap();
    let error = Plan::new(&dir, OVERLAY).unwrap_err().to_string();
    assert!(error.contains("seen") && error.contains("redirect"), "{error}");
}

#[test]
fn an_opaque_root_is_marked() {
    if !is_root("an_opaque_root_is_marked") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let path = CString::new(temp.path().to_str().unwrap()).unwrap();
    setxattr(path.as_c_str(), "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
    assert_eq!(names(&members(&packed(temp.path(), OVERLAY))), [".wh..wh..opq"]);
}

#[test]
fn capabilities_are_the_only_attributes() {
    if !is_root("capabilities_are_the_only_attributes") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("tool");
    fs::write(&path, "x").unwrap();
    fs::hard_link(&path, temp.path().join("tool-too")).unwrap();
    // The value is version 2, effective, permitted: net_bind_service.
    let value = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    setxattr(&path, "security.capability", &value, XattrFlags::empty()).unwrap();
    setxattr(&path, "user.note", b"private", XattrFlags::empty()).unwrap();
    let tar = packed(temp.path(), OVERLAY);
    let lines = members(&tar);
    assert_eq!(names(&lines), ["tool", "tool-too"]);
    assert!(lines.iter().all(|line| line.ends_with(" 20")), "{lines:?}");
    assert!(!tar.windows(7).any(|bytes| bytes == b"private"));
}

#[test]
fn a_tree_that_changes_never_shows_what_is_outside() {
    let temp = tempfile::tempdir().unwrap();
    let (root, outside) = (temp.path().join("root"), temp.path().join("outside"));
    for directory in [root.join("flip"), outside.clone()] {
        fs::create_dir_all(directory).unwrap();
    }
    fs::write(root.join("flip/file"), "inside").unwrap();
    fs::write(outside.join("file"), "canary").unwrap();
    symlink(&outside, root.join("other")).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let (mut whole, mut leaked) = (0, false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let (one, two) = (root.join("flip"), root.join("other"));
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(CWD, &one, CWD, &two, exchange).unwrap();
            }
        });
        let dir = Dir::open(&root).unwrap();
        for _ in 0..10_000 {
            let mut out = Vec::new();
            // Success depends on the moment.
            whole += u32::from(pack(&dir, &mut out, OVERLAY).is_ok());
            leaked |= out.windows(6).any(|bytes| bytes == b"canary");
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(!leaked, "what is outside was packed");
    assert!(whole > 0, "no pack was ever undisturbed");
}

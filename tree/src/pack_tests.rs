use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use super::*;
use crate::attributes::Attributes;

/// Says what Python's tarfile reads in an archive, an entry a line.
pub(crate) fn python_listing(archive: &Path) -> Vec<String> {
    let script = "
import sys, tarfile, hashlib
with tarfile.open(sys.argv[1]) as t:
    for m in t:
        xattrs = {k: v for k, v in m.pax_headers.items() if k.startswith('SCHILY')}
        data = hashlib.sha256(t.extractfile(m).read()).hexdigest()[:8] if m.isreg() else ''
        print(m.name, m.type.decode(), oct(m.mode), m.uid, m.gid, m.size, m.mtime, m.linkname,
              m.devmajor, m.devminor, data, *map(str, xattrs.items()), sep='|')
";
    let output = Command::new("python3").args(["-c", script]).arg(archive).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn packed(dir: &Dir, whiteouts: Whiteouts) -> Vec<u8> {
    let mut archive = Vec::new();
    let options = PackOptions { whiteouts, clamp_mtime: None };
    let packed = pack(dir, &mut archive, options).unwrap();
    assert_eq!(packed.bytes, archive.len() as u64);
    archive
}

fn listing(dir: &Dir, whiteouts: Whiteouts) -> Vec<String> {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("t.tar");
    std::fs::write(&path, packed(dir, whiteouts)).unwrap();
    python_listing(&path)
}

/// Makes everything in the tree as old as the first day of 2001.
fn age(root: &Path) {
    let status = Command::new("find")
        .arg(root)
        .args(["-exec", "touch", "-h", "-d", "2001-01-01T00:00:00.75Z", "{}", "+"])
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn python_reads_what_was_packed() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    let dir = Dir::open(root).unwrap();
    std::fs::create_dir(root.join("d")).unwrap();
    std::fs::write(root.join("d/f"), "content").unwrap();
    std::fs::write(root.join("d-first"), "").unwrap();
    std::fs::hard_link(root.join("d/f"), root.join("d/g")).unwrap();
    symlink("f", root.join("d/l")).unwrap();
    let long = "x".repeat(150);
    std::fs::write(root.join("d").join(&long), "long").unwrap();
    std::fs::write(root.join("größe"), "").unwrap();
    std::fs::set_permissions(root.join("d/f"), std::fs::Permissions::from_mode(0o4750)).unwrap();
    let owner = Some(Owner { uid: 3_000_000, gid: 7 });
    let attributes = Attributes { mode: Some(0o1777), owner, mtime: None };
    dir.mkdir(Path::new("e"), &attributes).unwrap();
    dir.make_node(Path::new("e/fifo"), FileKind::Fifo, &Attributes::default()).unwrap();
    let device = FileKind::CharDevice { major: 1, minor: 3 };
    dir.make_node(Path::new("e/null"), device, &Attributes::default()).unwrap();
    std::os::unix::net::UnixListener::bind(root.join("e/socket")).unwrap();
    dir.set_xattr(Path::new("d/f"), b"user.note", b"hi").unwrap();
    age(root);
    let time = "978307200";
    let sha = "ed7002b4";
    assert_eq!(
        listing(&dir, Whiteouts::None),
        [
            format!("d|5|0o755|0|0|0|{time}||0|0|"),
            format!("d/f|0|0o4750|0|0|7|{time}||0|0|{sha}|('SCHILY.xattr.user.note', 'hi')"),
            format!("d/g|1|0o4750|0|0|0|{time}|d/f|0|0||('SCHILY.xattr.user.note', 'hi')"),
            format!("d/l|2|0o777|0|0|0|{time}|f|0|0|"),
            format!("d/{long}|0|0o644|0|0|4|{time}||0|0|fc66f021"),
            format!("d-first|0|0o644|0|0|0|{time}||0|0|e3b0c442"),
            format!("e|5|0o1777|3000000|7|0|{time}||0|0|"),
            format!("e/fifo|6|0o644|0|0|0|{time}||0|0|"),
            format!("e/null|3|0o644|0|0|0|{time}||1|3|"),
            format!("größe|0|0o644|0|0|0|{time}||0|0|e3b0c442"),
        ]
    );
    assert!(listing(&dir, Whiteouts::Overlay).iter().all(|line| !line.contains("user.note")));
    assert_eq!(packed(&dir, Whiteouts::None), packed(&dir, Whiteouts::None));
}

#[test]
fn deletions_of_an_overlay_become_whiteouts() {
    let temp = tempfile::tempdir().unwrap();
    let dir = Dir::open(temp.path()).unwrap();
    let whiteout = FileKind::CharDevice { major: 0, minor: 0 };
    dir.mkdir_all(Path::new("d/new"), &Attributes::default()).unwrap();
    dir.make_node(Path::new("d/gone"), whiteout, &Attributes::default()).unwrap();
    std::fs::write(temp.path().join("d/!f"), "").unwrap();
    dir.set_xattr(Path::new("d/new"), b"trusted.overlay.opaque", b"y").unwrap();
    dir.set_xattr(Path::new("d"), b"trusted.overlay.impure", b"y").unwrap();
    std::fs::write(temp.path().join("d/new/!x"), "").unwrap();
    let names: Vec<String> = listing(&dir, Whiteouts::Overlay)
        .iter()
        .map(|line| line.split('|').take(3).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        names,
        [
            "d 5 0o755",
            "d/!f 0 0o644",
            "d/.wh.gone 0 0o0",
            "d/new 5 0o755",
            "d/new/.wh..wh..opq 0 0o0",
            "d/new/!x 0 0o644"
        ]
    );
}

#[test]
fn times_are_clamped() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("f"), "").unwrap();
    let dir = Dir::open(temp.path()).unwrap();
    let clamp_mtime = Some(Timestamp { seconds: 500, nanoseconds: 0 });
    let plan =
        PackPlan::new(&dir, PackOptions { whiteouts: Whiteouts::None, clamp_mtime }).unwrap();
    assert_eq!(plan.entries()[0].mtime, 500);
}

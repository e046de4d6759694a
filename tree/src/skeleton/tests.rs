use std::os::fd::AsFd as _;

use super::*;
use crate::dir::Dir;
use crate::pack::{PackOptions, Plan, Whiteouts};
use crate::tar_writer::{Fields, encode};
use crate::unpack::{UnpackOptions, unpack};

/// Returns an archive with the given entries: type, name, and target or empty.
fn archive(entries: &[(u8, String, String)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, (kind, name, link)) in entries.iter().enumerate() {
        bytes.extend(encode(&Fields {
            name: name.as_bytes(),
            kind: *kind,
            link: link.as_bytes(),
            mode: 0o700 | (number as u32 & 0o77),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            size: 0,
            mtime: 1_000_000 + number as i64,
            device: (0, 0),
            xattrs: &[],
        }));
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn list(archives: &[Vec<u8>]) -> Option<Skeleton> {
    let mut skeleton = Skeleton::default();
    for archive in archives {
        let manifest = Manifest::read(&mut archive.as_slice(), None).ok()?;
        let manifest = Manifest::from_bytes(manifest.as_bytes().to_vec());
        if !skeleton.add(&manifest) {
            return None;
        }
    }
    Some(skeleton)
}

/// The entry at a path: `None` if it is uncertain, `Some(None)` if it doesn't exist.
type FoundEntry = Option<Option<(FileKind, u32, Owner)>>;

/// Returns the entry and the real path of a path in a tree. Times are left out, since those of
/// parents without entries are unknown.
fn told(tree: &dyn Below, path: &str) -> (FoundEntry, Option<PathBuf>) {
    let entry = tree.entry(path.as_ref()).ok().map(|found| {
        found.map(|found| match found.kind {
            FileKind::Directory => (found.kind, found.mode, owner_of(&found)),
            FileKind::Symlink => (found.kind, 0, Owner::default()),
            _ => (FileKind::File, 0, Owner::default()),
        })
    });
    (entry, tree.real_path(path.as_ref()).ok())
}

/// A user other than root owns the parents without entries.
fn owner_of(found: &Metadata) -> Owner {
    if rustix::process::geteuid().is_root() { found.owner } else { Owner::default() }
}

struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % most
    }

    fn path(&mut self) -> String {
        let depth = 1 + self.below(3);
        let names: Vec<&str> = (0..depth).map(|_| ["a", "b", "c"][self.below(3)]).collect();
        names.join("/")
    }

    fn entry(&mut self) -> (u8, String, String) {
        let path = self.path();
        let (parent, name) = path.rsplit_once('/').unwrap_or((".", &path));
        match self.below(24) {
            0..=10 => (b'5', path, String::new()),
            11..=14 => (b'0', path, String::new()),
            15 | 16 => {
                (b'2', path, ["a", "/b", "../c", "b/c", "../../..", "none"][self.below(6)].into())
            }
            17 => (b'1', path, self.path()),
            18..=20 => (b'0', format!("{parent}/.wh.{name}"), String::new()),
            21 => (b'0', format!("{parent}/.wh..wh..opq"), String::new()),
            _ => (b'6', path, String::new()),
        }
    }
}

fn paths() -> Vec<String> {
    let names = ["a", "b", "c", "none"];
    let mut paths = vec!["/".to_owned()];
    for first in names {
        paths.push(format!("/{first}"));
        for second in names {
            paths.push(format!("/{first}/{second}"));
            paths.extend(names.iter().map(|third| format!("/{first}/{second}/{third}")));
        }
    }
    paths
}

#[test]
fn skeletons_tell_what_unpacking_makes() {
    let (mut random, mut told_of, rounds) = (Random(7), 0, 800);
    for round in 0..rounds {
        let mut layer = || (0..=random.below(6)).map(|_| random.entry()).collect::<Vec<_>>();
        let entries: Vec<_> = (0..3).map(|_| layer()).collect();
        let archives: Vec<_> = entries.iter().map(|entries| archive(entries)).collect();
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        rustix::fs::fchmod(dir.as_fd(), rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
        let options = UnpackOptions { whiteouts: true, ..UnpackOptions::default() };
        let unpacked = archives.iter().all(|it| unpack(&mut it.as_slice(), &dir, options).is_ok());
        let Some(skeleton) = list(&archives) else { continue };
        assert!(unpacked, "round {round}: {entries:?}");
        told_of += 1;
        for path in paths().iter().skip(1) {
            assert_eq!(
                told(&skeleton, path),
                told(&dir, path),
                "round {round}, {path}: {entries:?}"
            );
        }
    }
    // Most archives are unusual: one entry behind a link is enough.
    assert!(told_of > rounds / 8, "{told_of} of {rounds}");
}

#[test]
fn directories_have_what_their_last_entry_says() {
    let entry = |kind, name: &str| (kind, name.to_owned(), String::new());
    let first = archive(&[entry(b'5', "usr/"), entry(b'5', "usr/lib/"), entry(b'0', "usr/x")]);
    let second = archive(&[entry(b'0', "opt/y"), entry(b'5', "usr/")]);
    let skeleton = list(&[first, second]).unwrap();
    let of = |path: &str| skeleton.entry(path.as_ref()).unwrap().unwrap();
    assert_eq!((of("/usr").mode, of("/usr").mtime.seconds), (0o701, 1_000_001));
    assert_eq!((of("/usr/lib").mode, of("/usr/lib").mtime.seconds), (0o701, 1_000_001));
    assert_eq!((of("/opt").mode, of("/opt").mtime.seconds), (0o755, 0));
    assert!(of("/").is_dir() && of("/usr/x").is_file());
}

#[test]
fn what_is_no_manifest_makes_no_skeleton() {
    let bytes = archive(&[(b'5', "a".to_owned(), String::new()), (b'2', "b".into(), "a".into())]);
    let manifest = Manifest::read(&mut bytes.as_slice(), None).unwrap();
    let whole = manifest.as_bytes();
    for end in 1..whole.len() {
        let mut skeleton = Skeleton::default();
        let is_entry = end == 5 + 1 + 12 + 12;
        assert_eq!(skeleton.add(&Manifest::from_bytes(whole[..end].to_vec())), is_entry, "{end}");
    }
    assert!(Manifest::read(&mut bytes.as_slice(), Some(1)).is_err());
    assert!(Manifest::read(&mut &bytes[..700], None).is_err());
}

#[test]
fn plans_tell_what_their_archives_tell() {
    let temp = tempfile::tempdir().unwrap();
    let at = |path: &str| temp.path().join(path);
    std::fs::create_dir_all(at("a/b")).unwrap();
    std::fs::write(at("a/f"), "text").unwrap();
    std::fs::hard_link(at("a/f"), at("a/g")).unwrap();
    std::os::unix::fs::symlink("../a", at("a/b/l")).unwrap();
    let dir = Dir::open(temp.path()).unwrap();
    let whole = crate::Attributes { mtime: Some(Timestamp::default()), ..Default::default() };
    for (path, kind) in [("a/f", FileKind::File), ("a/b/l", FileKind::Symlink)] {
        whole.apply_to_entry(dir.as_fd(), path.as_bytes(), kind).unwrap();
    }
    let options = PackOptions { whiteouts: Whiteouts::None, clamp_mtime: None };
    let plan = Plan::new(&dir, options).unwrap();
    let mut bytes = Vec::new();
    plan.write(&mut bytes).unwrap();
    let read = Manifest::read(&mut bytes.as_slice(), None).unwrap();
    let nodes = |manifest: &Manifest| {
        let mut skeleton = Skeleton::default();
        assert!(skeleton.add(manifest));
        format!("{skeleton:?}")
    };
    assert_eq!(nodes(&plan.manifest()), nodes(&read));
}

#[test]
fn trees_get_the_fractions_of_times_that_archives_lack() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::create_dir(temp.path().join("d")).unwrap();
    for name in ["d/f", "d/other"] {
        std::fs::write(temp.path().join(name), "text").unwrap();
    }
    std::os::unix::fs::symlink("f", temp.path().join("d/l")).unwrap();
    let dir = Dir::open(temp.path()).unwrap();
    let set = |path: &str, nanoseconds| {
        let mtime = Some(Timestamp { seconds: 7, nanoseconds });
        let kind = dir.metadata(path.as_ref(), false).unwrap().unwrap().kind;
        let attributes = crate::Attributes { mtime, ..Default::default() };
        attributes.apply_to_entry(dir.as_fd(), path.as_bytes(), kind).unwrap();
    };
    let time = |path: &str| dir.metadata(path.as_ref(), false).unwrap().unwrap().mtime;
    set("d/f", 5);
    set("d/l", 6);
    let options = PackOptions { whiteouts: Whiteouts::None, clamp_mtime: None };
    let manifest = Plan::new(&dir, options).unwrap().manifest();
    let bytes = manifest.as_bytes().to_vec();
    for path in ["d/f", "d/l"] {
        set(path, 0);
    }
    set("d/other", 9);
    Manifest::from_bytes(bytes).refine(&dir).unwrap();
    let fractions = ["d/f", "d/l", "d/other"].map(|path| time(path).nanoseconds);
    assert_eq!(fractions, [5, 6, 9]);
}

#[test]
fn listings_of_older_versions_are_read() {
    let text = |text: &[u8]| [&(text.len() as u32).to_le_bytes()[..], text].concat();
    let old = [&b"f"[..], &text(b"a"), b"l", &text(b"b"), &text(b"a"), b"n", &text(b"c")].concat();
    let manifest = Manifest::from_bytes(old);
    assert!(!manifest.is_detailed());
    let mut skeleton = Skeleton::default();
    assert!(skeleton.add(&manifest));
    let found = skeleton.entry(Path::new("/a")).unwrap().unwrap();
    assert!(found.is_file() && found.size == UNKNOWN);
    assert_eq!(skeleton.content(Path::new("/a")).unwrap(), None);
    assert!(skeleton.wanted().is_empty());
}

//! Random edits of a context, copied as a difference and as a whole.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, FileType, mknodat};

use super::*;
use crate::changes::Changes;
use crate::copy::tests::instruction;
use crate::copy::{CopiedFiles, copy_recorded};
use crate::mode::ModeChange;
use crate::overlay::{Overlay, Upper};
use crate::pattern::PatternMatcher;
use crate::stamp::survey_copied;
use crate::walk;
use crate::{Owner, Plan};

/// The number of sequences of edits, and of edits in each.
const SEQUENCES: u64 = 200;
const EDITS: u64 = 4;

/// A generator of pseudorandom numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % limit
    }

    /// Returns a path of up to three names.
    fn path(&mut self) -> PathBuf {
        let depth = self.below(3);
        let mut path: PathBuf = (0..depth).map(|_| format!("d{}", self.below(3))).collect();
        path.push(format!("{}{}", ["f", "d", "g."][self.below(3) as usize], self.below(4)));
        path
    }
}

/// A context, a tree below the copies, and what copies have made of the first version.
struct Scene {
    temp: tempfile::TempDir,
    random: Random,
    /// The number of trees made so far.
    made: u32,
    /// The time of the last edit, in seconds since 1970.
    clock: u64,
    begun: i64,
}

impl Scene {
    fn new(seed: u64) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let begun = begun.cast_signed();
        let mut scene = Self { temp, random, made: 0, clock: 1_000_000_000, begun };
        for (path, text) in [("d0/f0", "below"), ("src/f1", "below"), ("etc/passwd", "root")] {
            let path = scene.at("below").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::create_dir(scene.at("context")).unwrap();
        for _ in 0..30 {
            scene.edit();
        }
        scene.age();
        // The sources of a record must be older than a tick of the clock.
        std::thread::sleep(Duration::from_millis(60));
        scene
    }

    fn at(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Returns an empty directory.
    fn fresh(&mut self) -> PathBuf {
        self.made += 1;
        let path = self.at(&format!("made-{}", self.made));
        fs::create_dir(&path).unwrap();
        path
    }

    /// Makes one random change of the context. Does nothing if it isn't possible.
    fn edit(&mut self) {
        let context = self.at("context");
        let path = context.join(self.random.path());
        let other = context.join(self.random.path());
        let _ = fs::create_dir_all(path.parent().unwrap());
        let kind = self.random.below(12);
        let is_replaced = kind >= 4;
        if is_replaced && kind < 10 {
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        }
        // Writing to a pipe would block.
        let is_writable = fs::metadata(&path).map_or(true, |found| found.is_file());
        let _ = match kind {
            0..=2 if !is_writable => Ok(()),
            0..=2 => fs::write(&path, vec![kind as u8; self.random.below(30_000) as usize]),
            3 => {
                let mode = [0o600, 0o755, 0o4755, 0o700][self.random.below(4) as usize];
                fs::set_permissions(&path, PermissionsExt::from_mode(mode))
            }
            4 => Ok(()),
            5 => symlink("f0", &path),
            6 => fs::hard_link(&other, &path),
            7 => fs::create_dir(&path).and_then(|()| fs::write(path.join("f0"), "in")),
            8 => fs::write(&path, ""),
            9 => {
                let made = mknodat(CWD, &path, FileType::Fifo, 0o640.into(), 0);
                made.map_err(Into::into)
            }
            _ => fs::rename(&path, &other),
        };
    }

    /// Sets the times of changed entries to times before the test.
    fn age(&mut self) {
        let dir = Dir::open(&self.at("context")).unwrap();
        for entry in walk::entries(View::of(&dir), Path::new("/")).unwrap() {
            if entry.metadata.mtime.seconds >= self.begun {
                self.clock += 1;
                let nanoseconds = (self.clock % 2) as u32 * 5;
                let seconds = self.clock.cast_signed();
                let mtime = Some(Timestamp { seconds, nanoseconds });
                let path = names::rooted(&entry.path.to_vec());
                let attributes = Attributes { mtime, ..Attributes::default() };
                dir.set_attributes(&path, &attributes).unwrap();
            }
        }
    }

    fn mount(&mut self, upper: &Path, lowers: &[&Path]) -> Dir {
        let work = self.fresh();
        let upper = Some(Upper { fs: upper.to_owned(), work });
        let lowers = lowers.iter().map(|lower| lower.to_path_buf()).collect();
        Overlay { lowers, upper }.open().unwrap()
    }

    /// Describes a merged tree, and the tar of its uppermost layer.
    fn describe(&self, layer: &[&Path], changes: &Changes) -> Vec<String> {
        let shown = |lowers: &[&Path]| {
            let lowers: Vec<PathBuf> = lowers.iter().map(|lower| lower.to_path_buf()).collect();
            match lowers.as_slice() {
                [only] => Dir::open(only).unwrap(),
                _ => Overlay { lowers, upper: None }.open().unwrap(),
            }
        };
        let below = self.at("below");
        let merged = shown(&[layer, &[below.as_path()]].concat());
        let mut lines = self.describe_tree(&merged);
        let tree = shown(layer);
        let mut tar = Vec::new();
        Plan::of_changes(&tree, changes).unwrap().write(&mut tar).unwrap();
        let mut archive = tar::Archive::new(tar.as_slice());
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut header = entry.header().clone();
            if header.mtime().unwrap() >= self.begun.cast_unsigned() {
                header.set_mtime(1);
                header.set_cksum();
            }
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            lines.push(format!("{path} {:?} {:?}", header.as_bytes(), blake3::hash(&content)));
        }
        lines
    }

    fn describe_tree(&self, merged: &Dir) -> Vec<String> {
        let mut firsts = HashMap::new();
        let mut lines = Vec::new();
        for entry in walk::entries(View::of(merged), Path::new("/")).unwrap() {
            let path = names::rooted(&entry.path.to_vec());
            let Metadata { kind, mode, owner, size, mtime, inode, links, .. } = entry.metadata;
            let mtime = (mtime.seconds < self.begun).then_some(mtime);
            let size = if kind == FileKind::Directory { 0 } else { size };
            let links = if kind == FileKind::Directory { 0 } else { links };
            let first = firsts.entry(inode).or_insert(path.clone()).clone();
            let content = match kind {
                FileKind::File => content(merged, &path),
                _ => String::new(),
            };
            let target = String::from_utf8_lossy(&entry.target).into_owned();
            lines.push(format!(
                "{path:?} {kind:?} {mode:o} {owner:?} {size} {mtime:?} {links} {first:?} {target} {content}"
            ));
        }
        lines
    }
}

/// Returns a hash of the content of a file.
fn content(dir: &Dir, path: &Path) -> String {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut dir.open_file(path).unwrap(), &mut bytes).unwrap();
    blake3::hash(&bytes).to_string()
}

/// Returns the copies of a sequence.
fn copies(number: u64) -> Vec<CopyOptions> {
    let owner = Some(Owner { uid: 7, gid: 9 });
    match number % 6 {
        0 => vec![instruction(".", "/src")],
        1 => vec![instruction(".", "/")],
        2 => vec![instruction("d0", "/new/place/"), instruction("d1", "/new/place/")],
        3 => vec![CopyOptions { owner, ..instruction(".", "/src/") }],
        4 => vec![CopyOptions {
            mode: Some(ModeChange::parse("u+x,go-r").unwrap()),
            mtime: Some(Timestamp { seconds: 77, nanoseconds: 0 }),
            ..instruction(".", "/a/b/c")
        }],
        _ => vec![instruction(".", "/x"), instruction("d*", "/x/d0/")],
    }
}

/// The versions of a layer that a sequence has compared.
#[derive(Default)]
struct Count {
    differences: u32,
    wholes: u32,
}

/// Edits a context and copies it in both ways. Adds to the number of comparisons.
fn run(number: u64, count: &mut Count) {
    let mut scene = Scene::new(number);
    let options = copies(number);
    let excludes = PatternMatcher::new(&["g.3".to_owned()]).unwrap();
    let (context, below) = (Dir::open(&scene.at("context")).unwrap(), scene.at("below"));
    let owner = Some(Owner::default());
    let view = View { excludes: Some(&excludes), owner, xattrs: false, ..View::of_layer(&context) };
    let earlier = scene.fresh();
    let mut files = CopiedFiles::new();
    let whole = |dest: &Dir, mut files: Option<&mut CopiedFiles>| {
        let mut copied = options.iter();
        copied.try_for_each(|one| copy_recorded(view, dest, one, files.as_deref_mut()))
    };
    let dest = scene.mount(&earlier, &[&below]);
    // Something may be in the way of a copy.
    let Ok(()) = whole(&dest, Some(&mut files)) else { return };
    drop(dest);
    let record = survey_copied(&Dir::open(&earlier).unwrap(), &files).unwrap().record;
    let record = record.map(|record| CopyRecord::from_bytes(&record).unwrap());
    for _ in 0..EDITS {
        (0..=scene.random.below(3)).for_each(|_| scene.edit());
        scene.age();
        let upper = scene.fresh();
        let dest = scene.mount(&upper, &[&below]);
        let Ok(()) = whole(&dest, None) else { continue };
        drop(dest);
        let changes = Changes::find(&Dir::open(&upper).unwrap(), std::slice::from_ref(&below));
        let expected = scene.describe(&[&upper], &changes.unwrap());
        let (Some(record), copied) = (&record, options.iter()) else { continue };
        let copied: Vec<_> = copied.map(|one| (view, one.clone())).collect();
        let below_dir = Dir::open(&below).unwrap();
        let Some(difference) = difference_of_copies(&copied, &below_dir, record).unwrap() else {
            count.wholes += 1;
            continue;
        };
        count.differences += 1;
        let (changes, small) = (difference.changes().clone(), scene.fresh());
        let dest = scene.mount(&small, &[&earlier, &below]);
        difference.write(&dest).unwrap();
        drop(dest);
        let found = scene.describe(&[&small, &earlier], &changes);
        assert_eq!(found, expected, "sequence {number}, {options:?}");
    }
}

#[test]
fn differences_are_what_whole_copies_make() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut count = Count::default();
    for number in 0..SEQUENCES {
        run(number, &mut count);
    }
    assert!(count.differences > 300 && count.wholes > 10, "{} {}", count.differences, count.wholes);
}

#[test]
fn little_is_written_for_a_small_change() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    for directory in ["context/a", "context/b", "earlier", "small", "work"] {
        fs::create_dir_all(at(directory)).unwrap();
    }
    for number in 0..50 {
        fs::write(at(&format!("context/a/{number}")), "text").unwrap();
        fs::write(at(&format!("context/b/{number}")), "text").unwrap();
    }
    std::thread::sleep(Duration::from_millis(100));
    let context = Dir::open(&at("context")).unwrap();
    let view = View { xattrs: false, ..View::of(&context) };
    let options = instruction(".", "/");
    let mut files = CopiedFiles::new();
    let dest = Dir::open(&at("earlier")).unwrap();
    copy_recorded(view, &dest, &options, Some(&mut files)).unwrap();
    let record = survey_copied(&dest, &files).unwrap().record.unwrap();
    let record = CopyRecord::from_bytes(&record).unwrap();
    assert_eq!((record.len(), record.is_empty()), (103, false));
    fs::write(at("context/a/7"), "other").unwrap();
    fs::remove_file(at("context/b/8")).unwrap();
    let empty = Dir::open(&at("work")).unwrap();
    let difference = difference_of_copies(&[(view, options)], &empty, &record);
    let difference = difference.unwrap().unwrap();
    let upper = Some(Upper { fs: at("small"), work: at("work") });
    let dest = Overlay { lowers: vec![at("earlier")], upper }.open().unwrap();
    difference.write(&dest).unwrap();
    let read = |path: &str| fs::read_to_string(at("small").join(path));
    assert_eq!(read("a/7").unwrap(), "other");
    assert!(fs::symlink_metadata(at("small/b/8")).is_ok());
    let count = |path: &str| fs::read_dir(at("small").join(path)).unwrap().count();
    assert_eq!((count("a"), count("b"), count("")), (1, 1, 2));
}

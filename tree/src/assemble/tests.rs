use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt, symlink};

use super::*;
use crate::TreeState;

struct Room(tempfile::TempDir);

impl Room {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn dir(&self, name: &str) -> Dir {
        std::fs::create_dir_all(self.path(name)).unwrap();
        Dir::open(&self.path(name)).unwrap()
    }

    /// Creates two layers. `mark` creates the mark of a deletion.
    fn layers(&self, mark: impl Fn(&Path)) -> Vec<PathBuf> {
        let (low, top) = (self.path("low"), self.path("top"));
        for directory in ["low/d/deep", "low/same", "low/file-to-be", "top/d", "top/linked"] {
            std::fs::create_dir_all(self.path(directory)).unwrap();
        }
        for file in ["d/kept", "d/gone", "d/deep/file", "same/file", "one"] {
            std::fs::write(low.join(file), file).unwrap();
        }
        std::fs::hard_link(low.join("one"), low.join("two")).unwrap();
        symlink("same", low.join("linked")).unwrap();
        std::fs::set_permissions(low.join("d"), PermissionsExt::from_mode(0o711)).unwrap();
        std::fs::set_permissions(top.join("d"), PermissionsExt::from_mode(0o2750)).unwrap();
        for gone in ["d/gone", "d/deep", "linked/file"] {
            mark(&top.join(gone));
        }
        std::fs::write(top.join("d/new"), "new").unwrap();
        std::fs::write(top.join("file-to-be"), "file").unwrap();
        vec![top, low]
    }
}

/// Marks a deletion with overlayfs's device.
fn by_device(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
}

fn by_file(path: &Path) {
    let name = format!(".kiln-wh.{}", path.file_name().unwrap().to_str().unwrap());
    let mark = path.parent().unwrap().join(name);
    std::fs::write(&mark, "").unwrap();
    std::fs::set_permissions(mark, PermissionsExt::from_mode(0o000)).unwrap();
}

fn listing(dir: &Dir) -> Vec<String> {
    let entries = walk::entries(View::of(dir), Path::new("/")).unwrap();
    entries.iter().skip(1).map(|entry| String::from_utf8(entry.path.to_vec()).unwrap()).collect()
}

#[test]
fn layers_are_laid_one_on_top_of_the_other() {
    let marks: [fn(&Path); 2] = [by_device, by_file];
    for (mark, files) in marks.iter().zip([Files::Shared, Files::Own]) {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let room = Room::new();
        let layers = room.layers(mark);
        let dest = room.dir("dest");
        assemble(&layers, &dest, files).unwrap();
        assert_eq!(
            listing(&dest),
            ["d", "d/kept", "d/new", "file-to-be", "linked", "one", "same", "same/file", "two"]
        );
        let at = |name: &str| std::fs::symlink_metadata(room.path("dest").join(name)).unwrap();
        assert_eq!(at("d").mode() & 0o7777, 0o2750);
        assert!(at("linked").is_dir(), "the deletion below a link went where the link leads");
        let is_shared = |name: &str, layer: usize| {
            at(name).ino() == std::fs::metadata(layers[layer].join(name)).unwrap().ino()
        };
        let shared = files == Files::Shared;
        assert_eq!((is_shared("d/kept", 1), is_shared("d/new", 0)), (shared, shared));
        assert_eq!(at("one").ino() == at("two").ino(), shared);
    }
}

#[test]
fn what_was_touched_becomes_a_layer() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let room = Room::new();
    let layers = room.layers(by_device);
    let dest = room.dir("dest");
    assemble(&layers, &dest, Files::Own).unwrap();
    let before = TreeState::of(&dest).unwrap();
    before.settle(&room.dir(".")).unwrap();
    let at = |name: &str| room.path("dest").join(name);
    std::fs::remove_dir_all(at("same")).unwrap();
    std::fs::write(at("d/kept"), "changed").unwrap();
    std::fs::hard_link(at("one"), at("three")).unwrap();
    let touched = before.touched(&TreeState::of(&dest).unwrap());
    let into = room.dir("into");
    let extracted = extract(&dest, &touched, &into, false).unwrap();
    assert_eq!(listing(&into), ["d", "d/kept", "one", "same", "three"]);
    assert!(!extracted.file_marks);
    let new = |name: &str| std::fs::symlink_metadata(room.path("into").join(name)).unwrap();
    assert!(new("same").file_type().is_char_device());
    assert_eq!(new("one").ino(), new("three").ino());
    assert_eq!(new("d").mode() & 0o7777, 0o2750);

    assert_eq!(extracted.linked, [b"one".to_vec(), b"three".to_vec()]);
    let time = std::fs::metadata(room.path("dest")).unwrap().mtime_nsec();
    part(&dest, &extracted.linked).unwrap();
    assert_ne!(std::fs::metadata(at("one")).unwrap().ino(), at("three").metadata().unwrap().ino());
    assert_eq!(std::fs::read(at("three")).unwrap(), b"one");
    assert_eq!(std::fs::metadata(room.path("dest")).unwrap().mtime_nsec(), time);

    let again = room.dir("again");
    let chain = [vec![room.path("into")], layers].concat();
    assemble(&chain, &again, Files::Own).unwrap();
    assert_eq!(listing(&again), listing(&dest));
}

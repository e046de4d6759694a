use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use kiln_tree::{Dir, PackOptions, Whiteouts};

use super::kept::key;
use super::*;

const OPTIONS: PackOptions = PackOptions { whiteouts: Whiteouts::None, clamp_mtime: None };
const ALL: [Compression; 3] = [Compression::Gzip, Compression::Zstd, Compression::Uncompressed];

/// A generator of numbers for edits and contents.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % end
    }

    /// Returns content, of which some can be compressed.
    fn content(&mut self) -> Vec<u8> {
        let size = match self.below(40) {
            0 => 2_100_000 + self.below(100_000),
            1..4 => self.below(300_000),
            _ => self.below(20_000),
        };
        let (step, seed) = (1 + self.below(300), self.below(256));
        (0..size).map(|place| (place / step * (seed + place / 7) + seed) as u8).collect()
    }
}

/// A tree whose files are replaced, and never changed in place, like those of layers. Old files
/// stay elsewhere, so that no file gets the inode of another one.
struct Work {
    temp: tempfile::TempDir,
    random: Random,
    moved: usize,
}

impl Work {
    fn new(seed: u64) -> Self {
        let temp = tempfile::tempdir().unwrap();
        for name in ["tree", "old"] {
            fs::create_dir(temp.path().join(name)).unwrap();
        }
        let mut work = Self { temp, random: Random(seed), moved: 0 };
        for _ in 0..150 {
            work.add();
        }
        for number in 0..8 {
            let directory = work.tree().join(format!("d{number}"));
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("big"), vec![number; 600_000]).unwrap();
        }
        work
    }

    fn tree(&self) -> PathBuf {
        self.temp.path().join("tree")
    }

    fn some_path(&mut self) -> PathBuf {
        let directory = self.tree().join(format!("d{}", self.random.below(8)));
        fs::create_dir_all(&directory).unwrap();
        directory.join(format!("f{}", self.random.below(40)))
    }

    fn add(&mut self) {
        let (path, content) = (self.some_path(), self.random.content());
        self.remove(&path);
        fs::write(path, content).unwrap();
    }

    fn remove(&mut self, path: &Path) {
        if path.symlink_metadata().is_ok() {
            self.moved += 1;
            fs::rename(path, self.temp.path().join(format!("old/{}", self.moved))).unwrap();
        }
    }

    /// Makes one random edit.
    fn edit(&mut self) {
        let (path, other) = (self.some_path(), self.some_path());
        let is_there = path.symlink_metadata().is_ok();
        match self.random.below(8) {
            0 => self.remove(&path),
            1 if is_there && path != other => {
                self.remove(&other);
                fs::rename(path, other).unwrap();
            }
            2 if is_there && !path.is_symlink() => {
                let mode = 0o600 + self.random.below(64) as u32;
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            }
            3 if is_there && path != other && !path.is_dir() => {
                self.remove(&other);
                fs::hard_link(path, other).unwrap();
            }
            4 => {
                self.remove(&path);
                symlink("target", path).unwrap();
            }
            5 => {
                self.remove(&path);
                fs::create_dir(path).unwrap();
            }
            _ => self.add(),
        }
    }
}

struct Case {
    temp: tempfile::TempDir,
    store: Store,
}

impl Case {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(temp.path()).unwrap();
        Self { temp, store }
    }

    fn pack(&self, plan: &Plan<'_>, compression: Compression) -> (Digest, LayerBlob) {
        let packing = Packing { compression, ..Packing::default() };
        let (store, progress) = (&self.store, &Reporter::silent());
        let context = PackContext { store, packing, progress, name: "test" };
        context.pack(plan, PlannedFiles::Layer).unwrap()
    }

    fn bytes(&self, blob: &LayerBlob) -> Vec<u8> {
        fs::read(self.store.content().path(&blob.digest)).unwrap()
    }
}

/// Packs a tar as a stream, with a number of threads.
fn streamed(tar: &[u8], compression: Compression, threads: usize) -> Vec<u8> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let packing = Packing { compression, ..Packing::default() };
    pool.install(|| {
        let mut compressor = Compressor::new(Vec::new(), packing);
        compressor.write_all(tar).unwrap();
        compressor.finish().unwrap()
    })
}

fn tar_of(plan: &Plan<'_>) -> Vec<u8> {
    let mut tar = Vec::new();
    plan.write(&mut tar).unwrap();
    tar
}

#[test]
fn edited_trees_pack_to_the_same_bytes_as_new_ones() {
    for seed in 0..2 {
        let (mut work, case) = (Work::new(seed), Case::new());
        let mut last = Vec::new();
        for round in 0..6 {
            for _ in 0..work.random.below(4) {
                work.edit();
            }
            let dir = Dir::open(&work.tree()).unwrap();
            let plan = Plan::new(&dir, OPTIONS).unwrap();
            let tar = tar_of(&plan);
            for compression in ALL {
                let (diff_id, blob) = case.pack(&plan, compression);
                assert_eq!(diff_id, Digest::of(&tar), "{seed}, {round}, {compression:?}");
                let threads = 1 + work.random.below(4) as usize;
                let expected = streamed(&tar, compression, threads);
                let bytes = case.bytes(&blob);
                assert!(bytes == expected, "{seed}, {round}, {compression:?}");
                assert_eq!(blob.digest, Digest::of(&expected));
                last.push(blob.digest);
            }
            if round % 3 == 2 {
                // Some of the blobs go, as by pruning.
                let gone = work.random.below(last.len() as u64) as usize;
                case.store.content().remove_corrupt(&last[gone]).unwrap();
            }
        }
        assert!(case.store.check().unwrap().is_empty());
    }
}

/// Returns the keys of a plan's segments. All digests must be known.
fn keys(store: &Store, plan: &Plan<'_>, compression: Compression) -> Vec<Option<[u8; 32]>> {
    let packing = Packing { compression, ..Packing::default() };
    let segments = plan.segments();
    let digest = |item: usize| {
        let stamp = kiln_store::FileStamp::from(&segments.file(item)?);
        store.cache().file_digests(&[stamp]).unwrap()[0]
    };
    let of_segment = |number| segments.key(number, digest).map(|content| key(&content, packing));
    (0..segments.count()).map(of_segment).collect()
}

#[test]
fn files_before_the_first_change_are_not_read() {
    let (mut work, case) = (Work::new(7), Case::new());
    let dir = Dir::open(&work.tree()).unwrap();
    let plan = Plan::new(&dir, OPTIONS).unwrap();
    let (first, _) = case.pack(&plan, Compression::Gzip);
    let changed = work.tree().join("d7/zzz");
    fs::write(&changed, "new").unwrap();
    let plan = Plan::new(&dir, OPTIONS).unwrap();
    let tar = tar_of(&plan);
    let gone = work.tree().join("d0");
    work.remove(&gone);
    let (diff_id, blob) = case.pack(&plan, Compression::Gzip);
    assert_ne!(diff_id, first);
    assert_eq!(diff_id, Digest::of(&tar));
    assert!(case.bytes(&blob) == streamed(&tar, Compression::Gzip, 2));
}

#[test]
fn damaged_segments_are_not_used() {
    for compression in ALL {
        let (work, case) = (Work::new(3), Case::new());
        let dir = Dir::open(&work.tree()).unwrap();
        let plan = Plan::new(&dir, OPTIONS).unwrap();
        let (_, blob) = case.pack(&plan, compression);
        let content = case.store.content();
        let kept = content.similar_segments(&keys(&case.store, &plan, compression)).unwrap();
        assert!(kept.len() > 3 && kept.iter().all(|kept| kept.blob == blob.digest));
        // The first segment changes, so the others are loaded one by one.
        let mut segments: Vec<_> = kept.into_iter().map(|kept| kept.segment).collect();
        for segment in &mut segments {
            segment.digest[0] ^= 1;
        }
        content.put_segments(&blob.digest, &segments).unwrap();
        fs::write(work.tree().join("a"), "first").unwrap();
        let plan = Plan::new(&dir, OPTIONS).unwrap();
        let tar = tar_of(&plan);
        let (diff_id, blob) = case.pack(&plan, compression);
        assert_eq!(diff_id, Digest::of(&tar));
        assert!(case.bytes(&blob) == streamed(&tar, compression, 2), "{compression:?}");
    }
}

#[test]
fn a_damaged_blob_is_not_used() {
    let (work, case) = (Work::new(4), Case::new());
    let dir = Dir::open(&work.tree()).unwrap();
    let plan = Plan::new(&dir, OPTIONS).unwrap();
    let (_, old) = case.pack(&plan, Compression::Gzip);
    let path = case.store.content().path(&old.digest);
    let mut bytes = fs::read(&path).unwrap();
    bytes[1000] ^= 1;
    fs::write(&path, bytes).unwrap();
    fs::write(work.tree().join("zzz"), "last").unwrap();
    let plan = Plan::new(&dir, OPTIONS).unwrap();
    let (_, blob) = case.pack(&plan, Compression::Gzip);
    assert!(case.bytes(&blob) == streamed(&tar_of(&plan), Compression::Gzip, 2));
    assert_eq!(case.store.content().size(&old.digest).unwrap(), None);
    assert!(case.temp.path().exists());
}

#[test]
fn files_that_change_are_packed_as_they_are() {
    let (work, case) = (Work::new(5), Case::new());
    let dir = Dir::open(&work.tree()).unwrap();
    let path = work.tree().join("d0/f0");
    fs::write(&path, vec![b'x'; 100]).unwrap();
    let plan = Plan::new(&dir, OPTIONS).unwrap();
    fs::write(&path, vec![b'y'; 100]).unwrap();
    let (_, blob) = case.pack(&plan, Compression::Zstd);
    assert!(case.bytes(&blob) == streamed(&tar_of(&plan), Compression::Zstd, 2));
    let context = PackContext {
        store: &case.store,
        packing: Packing::default(),
        progress: &Reporter::silent(),
        name: "test",
    };
    // The header of a tree's file has the planned size.
    fs::write(&path, vec![b'y'; 101]).unwrap();
    assert!(context.pack(&plan, PlannedFiles::Layer).is_err());
}

#[test]
fn the_same_tar_is_copied_as_a_whole() {
    let (work, case) = (Work::new(6), Case::new());
    let dir = Dir::open(&work.tree()).unwrap();
    for compression in ALL {
        let plan = Plan::new(&dir, OPTIONS).unwrap();
        let first = case.pack(&plan, compression);
        let keys = keys(&case.store, &plan, compression);
        assert!(keys.iter().all(Option::is_some));
        let similar = case.store.content().similar_segments(&keys).unwrap();
        assert_eq!(kiln_store::common_start(&similar, &keys), keys.len());
        assert_eq!(case.pack(&plan, compression), first);
    }
    let cancelled = Reporter::silent();
    cancelled.cancel.cancel();
    let context = PackContext {
        store: &Case::new().store,
        packing: Packing::default(),
        progress: &cancelled,
        name: "test",
    };
    let plan = Plan::new(&dir, OPTIONS).unwrap();
    assert!(matches!(context.pack(&plan, PlannedFiles::Layer), Err(Error::Cancelled)));
}

//! A benchmark of examining a context: the walk, and the digest with all or no files remembered.
//!
//! `docs/performance.md` has the figures.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kiln_tree::FileDigests;
use kiln_tree::{Dir, Metadata, Selection, View, content_digest, walk};

/// The shape of the context: the number of directories, the number of files in each, and the size
/// of a file in bytes.
const DIRECTORIES: usize = 20;
const FILES: usize = 100;
const BYTES: usize = 4096;

/// A memory of the digests of all files.
#[derive(Default)]
struct Memory(Mutex<HashMap<u64, [u8; 32]>>);

impl Memory {
    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<u64, [u8; 32]>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl FileDigests for Memory {
    fn get(&self, files: &[&Metadata]) -> Vec<Option<[u8; 32]>> {
        let known = self.known();
        files.iter().map(|file| known.get(&file.inode).copied()).collect()
    }

    fn put(&self, metadata: &Metadata, digest: [u8; 32]) {
        self.known().insert(metadata.inode, digest);
    }
}

fn fill(root: &Path) -> std::io::Result<()> {
    for directory in 0..DIRECTORIES {
        let path = root.join(directory.to_string());
        std::fs::create_dir(&path)?;
        for file in 0..FILES {
            std::fs::write(path.join(file.to_string()), vec![file as u8; BYTES])?;
        }
    }
    Ok(())
}

fn benchmark(criterion: &mut Criterion) {
    let made = tempfile::tempdir().and_then(|temp| fill(temp.path()).map(|()| temp));
    let Ok(temp) = made else { unreachable!("there is no room for the context") };
    let Ok(dir) = Dir::open(temp.path()) else { unreachable!("it was made just now") };
    let view = View { owner: Some(kiln_tree::Owner::default()), xattrs: false, ..View::of(&dir) };
    let everything = [Selection { path: "/".to_owned(), ..Selection::default() }];
    // Files that changed just now are not remembered.
    std::thread::sleep(std::time::Duration::from_millis(100));
    let memory = Memory::default();
    let digest = |known: Option<&dyn FileDigests>| content_digest(view, &everything, known).is_ok();
    assert!(digest(Some(&memory)) && memory.known().len() == DIRECTORIES * FILES);

    let mut group = criterion.benchmark_group("context of 2,000 files");
    group.throughput(Throughput::Elements((DIRECTORIES * FILES) as u64));
    group.bench_function("walk", |bencher| {
        bencher.iter(|| walk::entries(view, "/".as_ref()).map(|entries| entries.len()));
    });
    group.bench_function("digest, all known", |bencher| bencher.iter(|| digest(Some(&memory))));
    group.bench_function("digest, none known", |bencher| bencher.iter(|| digest(None)));
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);

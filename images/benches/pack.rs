//! Benchmarks of packing: of a tar as a stream, once per compression, and of a tree of 20,000 files,
//! cold, unchanged, and with one changed file.
//!
//! `docs/performance.md` lists the figures.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kiln_event::Reporter;
use kiln_images::{Compression, Packing, pack_plan, pack_stream};
use kiln_store::{FileStamp, Store};
use kiln_tree::{CopyOptions, Dir, FileDigests, Metadata, Plan, Selection, View};

/// The size of the packed content: 16 MiB.
const BYTES: usize = 16 << 20;

/// Returns bytes that compress like a source archive: text with occasional stretches of noise.
fn content() -> Vec<u8> {
    let mut state = 1_u64;
    let mut bytes = Vec::with_capacity(BYTES + 64);
    while bytes.len() < BYTES {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let word = state >> 33;
        if bytes.len() % (1 << 20) < (1 << 18) {
            bytes.extend_from_slice(&(word ^ (word << 31)).to_le_bytes());
        } else {
            bytes.extend_from_slice(format!("word{} ", word % 977).as_bytes());
        }
    }
    bytes.truncate(BYTES);
    bytes
}

fn benchmark(criterion: &mut Criterion) {
    let opened = tempfile::tempdir().ok().and_then(|temp| {
        let store = Store::open(temp.path()).ok()?;
        Some((temp, store))
    });
    let Some((_temp, store)) = opened else { unreachable!("there is no room for a store") };
    let content = content();
    let mut group = criterion.benchmark_group("pack 16 MiB");
    group.sample_size(10).throughput(Throughput::Bytes(BYTES as u64));
    for compression in [Compression::Uncompressed, Compression::Gzip, Compression::Zstd] {
        let packing = Packing { compression, ..Packing::default() };
        group.bench_function(compression.name(), |bencher| {
            bencher.iter(|| {
                let mut fill = |sink: &mut dyn Write| {
                    sink.write_all(&content).map_err(|source| kiln_tree::Error::Io {
                        action: "pack",
                        path: "/".into(),
                        source,
                    })
                };
                pack_stream(&store, packing, &Reporter::silent(), &mut fill).is_ok()
            });
        });
    }
    group.finish();
}

/// The digests of files in a store.
struct Digests<'a>(&'a Store);

impl FileDigests for Digests<'_> {
    fn get(&self, files: &[&Metadata]) -> Vec<Option<[u8; 32]>> {
        let stamps: Vec<FileStamp> = files.iter().map(|file| FileStamp::from(*file)).collect();
        self.0.cache().file_digests(&stamps).unwrap_or_else(|_| vec![None; files.len()])
    }

    fn put(&self, metadata: &Metadata, digest: [u8; 32]) {
        let _ = self.0.cache().put_file_digests(&[(metadata.into(), digest)]);
    }
}

/// Creates 200 directories of 100 files with 100 to 10,000 bytes of noise.
fn create_files(root: &Path) -> std::io::Result<()> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state >> 33
    };
    for directory in 0..200 {
        let directory = root.join(format!("d{directory}"));
        std::fs::create_dir(&directory)?;
        for file in 0..100 {
            let size = 100 + next() as usize % 9900;
            let content: Vec<u8> = (0..size).map(|_| next() as u8).collect();
            std::fs::write(directory.join(format!("f{file}.txt")), content)?;
        }
    }
    Ok(())
}

/// Digests and packs a context, as a `COPY` without a tree does. Returns the time that packing took.
fn pack_context(dir: &Dir, store: &Store, compression: Compression) -> Option<Duration> {
    let view = View::of(dir);
    let selection = Selection { path: "/".to_owned(), ..Selection::default() };
    kiln_tree::content_digest(view, &[selection], Some(&Digests(store))).ok()?;
    let options = CopyOptions {
        source: "/".to_owned(),
        dest: "/src/".to_owned(),
        dir_copy_contents: true,
        create_dest_path: true,
        ..CopyOptions::default()
    };
    let below = kiln_tree::Skeleton::default();
    let begun = Instant::now();
    let plan: Plan<'_> = kiln_tree::plan_copies(&[(view, options)], &below).ok()??;
    let packing = Packing { compression, ..Packing::default() };
    pack_plan(store, packing, &Reporter::silent(), &plan).ok()?;
    Some(begun.elapsed())
}

fn incremental(criterion: &mut Criterion) {
    let Ok(temp) = tempfile::tempdir() else { unreachable!("there is no room for a context") };
    let root = temp.path().join("context");
    let made = std::fs::create_dir(&root).and_then(|()| create_files(&root));
    let Some(dir) = made.ok().and_then(|()| Dir::open(&root).ok()) else {
        unreachable!("there is no room for a context")
    };
    std::thread::sleep(Duration::from_millis(200));
    let mut group = criterion.benchmark_group("pack 20,000 files");
    group.sample_size(10);
    for compression in [Compression::Gzip, Compression::Zstd, Compression::Uncompressed] {
        let mut number = 0;
        let mut time = |name: &str, edited: Option<&str>, is_new: bool| {
            let mut store = Store::open(&temp.path().join("store"));
            group.bench_function(format!("{}, {name}", compression.name()), |bencher| {
                bencher.iter_custom(|rounds| {
                    let mut total = Duration::ZERO;
                    for _ in 0..rounds {
                        number += 1;
                        if is_new {
                            store = Store::open(&temp.path().join(format!("store{number}")));
                        }
                        if let Some(path) = edited {
                            let _ = std::fs::write(root.join(path), format!("edit {number}"));
                            std::thread::sleep(Duration::from_millis(60));
                        }
                        let store = store.as_ref().ok();
                        let taken = store.and_then(|it| pack_context(&dir, it, compression));
                        total += taken.unwrap_or(Duration::MAX / 1000);
                    }
                    total
                });
            });
        };
        time("cold", None, true);
        time("unchanged", None, false);
        time("the first file changed", Some("d0/f0.txt"), false);
        time("a file in the middle changed", Some("d188/f50.txt"), false);
    }
    group.finish();
}

criterion_group!(benches, benchmark, incremental);
criterion_main!(benches);

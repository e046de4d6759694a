//! A benchmark of the index's most frequent queries during a build.
//!
//! `docs/performance.md` has the figures.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]

use criterion::{Criterion, criterion_group, criterion_main};
use kiln_oci::Digest;
use kiln_store::{FileStamp, Store};
use kiln_tree::Timestamp;

/// The number of files in the context.
const FILES: u64 = 20_000;

fn benchmark(criterion: &mut Criterion) {
    let opened = tempfile::tempdir().ok().and_then(|temp| {
        let store = Store::open(temp.path()).ok()?;
        Some((temp, store))
    });
    let Some((_temp, store)) = opened else { unreachable!("there is no room for a store") };
    let (cache, layers) = (store.cache(), store.layers());
    let time = Timestamp::default();
    let file = |inode| FileStamp { device: 1, inode, size: 1, mtime: time, ctime: time };
    let learned: Vec<_> = (0..FILES).map(|inode| (file(inode), [7; 32])).collect();
    let files: Vec<FileStamp> = (0..FILES).map(file).collect();
    let layer = layers.begin().and_then(|tree| layers.commit(tree, None));
    let key = Digest::of(b"key");
    let stored = layer.and_then(|layer| cache.put(&key, &[Some(layer)], "RUN x"));
    assert!(stored.is_ok() && cache.link(&key, &key).is_ok());
    assert!(cache.put_file_digests(&learned).is_ok());

    let mut group = criterion.benchmark_group("index");
    group.bench_function("a link", |bencher| bencher.iter(|| cache.canonical(&key).is_ok()));
    group.bench_function("a result", |bencher| bencher.iter(|| cache.get(&key).is_ok()));
    group.sample_size(20);
    group.bench_function("digests of 20,000 files", |bencher| {
        bencher.iter(|| cache.file_digests(&files).is_ok());
    });
    group.bench_function("remember 20,000 files", |bencher| {
        bencher.iter(|| cache.put_file_digests(&learned).is_ok());
    });
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);

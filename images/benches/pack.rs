//! A benchmark of packing: it writes the tar of a tree into a blob, once per compression.
//!
//! `docs/performance.md` lists the figures.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]

use std::io::Write;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kiln_event::Reporter;
use kiln_images::{Compression, Packing, pack_stream};
use kiln_store::Store;

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

criterion_group!(benches, benchmark);
criterion_main!(benches);

//! Benchmarks of a graph's canonical encoding, its digests, and decoding.
//!
//! `docs/performance.md` has the figures.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use kiln_llb::op::Op;
use kiln_llb::op::{ContentCache, ExecOp, Meta, Mount, MountKind, OpKind, SourceOp};
use kiln_llb::{Definition, Edge, Graph, Node, OpMetadata};

/// The number of steps in the graph.
const STEPS: usize = 200;

fn step(below: &Edge, number: usize) -> Edge {
    let root = Mount {
        input: Some(0),
        selector: String::new(),
        dest: "/".to_owned(),
        output: Some(0),
        readonly: false,
        kind: MountKind::Bind,
        content_cache: ContentCache::Default,
        result_id: String::new(),
    };
    let args = ["/bin/sh", "-c"].map(str::to_owned).into_iter().chain([format!("make {number}")]);
    let env = (0..20).map(|name| format!("NAME{name}=a value of usual length {number}"));
    let meta =
        Meta { args: args.collect(), env: env.collect(), cwd: "/".into(), ..Meta::default() };
    let exec = ExecOp { meta, mounts: vec![root], ..ExecOp::default() };
    Node::new(OpKind::Exec(exec), vec![below.clone()], None, OpMetadata::default()).output(0)
}

fn definition() -> Definition {
    let identifier = "docker-image://docker.io/library/alpine:3.20".to_owned();
    let source = OpKind::Source(SourceOp { identifier, ..SourceOp::default() });
    let base = Node::new(source, Vec::new(), None, OpMetadata::default()).output(0);
    (0..STEPS).fold(base, |below, number| step(&below, number)).marshal()
}

fn benchmark(criterion: &mut Criterion) {
    let definition = definition();
    let Ok(graph) = Graph::load(&definition) else { unreachable!("the graph is valid") };
    let ops: Vec<Op> = graph.vertices().iter().map(|vertex| vertex.op.clone()).collect();
    let bytes = definition.to_bytes();
    let mut group = criterion.benchmark_group(format!("graph of {STEPS} steps"));
    group.bench_function("encode", |bencher| {
        bencher.iter(|| ops.iter().map(|op| black_box(op).encode().len()).sum::<usize>());
    });
    group.bench_function("encode and digest", |bencher| {
        bencher.iter(|| ops.iter().map(|op| black_box(op).digest()).collect::<Vec<_>>());
    });
    group.bench_function("read and check", |bencher| {
        bencher.iter(|| {
            let definition = Definition::from_bytes(black_box(&bytes));
            definition.and_then(|definition| Graph::load(&definition)).is_ok()
        });
    });
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);

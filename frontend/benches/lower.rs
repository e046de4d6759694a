//! A benchmark of lowering a Dockerfile of 1,000 instructions, from its text to the bytes of its
//! graph.
//!
//! `docs/performance.md` has the figures.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use kiln_frontend::{Lowered, Options, lower, parser};

use everything::{NoFiles, Registry};

#[path = "../tests/support/everything.rs"]
mod everything;

/// The number of instructions in the Dockerfile.
const INSTRUCTIONS: usize = 1000;

/// Returns a Dockerfile of ten stages. Each stage is built on the one before and copies from it. A
/// third of the instructions are `RUN` or `COPY`.
fn dockerfile() -> String {
    let mut text = String::from("FROM docker.io/library/alpine:3.20 AS stage0\n");
    for number in 1..INSTRUCTIONS {
        let stage = number / 100;
        // Writing to a string can't fail.
        let _ = match number % 100 {
            0 => writeln!(text, "FROM stage{} AS stage{stage}", stage - 1),
            1 if stage > 0 => writeln!(text, "COPY --from=stage{} /out /in{stage}", stage - 1),
            n if n % 6 == 0 => writeln!(text, "RUN make target{number} $VERSION {number}"),
            n if n % 6 == 1 => writeln!(text, "COPY --chown=1000 src{number}/*.c /src/{number}/"),
            n if n % 6 == 2 => writeln!(text, "ENV NAME{number}=\"${{VERSION:-none}} {number}\""),
            n if n % 6 == 3 => writeln!(text, "ARG VERSION=1.{number}"),
            n if n % 6 == 4 => writeln!(text, "LABEL org.example.label{number}=$VERSION"),
            _ => writeln!(text, "WORKDIR /work/${{VERSION%.*}}/{number}"),
        };
    }
    text
}

fn lowered(text: &str, options: &Options) -> Lowered {
    match lower(text.as_bytes(), options, &Registry::default(), &NoFiles) {
        Ok(lowered) => lowered,
        Err(errors) => unreachable!("{errors:?}"),
    }
}

fn benchmark(criterion: &mut Criterion) {
    let text = dockerfile();
    let options = Options::default();
    assert_eq!(text.lines().count(), INSTRUCTIONS);
    let steps = lowered(&text, &options).definition().ops.len();
    assert!(steps > INSTRUCTIONS / 3, "only {steps} ops");

    let mut group = criterion.benchmark_group("1000 instructions");
    group.bench_function("parse", |bencher| {
        bencher.iter(|| parser::parse(black_box(text.as_bytes())));
    });
    group.bench_function("lower", |bencher| {
        bencher.iter(|| lowered(black_box(&text), &options));
    });
    group.bench_function("lower and marshal", |bencher| {
        bencher.iter(|| lowered(black_box(&text), &options).definition().to_bytes());
    });
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);

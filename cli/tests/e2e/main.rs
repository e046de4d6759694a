//! End-to-end tests of the kiln binary, checked with real peers where the machine has them.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod ahead;
mod annotations;
mod archives;
mod attestations;
mod build;
mod builds;
mod call;
mod changed_root;
mod ci_examples;
mod concurrency;
mod containers;
mod contexts;
mod crash;
mod debian;
mod demo;
mod diff;
mod direct;
mod docker_images;
mod edits;
mod engine;
mod explain;
mod groups;
mod guide;
mod habits;
mod harness;
mod images;
mod imagetools;
mod install;
mod isolation;
mod kernels;
mod limits;
mod listing;
mod llb;
mod load;
mod login;
mod logs;
mod network;
mod oci_runtime;
mod on_error;
mod outputs;
mod own_image;
mod platforms;
mod ports;
mod pull_policy;
mod pulls;
mod push;
mod refusals;
mod registry;
mod remote_cache;
mod repository;
mod reproducible;
mod restricted;
mod rewrite;
mod rootless;
mod rootless_network;
mod run;
mod run_confinement;
mod run_options;
mod scanners;
mod soak;
mod sources;
mod storage;
mod streams;
mod terminal;

use kiln_testkit::Kiln;

/// Returns a hermetic kiln.
fn kiln() -> Kiln {
    Kiln::new(env!("CARGO_BIN_EXE_kiln"))
}

/// Returns the number of cached steps and the number of executed steps in a plain progress report.
fn steps(progress: &str) -> (usize, usize) {
    let count = |word: &str| {
        progress
            .lines()
            .filter(|line| line.starts_with('#') && line.split(' ').nth(1) == Some(word))
            .count()
    };
    (count("CACHED"), count("DONE"))
}

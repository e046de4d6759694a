//! kiln in containers: the short list of `testdata/tools/containers`, in settings of Docker's engine
//! and of podman.
//!
//! `make test-containers` runs the whole list.

use std::process::Command;

use kiln_testkit::base::repository;
use kiln_testkit::environment::run;
use kiln_testkit::{Need, skip};

/// The harness's exit status if the machine lacks a requirement. The harness prints which one.
const MISSING: i32 = 2;

#[test]
fn containers_of_every_kind_make_roots_images() {
    let test = "containers_of_every_kind_make_roots_images";
    let programs = ["dockerd", "docker", "podman", "runc"].map(Need::Program);
    if skip(test, &[&[Need::Accounts], &programs[..]].concat()) {
        return;
    }
    let mut harness = Command::new(repository().join("testdata/tools/containers/run"));
    harness.args(["matrix", "--short", "--verbose", "--jobs", "2", "--kiln"]);
    let output = run(harness.arg(env!("CARGO_BIN_EXE_kiln")));
    if output.code == MISSING {
        assert!(std::env::var_os("CI").is_none(), "{}", output.stderr);
        eprintln!("skipped: {test}: {}", output.stderr);
        return;
    }
    assert_eq!(output.code, 0, "{}{}", output.stdout, output.stderr);
}

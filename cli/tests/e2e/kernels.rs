//! kiln on another kernel: the short list of `testdata/tools/kernels`, on Debian 12's kernel.
//!
//! `make test-kernels` runs the whole list on more kernels and on many file systems.

use std::process::Command;

use kiln_testkit::base::repository;
use kiln_testkit::environment::run;
use kiln_testkit::{Need, skip};

/// The harness's exit status if the machine lacks a requirement. The harness prints which one.
const MISSING: i32 = 2;

#[test]
fn scenarios_pass_on_an_older_kernel() {
    let test = "scenarios_pass_on_an_older_kernel";
    if skip(test, &[Need::Accounts, Need::Program("qemu-system-x86_64")]) {
        return;
    }
    let mut harness = Command::new(repository().join("testdata/tools/kernels/run"));
    harness.args(["kernels", "--short", "--kernel", "6.1", "--verbose", "--kiln"]);
    let output = run(harness.arg(env!("CARGO_BIN_EXE_kiln")));
    if output.code == MISSING {
        assert!(std::env::var_os("CI").is_none(), "{}", output.stderr);
        eprintln!("skipped: {test}: {}", output.stderr);
        return;
    }
    assert_eq!(output.code, 0, "{}{}", output.stdout, output.stderr);
}

//! The harnesses of `testdata/tools` that try kiln elsewhere than on this machine.

use std::process::Command;

use kiln_testkit::base::repository;
use kiln_testkit::environment::run;

/// A harness's exit status if the machine lacks a requirement. The harness prints which one.
const MISSING: i32 = 2;

/// Runs a harness with the kiln of the tests. The test `test` is skipped if the machine lacks a
/// requirement, except in CI.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub(crate) fn try_kiln(test: &str, harness: &str, arguments: &[&str]) {
    let mut command = Command::new(repository().join(harness));
    command.args(arguments).args(["--kiln", env!("CARGO_BIN_EXE_kiln")]);
    let output = run(&mut command);
    if output.code == MISSING {
        assert!(std::env::var_os("CI").is_none(), "{}", output.stderr);
        eprintln!("skipped: {test}: {}", output.stderr);
        return;
    }
    assert_eq!(output.code, 0, "{}{}", output.stdout, output.stderr);
}

//! kiln on another kernel: the short list of `testdata/tools/kernels`, on Debian 12's kernel.
//!
//! `make test-kernels` runs the whole list on more kernels and on many file systems.

use kiln_testkit::{Need, skip};

use crate::harness::try_kiln;

#[test]
fn scenarios_pass_on_an_older_kernel() {
    let test = "scenarios_pass_on_an_older_kernel";
    if skip(test, &[Need::Accounts, Need::Program("qemu-system-x86_64")]) {
        return;
    }
    let arguments = ["kernels", "--short", "--kernel", "6.1", "--verbose"];
    try_kiln(test, "testdata/tools/kernels/run", &arguments);
}

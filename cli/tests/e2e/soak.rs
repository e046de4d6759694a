//! Many concurrent builds on one store, some of them killed, with a low limit of its size.
//!
//! The test runs a small part of the default work of `testdata/tools/soak`.

use std::path::Path;
use std::process::Command;

use kiln_testkit::environment::{base_layout, run};
use kiln_testkit::{Need, skip};

use crate::kiln;

#[test]
fn a_store_survives_many_builds_at_once_kills_and_a_cap() {
    if skip("a_store_survives_many_builds_at_once_kills_and_a_cap", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/tools/soak");
    let mut soak = Command::new(tool);
    soak.arg(kiln.binary()).arg(base_layout());
    soak.args(["--builds", "50", "--processes", "4", "--cap", "128", "--dir"]).arg(kiln.path(""));
    let soak = run(&mut soak);
    assert_eq!(soak.code, 0, "{}{}", soak.stdout, soak.stderr);
    println!("{}", soak.stdout);
}

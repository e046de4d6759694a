//! kiln in containers: the short list of `testdata/tools/containers`, in settings of Docker's engine
//! and of podman.
//!
//! `make test-containers` runs the whole list.

use kiln_testkit::{Need, skip};

use crate::harness::try_kiln;

#[test]
fn containers_of_every_kind_make_roots_images() {
    let test = "containers_of_every_kind_make_roots_images";
    let programs = ["dockerd", "docker", "podman", "runc"].map(Need::Program);
    if skip(test, &[&[Need::Accounts], &programs[..]].concat()) {
        return;
    }
    let arguments = ["matrix", "--short", "--verbose", "--jobs", "2"];
    try_kiln(test, "testdata/tools/containers/run", &arguments);
}

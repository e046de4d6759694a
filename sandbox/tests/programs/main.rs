//! Tests of programs in the sandbox. They require root and a static busybox at `/bin/busybox`.
//!
//! Each topic is a file with a table of its tests. Each test gets a [`Room`] of its own.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test without the usual harness, which the lints don't recognise as one"
)]

mod choices;
mod confinement;
mod emulated;
mod groups;
mod life;
mod mounts;
mod process;
mod room;

use std::path::Path;

use kiln_sandbox::init_if_asked;
use libtest_mimic::{Arguments, Failed, Trial};

use crate::room::Room;

type Test = fn(&Room);

const TOPICS: &[&[(&str, Test)]] = &[
    process::TESTS,
    confinement::TESTS,
    choices::TESTS,
    groups::TESTS,
    mounts::TESTS,
    life::TESTS,
    emulated::TESTS,
];

fn main() {
    init_if_asked();
    if let Some(word) = std::env::var_os(life::DOOMED) {
        return life::doomed(&word.to_string_lossy());
    }
    let arguments = Arguments::from_args();
    let skip = !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists();
    let trials = TOPICS
        .iter()
        .flat_map(|tests| tests.iter())
        .map(|(name, test)| {
            Trial::test(*name, move || {
                test(&Room::new());
                Ok::<(), Failed>(())
            })
            .with_ignored_flag(skip)
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

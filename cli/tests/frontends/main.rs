//! Tests of frontends that are programs of images, in `kiln build`.
//!
//! The test program is such a frontend itself ([`program`]). The module [`image`] makes its image.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]
#![expect(clippy::unwrap_used, reason = "a test fails by them")]

mod builds;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../serve/graph.rs"]
mod graph;
mod image;
mod program;

use kiln_testkit::{Need, skip};
use libtest_mimic::{Arguments, Trial};

fn main() {
    if program::run_if_asked() {
        return;
    }
    macro_rules! tests {
        ($($name:ident),* $(,)?) => {
            vec![$(Trial::test(stringify!($name), || {
                if !skip(stringify!($name), &[Need::Root]) {
                    builds::$name();
                }
                Ok(())
            })),*]
        };
    }
    let trials = tests![
        a_file_names_its_frontend,
        images_of_several_platforms,
        programs_and_secrets_of_a_frontend,
        failures_have_their_lines,
        questions_without_a_build,
        dockers_frontend_is_built_in,
        layouts_may_hold_frontends,
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

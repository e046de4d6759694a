//! Single changes to a project: exactly the necessary steps rerun, and the explanation names the
//! cause.
//!
//! Each mutation is a row of a table: the changes, and the steps that rerun, each with its cause.
//! Before each mutation, the test builds the original project, which must run no step.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod arguments;
mod dockerfile;
mod files;
mod project;

use kiln_testkit::{Need, skip};

use project::{Mutation, Project};

fn check(test: &str, mutations: &[Mutation]) {
    if skip(test, &[Need::Root]) {
        return;
    }
    let project = Project::new();
    let problems: Vec<String> =
        mutations.iter().filter_map(|mutation| project.try_out(mutation)).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn files_are_changed() {
    check("files_are_changed", &files::mutations());
}

#[test]
fn instructions_are_changed() {
    check("instructions_are_changed", &dockerfile::mutations());
}

#[test]
fn arguments_are_changed() {
    check("arguments_are_changed", &arguments::mutations());
}

#[test]
fn there_are_many() {
    let count =
        files::mutations().len() + dockerfile::mutations().len() + arguments::mutations().len();
    assert!(count >= 60, "{count}");
}

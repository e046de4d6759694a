//! The example in the crate's documentation, run as a reader would.

#![allow(clippy::disallowed_methods, reason = "tests open files by their paths")]

use std::process::Command;

#[test]
fn the_example_builds_an_image() {
    let store = tempfile::tempdir().unwrap();
    let context = tempfile::tempdir().unwrap();
    std::fs::write(context.path().join("file"), "text\n").unwrap();
    let run = || {
        let mut command = Command::new(env!("CARGO"));
        command.args(["run", "--quiet", "-p", "kiln", "--example", "embed", "--"]);
        let output = command.arg(store.path()).arg(context.path()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{error}");
        String::from_utf8(output.stdout).unwrap()
    };
    let first = run();
    assert!(first.contains("[1/1] COPY . /srv"), "{first}");
    let id = first.lines().last().unwrap();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{first}");
    let second = run();
    assert!(second.lines().any(|line| line.ends_with(" cached")), "{second}");
    assert_eq!(second.lines().last(), Some(id));
}

#[test]
fn the_example_is_short() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/embed.rs");
    let lines = std::fs::read_to_string(path).unwrap().lines().count();
    assert!(lines < 40, "{lines} lines");
}

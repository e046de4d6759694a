//! The rules of the architecture that a machine can check.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const DOCUMENT: &str = include_str!("../../docs/architecture.md");
const PREFIX: &str = "kiln-";

type Rows = BTreeMap<String, BTreeSet<String>>;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Returns the crates that each crate may use, as the table of the architecture lists them.
fn documented() -> Rows {
    let rows = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| ["));
    rows.map(|row| {
        let (name, rest) = row.split_once(']').unwrap();
        let uses = rest.trim_end().trim_end_matches('|').rsplit('|').next().unwrap();
        let uses = uses.split(',').map(|name| name.trim().to_owned());
        (name.to_owned(), uses.filter(|name| name != "–").collect())
    })
    .collect()
}

/// Returns the crates that each crate depends on, tests left out.
fn declared() -> Rows {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["metadata", "--no-deps", "--offline", "--locked", "--format-version", "1"]);
    let output = cargo.current_dir(repository()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let own =
        |package: &Value| package["name"].as_str().unwrap().strip_prefix(PREFIX).map(str::to_owned);
    let uses = |package: &Value| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        dependencies.filter(|dependency| dependency["kind"].is_null()).filter_map(own).collect()
    };
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages.map(|package| (own(package).unwrap(), uses(package))).collect()
}

#[test]
fn crates_use_what_their_rows_allow() {
    let documented = documented();
    let declared = declared();
    let names = |rows: &Rows| rows.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&declared), names(&documented));
    for (name, uses) in &declared {
        let allowed = &documented[name];
        if allowed.contains("all") || allowed.contains("any") {
            continue;
        }
        let forbidden: Vec<_> = uses.difference(allowed).collect();
        assert!(forbidden.is_empty(), "{name} uses {forbidden:?}");
    }
}

fn add_sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            add_sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn modules_have_one_style() {
    let mut files = Vec::new();
    for name in documented().keys() {
        add_sources(&repository().join(name).join("src"), &mut files);
    }
    assert!(files.len() > 100);
    let old: Vec<_> = files.iter().filter(|path| path.ends_with("mod.rs")).collect();
    assert!(old.is_empty(), "foo.rs and foo/ are the style, not {old:?}");
}

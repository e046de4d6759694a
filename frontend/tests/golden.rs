//! Lowers every golden Dockerfile and compares the result with BuildKit's.
//!
//! `testdata/golden/llb-pending.txt` lists the cases with known differences, one a line. A listed
//! case that matches is a failure too, so the list can only shrink.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Map, Value};

#[path = "support/case.rs"]
mod case;

/// The maximal number of differences that are shown.
const MAX_DIFFERENCES: usize = 12;

fn main() {
    let arguments = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/golden");
    let pending = pending(&root.join("llb-pending.txt"));
    let cases = cases(&root.join("llb"));
    let unknown: Vec<_> = pending
        .iter()
        .filter(|name| !cases.iter().any(|case| case.ends_with(name)))
        .cloned()
        .collect();
    let mut trials = vec![Trial::test("pending-cases-exist", move || {
        if unknown.is_empty() { Ok(()) } else { Err(unknown.join(", ").into()) }
    })];
    for case in cases {
        let name = case.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let is_pending = pending.contains(&name);
        trials.push(Trial::test(name, move || run(&case, is_pending)));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn pending(list: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(list).expect("the list of pending cases can be read");
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

fn cases(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).expect("the golden cases are there");
    let mut cases: Vec<_> = entries
        .map(|entry| entry.expect("the golden cases can be listed").path())
        .filter(|path| path.join("expected.json").exists())
        .collect();
    cases.sort();
    assert!(cases.len() > 100, "only {} golden cases", cases.len());
    cases
}

fn run(case: &Path, is_pending: bool) -> Result<(), Failed> {
    let outcome = catch_unwind(AssertUnwindSafe(|| compare(case)))
        .unwrap_or_else(|_| Err("the frontend panicked".to_owned()));
    match (outcome, is_pending) {
        (Ok(()), false) | (Err(_), true) => Ok(()),
        (Ok(()), true) => Err("matches: take it off llb-pending.txt".into()),
        (Err(differences), false) => Err(differences.into()),
    }
}

fn compare(directory: &Path) -> Result<(), String> {
    let text = fs::read(directory.join("expected.json")).map_err(|error| error.to_string())?;
    let expected: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let outcome = case::Case::read(directory).map_err(|error| error.to_string())?.outcome();
    let mut found = Vec::new();
    differences("", Some(&expected), Some(&outcome), &mut found);
    if found.is_empty() {
        return Ok(());
    }
    let mut text = String::new();
    for line in found.iter().take(MAX_DIFFERENCES) {
        let _ = writeln!(text, "{line}");
    }
    if found.len() > MAX_DIFFERENCES {
        let _ = writeln!(text, "and {} more", found.len() - MAX_DIFFERENCES);
    }
    Err(text)
}

/// Collects the differences between two values, each with its path.
fn differences(path: &str, expected: Option<&Value>, got: Option<&Value>, found: &mut Vec<String>) {
    match (expected, got) {
        (Some(Value::Object(expected)), Some(Value::Object(got))) => {
            object_differences(path, expected, got, found);
        }
        (Some(Value::Array(expected)), Some(Value::Array(got))) => {
            for index in 0..expected.len().max(got.len()) {
                let path = format!("{path}[{index}]");
                differences(&path, expected.get(index), got.get(index), found);
            }
        }
        (expected, got) if expected == got => {}
        (Some(expected), Some(got)) => {
            found.push(format!("{path}:\n    expected {expected}\n    got      {got}"));
        }
        (Some(expected), None) => found.push(format!("{path}: missing {expected}")),
        (None, Some(got)) => found.push(format!("{path}: unexpected {got}")),
        (None, None) => {}
    }
}

fn object_differences(
    path: &str,
    expected: &Map<String, Value>,
    got: &Map<String, Value>,
    found: &mut Vec<String>,
) {
    let keys: BTreeSet<_> = expected.keys().chain(got.keys()).collect();
    for key in keys {
        differences(&format!("{path}.{key}"), expected.get(key), got.get(key), found);
    }
}

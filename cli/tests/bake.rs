//! Bake files, and what they describe as `testdata/golden/bake` has it.
//!
//! `testdata/golden/bake-README.md` describes the files of a case. Each runs in a folder of its own
//! with a bare environment.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use libtest_mimic::{Arguments, Failed, Trial};
use regex::Regex;
use serde_json::Value;

/// The files of a case that are about it, and not there when it runs.
const ABOUT: [&str; 11] = [
    "args",
    "env",
    "mode",
    "stdin",
    "cwd",
    "sockets",
    "unordered",
    "about",
    "expected.json",
    "expected.txt",
    "expected.key",
];

/// The end of a run.
struct Run {
    succeeds: bool,
    stdout: String,
    both: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/golden/bake");
    let mut cases: Vec<PathBuf> =
        fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    let trials = cases.into_iter().map(|case| {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        Trial::test(name, move || check(&case, &run(&case)).map_err(Failed::from))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn text_of(case: &Path, name: &str) -> Option<String> {
    fs::read_to_string(case.join(name)).ok()
}

fn run(case: &Path) -> Run {
    let top = tempfile::tempdir().unwrap();
    let top_path = top.path().canonicalize().unwrap();
    let (work, home) = (top_path.join("w"), top_path.join("h"));
    fs::create_dir(&home).unwrap();
    copy(case, &work, &ABOUT);
    let mut sockets = Vec::new();
    for at in text_of(case, "sockets").unwrap_or_default().split_whitespace() {
        fs::create_dir_all(work.join(at).parent().unwrap()).unwrap();
        sockets.push(UnixListener::bind(work.join(at)).unwrap());
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.arg("bake").args(words(&text_of(case, "args").unwrap_or_default()));
    if matches!(text_of(case, "mode").unwrap_or_default().trim(), "" | "print") {
        command.arg("--print");
    }
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", &home);
    command.env("KILN_ROOT", home.join("kiln"));
    for line in text_of(case, "env").unwrap_or_default().lines() {
        if let Some((name, value)) = line.split_once('=') {
            command.env(name, value);
        }
    }
    command.current_dir(work.join(text_of(case, "cwd").unwrap_or_default().trim()));
    command.stdin(match fs::File::open(case.join("stdin")) {
        Ok(file) => file.into(),
        Err(_) => Stdio::null(),
    });
    let output = command.output().unwrap();
    let clean = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        text.replace(work.to_str().unwrap(), "$CWD").replace(home.to_str().unwrap(), "$HOME")
    };
    let stdout = clean(&output.stdout);
    let both = format!("{}\n{stdout}", clean(&output.stderr));
    Run { succeeds: output.status.success(), stdout, both }
}

fn copy(from: &Path, to: &Path, except: &[&str]) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if except.iter().any(|except| name == *except) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(&name), &[]);
        } else {
            fs::copy(entry.path(), to.join(&name)).unwrap();
        }
    }
}

/// Splits a line as a shell does.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                let next = letters.next().unwrap_or('\\');
                let word = word.get_or_insert_default();
                if quote.is_some() && !"\"\\$`".contains(next) {
                    word.push('\\');
                }
                word.push(next);
            }
            (None, letter) if letter.is_whitespace() => words.extend(word.take()),
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

fn check(case: &Path, run: &Run) -> Result<(), String> {
    let failed = |why: &str| Err(format!("{why}\n{}", run.both));
    if let Some(expected) = text_of(case, "expected.json") {
        if !run.succeeds {
            return failed("the command fails");
        }
        let mut wanted: Value = serde_json::from_str(&expected).unwrap();
        let Ok(mut got) = serde_json::from_str::<Value>(&run.stdout) else {
            return failed("the output is no JSON");
        };
        for path in text_of(case, "unordered").unwrap_or_default().split_whitespace() {
            let steps: Vec<&str> = path.split('.').collect();
            unorder(&mut wanted, &steps);
            unorder(&mut got, &steps);
        }
        if wanted != got {
            return failed(&format!("other requests than expected:\n{expected}"));
        }
        return check_keys(case, run);
    }
    let expected = text_of(case, "expected.txt").unwrap();
    let (head, body) = expected.split_once('\n').unwrap();
    if head != "exit: 0" {
        return if run.succeeds { failed("the command succeeds") } else { check_keys(case, run) };
    }
    if !run.succeeds || lines(body) != lines(&run.stdout) {
        return failed(&format!("other text than expected:\n{body}"));
    }
    check_keys(case, run)
}

/// Sorts the list at a path.
fn unorder(value: &mut Value, path: &[&str]) {
    match (value, path) {
        (Value::Array(items), []) => items.sort_by_key(ToString::to_string),
        (Value::Object(fields), ["*", rest @ ..]) => {
            fields.values_mut().for_each(|field| unorder(field, rest));
        }
        (Value::Object(fields), [name, rest @ ..]) => {
            if let Some(field) = fields.get_mut(*name) {
                unorder(field, rest);
            }
        }
        _ => {}
    }
}

fn lines(text: &str) -> Vec<String> {
    text.trim_end().lines().map(squeeze).collect()
}

fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Checks that the output has what it must have: texts, and places as `@file:line,column`.
fn check_keys(case: &Path, run: &Run) -> Result<(), String> {
    let flat = squeeze(&run.both);
    for key in text_of(case, "expected.key").unwrap_or_default().lines() {
        let key = key.trim();
        let is_there = match key.strip_prefix('@') {
            Some(place) => has_place(&run.both, place),
            None => flat.contains(&squeeze(key)),
        };
        if !is_there {
            return Err(format!("the output lacks {key}\n{}", run.both));
        }
    }
    Ok(())
}

fn has_place(output: &str, place: &str) -> bool {
    let (file, numbers) = place.rsplit_once(':').unwrap();
    let (file, numbers) = match file.rsplit_once(':') {
        Some((file, line)) if line.parse::<u32>().is_ok() => (file, format!("{line},{numbers}")),
        _ => (file, numbers.to_owned()),
    };
    let numbers = numbers.replace(',', "[,:]");
    let pattern = format!(r"(^|[^\w./-])(\./)?{}:{numbers}([^\d]|$)", regex::escape(file));
    Regex::new(&pattern).unwrap().is_match(output)
}

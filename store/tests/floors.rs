//! A test that the modules are floors: each uses only those below it.

#![expect(clippy::disallowed_methods, reason = "a test reads the sources")]
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::fs;
use std::path::{Path, PathBuf};

/// The modules below all floors.
const GROUND: [&str; 2] = ["error", "name"];

/// The crate's root, and the facade over the floors.
const ROOF: [&str; 2] = ["lib", "store"];

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Returns the floors, lowest first, from the table in the crate's docs.
fn floors() -> Vec<String> {
    let text = fs::read_to_string(sources().join("lib.rs")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | `")?.split_once('`'));
    let mut names: Vec<String> = rows.map(|row| row.0.to_owned()).collect();
    names.reverse();
    names
}

/// Adds the source files below a directory.
fn add_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        match entry.path() {
            path if path.is_dir() => add_files(&path, found),
            path => found.push(path),
        }
    }
}

/// Returns the code of a file without comments and without its tests, which may use the facade.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Returns the names that follow a prefix such as `crate::`, including those in braces.
fn names_after(code: &str, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    for rest in code.split(prefix).skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            names.push(first_name(rest));
            continue;
        };
        let mut depth = 0;
        let mut begins = true;
        for (at, letter) in group.char_indices() {
            match letter {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                letter if begins && !letter.is_whitespace() => {
                    names.push(first_name(&group[at..]));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    names
}

fn first_name(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}

/// Returns the problems of a file's code on a floor. `depth` is the number of modules around it.
fn problems(code: &str, floor: &str, depth: usize, floors: &[String]) -> Vec<String> {
    let rank = |name: &str| floors.iter().position(|floor| floor == name);
    let may_use = |name: &String| {
        GROUND.contains(&name.as_str()) || rank(name).is_some_and(|used| Some(used) <= rank(floor))
    };
    let mut problems: Vec<String> = names_after(code, "crate::")
        .into_iter()
        .filter(|name| !may_use(name))
        .map(|name| format!("uses crate::{name}"))
        .collect();
    // Such a path leads to the crate's root, past the names above.
    if code.contains(&"super::".repeat(depth)) {
        problems.push("leaves its floor by `super`".to_owned());
    }
    problems
}

#[test]
fn each_floor_uses_only_those_below() {
    let floors = floors();
    assert_eq!(floors.len(), 7, "{floors:?}");
    let mut files = Vec::new();
    add_files(&sources(), &mut files);
    let mut found = Vec::new();
    let mut seen = Vec::new();
    for file in files {
        let modules = file.strip_prefix(sources()).unwrap().with_extension("");
        let modules: Vec<&str> = modules.iter().map(|name| name.to_str().unwrap()).collect();
        let floor = modules[0];
        if GROUND.contains(&floor) || ROOF.contains(&floor) || modules.ends_with(&["tests"]) {
            continue;
        }
        assert!(floors.iter().any(|known| known == floor), "{floor} is no floor");
        for problem in problems(&code(&file), floor, modules.len(), &floors) {
            found.push(format!("{}: {problem}", file.display()));
        }
        seen.push(floor.to_owned());
    }
    assert!(floors.iter().all(|floor| seen.contains(floor)), "{floors:?} {seen:?}");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn handles_keep_the_room_to_themselves() {
    let mut files = Vec::new();
    add_files(&sources(), &mut files);
    let is_open =
        |line: &&str| line.trim_start().starts_with("pub") && line.ends_with(": Arc<Room>,");
    for file in files {
        let code = code(&file);
        let open: Vec<&str> = code.lines().filter(is_open).collect();
        assert!(open.is_empty(), "{}: {open:?}", file.display());
    }
}

#[test]
fn ways_up_are_found() {
    let floors = ["db", "room", "content"].map(str::to_owned);
    let of = |code: &str| problems(code, "room", 2, &floors);
    assert!(of("use crate::db::{Index, sums};\nuse super::lock;").is_empty());
    assert!(of("use crate::{\n    name,\n    room::{a, content},\n};").is_empty());
    assert_eq!(of("fn f() { crate::content::f() }"), ["uses crate::content"]);
    assert_eq!(of("use crate::{db, content::{a, b}};"), ["uses crate::content"]);
    assert_eq!(of("use crate::{Error, error};"), ["uses crate::Error"]);
    assert_eq!(of("use super::super::content;"), ["leaves its floor by `super`"]);
}

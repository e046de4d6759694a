//! Tests of the rules of the architecture.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_testkit::base::repository;
use serde_json::Value;
use syn::visit::{self, Visit};

const DOCUMENT: &str = include_str!("../../docs/internals/architecture.md");
const PREFIX: &str = "kiln-";
/// The package whose name is the project's, and its directory.
const FACADE: (&str, &str) = ("kiln", "engine");

type Rows = BTreeMap<String, BTreeSet<String>>;

/// Returns the permitted dependencies of each crate, from the table in the architecture document.
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

/// Returns the declared dependencies of each crate, without those of tests.
fn declared() -> Rows {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["metadata", "--no-deps", "--offline", "--locked", "--format-version", "1"]);
    let output = cargo.current_dir(repository()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let own = |package: &Value| match package["name"].as_str().unwrap() {
        name if name == FACADE.0 => Some(FACADE.1.to_owned()),
        name => name.strip_prefix(PREFIX).map(str::to_owned),
    };
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
        if allowed.contains("any") {
            continue;
        }
        let forbidden: Vec<_> = uses.difference(allowed).collect();
        assert!(forbidden.is_empty(), "{name} uses {forbidden:?}");
    }
}

/// Adds the files with an extension below a directory, except those of builds.
fn add_files(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            add_files(&path, extension, found);
        } else if path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
}

/// Returns all source files except those of tests.
fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for name in documented().keys() {
        add_files(&repository().join(name).join("src"), "rs", &mut files);
    }
    assert!(files.len() > 100);
    files
}

#[test]
fn modules_have_one_style() {
    let files = sources();
    let old: Vec<_> = files.iter().filter(|path| path.ends_with("mod.rs")).collect();
    assert!(old.is_empty(), "foo.rs and foo/ are the style, not {old:?}");
}

#[test]
fn a_type_has_one_public_path() {
    let mut offenders = Vec::new();
    for path in sources().iter().filter(|path| path.ends_with("lib.rs")) {
        if path.ends_with("testkit/src/lib.rs") {
            continue;
        }
        let text = std::fs::read_to_string(path).unwrap();
        let modules = text.lines().filter_map(|line| line.strip_prefix("pub mod "));
        let is_twice = |module: &str| {
            let module = module.trim_end_matches(';');
            text.lines().any(|line| line.starts_with(&format!("pub use {module}::")))
        };
        offenders.extend(
            modules.filter(|module| is_twice(module)).map(|it| (path.clone(), it.to_owned())),
        );
    }
    assert!(
        offenders.is_empty(),
        "public modules with items that the root has, too: {offenders:?}"
    );
}

/// A visitor that collects the functions with tuple patterns among their parameters.
#[derive(Default)]
struct TupleParameters {
    functions: Vec<String>,
}

impl TupleParameters {
    fn look(&mut self, signature: &syn::Signature) {
        let is_tuple = |input: &syn::FnArg| match input {
            syn::FnArg::Typed(typed) => matches!(*typed.pat, syn::Pat::Tuple(_)),
            syn::FnArg::Receiver(_) => false,
        };
        if signature.inputs.iter().any(is_tuple) {
            self.functions.push(signature.ident.to_string());
        }
    }
}

impl<'ast> Visit<'ast> for TupleParameters {
    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.look(signature);
        visit::visit_signature(self, signature);
    }
}

#[test]
fn no_function_takes_a_tuple_apart() {
    let mut offenders = Vec::new();
    for path in sources() {
        let file = syn::parse_file(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let mut found = TupleParameters::default();
        found.visit_file(&file);
        let name = path.strip_prefix(repository()).unwrap();
        offenders.extend(
            found.functions.iter().map(|function| format!("{}: {function}", name.display())),
        );
    }
    assert!(offenders.is_empty(), "{}:\n{}", offenders.len(), offenders.join("\n"));
}

/// Returns the code of a file without its comments and its tests.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\n").next().unwrap();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Returns the files of the command line with their module paths: `settings/build.rs` is
/// `["settings", "build"]`.
fn command_line() -> Vec<(PathBuf, Vec<String>)> {
    let root = repository().join("cli/src");
    let mut files = Vec::new();
    add_files(&root, "rs", &mut files);
    let module = |path: &Path| {
        let path = path.strip_prefix(&root).unwrap().with_extension("");
        path.iter().map(|name| name.to_str().unwrap().to_owned()).collect()
    };
    files.into_iter().map(|path| (path.clone(), module(&path))).collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Returns the modules and items of the crate to which code refers by `crate::` or `super::`. Of
/// the group in `use crate::a::{b, c}`, returns `a` alone.
fn references(code: &str, module: &[String]) -> Vec<Vec<String>> {
    let is_path = |c: char| is_word(c) || c == ':';
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            if code[..at].ends_with(is_path) {
                continue;
            }
            let text = &code[at..];
            let (path, rest) = text.split_at(text.find(|c| !is_path(c)).unwrap_or(text.len()));
            let path: Vec<_> = path.split("::").filter(|name| !name.is_empty()).collect();
            let up = path.iter().take_while(|name| **name == "super").count();
            let mut target = if up == 0 { &[] } else { &module[..module.len() - up] }.to_vec();
            target.extend(path[up.max(1)..].iter().map(|name| (*name).to_owned()));
            if target.is_empty() && rest.starts_with('{') {
                let group = rest.split(';').next().unwrap();
                let names = group.split(|c| !is_path(c)).filter(|path| !path.is_empty());
                found.extend(names.map(|path| path.split("::").map(str::to_owned).collect()));
            } else {
                found.push(target);
            }
        }
    }
    found
}

#[test]
fn references_are_found() {
    let module = ["commands", "build", "call"].map(str::to_owned);
    let found = |code: &str| {
        let paths = references(code, &module).into_iter();
        paths.map(|path| path.join("::")).collect::<Vec<_>>()
    };
    assert_eq!(found("use crate::a::{b, c};"), ["a"]);
    assert_eq!(found("use crate::{a, b::C};"), ["a", "b::C"]);
    assert_eq!(found("let x = f(super::y(), my_crate::z());"), ["commands::build::y"]);
    assert_eq!(found("use super::super::run::A;"), ["commands::run::A"]);
}

#[test]
fn the_command_line_has_layers() {
    // Each module with the modules that it may use beside itself.
    let layers: [(&str, &[&str]); 4] = [
        ("arguments", &[]),
        ("settings", &["arguments"]),
        ("rendering", &["arguments::progress", "rootless", "terminal::interruption"]),
        ("terminal", &["rendering"]),
    ];
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for (path, module) in command_line() {
        let layer = layers.iter().find(|(name, _)| *name == module[0]);
        let Some((name, allowed)) = layer else { continue };
        seen.insert(*name);
        for used in references(&code(&path), &module) {
            let used = used.join("::");
            let is_below =
                |module: &&str| used == **module || used.starts_with(&format!("{module}::"));
            if !is_below(name) && !allowed.iter().any(is_below) {
                found.push(format!("{}: {used}", path.display()));
            }
        }
    }
    assert_eq!(seen.len(), layers.len());
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn commands_do_not_use_each_other() {
    let files = command_line();
    // A module without a function `run` is a group, whose files are commands.
    let is_group = |name: &str| {
        let module = ["commands", name];
        files.iter().any(|(path, it)| *it == module && !code(path).contains("fn run("))
    };
    let (mut found, mut seen) = (Vec::new(), 0);
    for (path, module) in &files {
        if module[0] == "dispatch" {
            continue;
        }
        let length = match module.get(1) {
            Some(name) if module[0] == "commands" => {
                if is_group(name) {
                    3
                } else {
                    2
                }
            }
            _ => 0,
        };
        let own = &module[..length.min(module.len())];
        for used in references(&code(path), module) {
            seen += 1;
            let is_own = length > 0 && used.starts_with(own);
            if used.first().is_some_and(|name| name == "commands") && !is_own {
                found.push(format!("{}: {}", path.display(), used.join("::")));
            }
        }
    }
    assert!(seen > 300, "{seen}");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// A visitor that counts the types that clap parses.
#[derive(Default)]
struct Parsed {
    types: usize,
}

impl<'ast> Visit<'ast> for Parsed {
    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        const TRAITS: [&str; 4] = ["Args", "Parser", "Subcommand", "ValueEnum"];
        if attribute.path().is_ident("derive") {
            let look = |meta: syn::meta::ParseNestedMeta<'_>| {
                let name = meta.path.segments.last().unwrap().ident.to_string();
                self.types += usize::from(TRAITS.contains(&name.as_str()));
                Ok(())
            };
            attribute.parse_nested_meta(look).unwrap();
        }
    }
}

#[test]
fn only_arguments_are_parsed() {
    let (mut found, mut seen) = (Vec::new(), 0);
    for (path, module) in command_line() {
        let mut parsed = Parsed::default();
        parsed.visit_file(&syn::parse_file(&std::fs::read_to_string(&path).unwrap()).unwrap());
        if module[0] == "arguments" {
            seen += parsed.types;
        } else if parsed.types > 0 {
            found.push(path.display().to_string());
        }
    }
    assert!(seen > 40, "{seen}");
    assert!(found.is_empty(), "clap's types outside of arguments: {}", found.join("\n"));
}

#[test]
fn only_settings_read_the_environment() {
    const READS: [&str; 8] =
        ["args", "args_os", "current_dir", "home_dir", "var", "var_os", "vars", "vars_os"];
    let (mut found, mut seen) = (Vec::new(), 0);
    for (path, module) in command_line() {
        let code = code(&path);
        let names = code.split("env::").skip(1);
        let names = names.map(|rest| rest.split(|c| !is_word(c)).next().unwrap_or_default());
        let reads = names.filter(|name| READS.contains(name)).count();
        if ["main", "settings"].contains(&module[0].as_str()) {
            seen += reads;
        } else if reads > 0 {
            found.push(path.display().to_string());
        }
    }
    assert!(seen > 10, "{seen}");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Returns the anchor that a heading of a document has on its page.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(kept)
        .collect::<String>()
        .replace(' ', "-")
}

#[test]
fn links_of_documents_lead_somewhere() {
    let mut files = Vec::new();
    for name in ["docs", "bench", "testdata/tools"] {
        add_files(&repository().join(name), "md", &mut files);
    }
    files.extend(["README.md", "CONTRIBUTING.md"].map(|name| repository().join(name)));
    let mut broken = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')) {
            let (path, fragment) = link.0.split_once('#').unwrap_or((link.0, ""));
            if path.contains(':') || path.contains(' ') {
                continue;
            }
            let target = if path.is_empty() { file.clone() } else { file.with_file_name(path) };
            let is_there = target.exists()
                && (fragment.is_empty()
                    || std::fs::read_to_string(&target).is_ok_and(|text| {
                        text.lines().any(|line| line.starts_with('#') && anchor(line) == fragment)
                    }));
            if !is_there {
                broken.push(format!("{}: {}", file.display(), link.0));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn docs_are_noun_phrases_and_verb_phrases() {
    const QUESTIONS: [&str; 9] =
        ["What", "Who", "Which", "Whether", "How", "Where", "When", "Why", "Tells"];
    let mut found = Vec::new();
    for path in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start();
            let doc = line.strip_prefix("/// ").or_else(|| line.strip_prefix("//! "));
            let first = doc.and_then(|doc| doc.split(' ').next()).unwrap_or_default();
            if QUESTIONS.contains(&first) {
                found.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The files in which kiln opens trusted paths: the sandbox's own devices and files of the kernel,
/// kiln's own program, and files whose type a supervisor has looked at through their descriptor.
const TRUSTED: [&str; 18] = [
    "sandbox/src/chroot.rs",
    "sandbox/src/chroot/calls.rs",
    "sandbox/src/chroot/kernel_files.rs",
    "sandbox/src/chroot/placed.rs",
    "sandbox/src/chroot/terminal.rs",
    "sandbox/src/devices.rs",
    "sandbox/src/emulation/attributes.rs",
    "sandbox/src/emulation/execute.rs",
    "sandbox/src/emulation/open.rs",
    "sandbox/src/emulation/scratch.rs",
    "sandbox/src/emulation/start.rs",
    "sandbox/src/emulation/views.rs",
    "sandbox/src/helper.rs",
    "sandbox/src/inner_namespace.rs",
    "sandbox/src/oci.rs",
    "sandbox/src/joined.rs",
    "sandbox/src/program.rs",
    "sandbox/src/sources.rs",
];

#[test]
fn all_files_of_trees_are_inspected() {
    let mut files = Vec::new();
    for member in ["tree", "sandbox", "worker", "exporter", "attest"] {
        add_files(&repository().join(member).join("src"), "rs", &mut files);
    }
    let mut seen = 0;
    for file in files {
        let name = file.strip_prefix(repository()).unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        // Tests open the files that they create.
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let has = |statement: &str, flags: &[&str]| {
            flags.iter().any(|flag| statement.contains(&format!("OFlags::{flag}")))
        };
        for statement in code.split(';') {
            if !has(statement, &["RDONLY", "WRONLY", "RDWR"]) {
                continue;
            }
            seen += 1;
            let is_safe = name == "tree/src/inspected.rs"
                || statement.contains("open_inspected")
                || has(statement, &["DIRECTORY", "EXCL"])
                || TRUSTED.contains(&name);
            assert!(is_safe, "{name}: {statement}");
        }
    }
    assert!(seen > 15, "{seen}");
}

/// A transparent error hides the error that it wraps: its source is that of the wrapped error. So a
/// hint would not be found. And `kiln_oci::error` alone renders chains.
#[test]
fn errors_keep_their_sources() {
    let mut found = Vec::new();
    for path in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let is_own_chain = code.contains(".source();") || code.contains("{error:#}");
        if code.contains("#[error(transparent)]") || is_own_chain {
            found.push(path);
        }
    }
    assert!(found.is_empty(), "{found:?}");
}

/// The files of processes that kiln starts itself, with arguments and an environment of its own.
const OWN_PROCESSES: [&str; 2] = ["sandbox/src/helper.rs", "sandbox/src/oci/init.rs"];

/// Clippy bans these functions as well, but not in modules that may open files by their paths.
#[test]
fn only_the_command_line_uses_the_environment() {
    const FUNCTIONS: [&str; 9] = [
        "var",
        "vars",
        "args",
        "current_dir",
        "set_var",
        "remove_var",
        "home_dir",
        "temp_dir",
        "{",
    ];
    let mut found = Vec::new();
    for path in sources() {
        let name = path.strip_prefix(repository()).unwrap().to_str().unwrap();
        let is_of_tests =
            ["/tests/", "/tests.rs", "/differential"].iter().any(|it| name.contains(it));
        let is_exempt = name.starts_with("cli/") || name.starts_with("testkit/");
        if is_of_tests || is_exempt || OWN_PROCESSES.contains(&name) {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let uses = |line: &&str| {
            FUNCTIONS.iter().any(|function| line.contains(&format!("env::{function}")))
                && !line.trim_start().starts_with("//")
        };
        found.extend(code.lines().filter(uses).map(|line| format!("{name}: {line}")));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

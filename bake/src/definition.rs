//! Definitions: what files describe, before targets are chosen.

use std::collections::BTreeMap;

use crate::body::Body;
use crate::compose;
use crate::diagnostic::{self, Diagnostic};
use crate::error::Error;
use crate::interpret::{Inputs, Interpreted, VariableInfo, interpret};
use crate::json::{self, JsonBody};
use crate::limits;
use crate::native;
use crate::source::{FileId, FileNames, Position, Range};
use crate::surroundings::Surroundings;
use crate::target::{Group, Target, rebase_all};

mod list;
mod resolve;
mod select;

pub use list::{ListedTarget, ListedVariable};
pub use resolve::Plan;

/// A file of a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The name, as the user gave it. `-` is the standard input.
    pub name: String,
    /// The content.
    pub content: Vec<u8>,
}

/// The options for reading files.
pub struct ReadOptions<'a> {
    /// Names that always exist, and their values.
    pub builtins: BTreeMap<String, String>,
    /// Values that the user sets for variables.
    pub variables: BTreeMap<String, String>,
    /// `true` if the environment sets variables too.
    pub uses_environment: bool,
    /// `true` if contexts are relative to their files.
    pub relative_to_files: bool,
    /// The world around.
    pub surroundings: &'a dyn Surroundings,
}

impl ReadOptions<'_> {
    /// Returns the value that overrides a variable.
    pub(crate) fn lookup(&self, name: &str) -> Option<String> {
        if let Some(value) = self.variables.get(name) {
            return Some(value.clone());
        }
        self.uses_environment.then(|| self.surroundings.variable(name)).flatten()
    }
}

/// The targets and groups of files.
#[derive(Clone, Debug, Default)]
pub struct Definition {
    pub(crate) groups: Vec<Group>,
    pub(crate) targets: Vec<Target>,
    variables: Vec<VariableInfo>,
    /// The warnings.
    warnings: Vec<String>,
}

/// A file whose syntax is known.
enum Parsed {
    Compose,
    Native(Body),
}

impl Definition {
    /// Reads files. Later ones win.
    ///
    /// # Errors
    /// Fails at the first error, with its place.
    pub fn read(files: &[File], options: &ReadOptions<'_>) -> Result<Self, Error> {
        let mut names = FileNames::default();
        let mut compose_files = Vec::new();
        let mut bodies = Vec::new();
        for file in files {
            match parse(file, &mut names, options)? {
                Parsed::Compose => compose_files.push(file),
                Parsed::Native(body) => bodies.push(body),
            }
        }
        let mut definition = Self::default();
        if !compose_files.is_empty() {
            let composed = compose::read(&compose_files, options)
                .map_err(|error| Error::new(format!("failed to parse compose file: {error}")))?;
            definition.warnings = composed.warnings;
            definition.groups = composed.groups;
            definition.targets = composed.targets;
            if options.relative_to_files
                && let Some(first) = compose_files.first()
            {
                let folder = crate::path::folder(&first.name);
                for target in &mut definition.targets {
                    target.set_base(&folder);
                }
            }
        }
        if !bodies.is_empty() {
            let lookup = |name: &str| options.lookup(name);
            let inputs = Inputs {
                builtins: &options.builtins,
                lookup: &lookup,
                surroundings: options.surroundings,
            };
            let interpreted = interpret(&bodies, names.clone(), &inputs)
                .map_err(|found| located(&found, &names, files))?;
            definition.add(interpreted);
        }
        definition.tidy();
        if options.relative_to_files {
            rebase_all(&mut definition.targets);
        }
        Ok(definition)
    }

    /// Returns what the user should know.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Takes what files in native syntax and JSON say.
    fn add(&mut self, interpreted: Interpreted) {
        for group in interpreted.groups {
            match self.groups.iter_mut().find(|other| other.name == group.name) {
                Some(other) => *other = group,
                None => self.groups.push(group),
            }
        }
        self.groups.extend(interpreted.matrix_groups);
        self.targets.extend(interpreted.targets);
        self.variables = interpreted.variables;
    }

    /// Merges targets of one name, and removes members that a group has twice.
    fn tidy(&mut self) {
        for group in &mut self.groups {
            if let Some(targets) = &mut group.targets {
                let mut seen = std::collections::HashSet::new();
                targets.retain(|name| seen.insert(name.clone()));
            }
        }
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        let mut merged: Vec<Target> = Vec::with_capacity(self.targets.len());
        for target in self.targets.drain(..) {
            if let Some(index) = places.get(&target.name) {
                merged[*index].merge(target);
            } else {
                places.insert(target.name.clone(), merged.len());
                merged.push(target);
            }
        }
        self.targets = merged;
    }
}

/// Makes an error of what was found, with the lines around.
fn located(found: &[Diagnostic], names: &FileNames, files: &[File]) -> Error {
    Error::found(found, names, |name| {
        let file = files.iter().find(|file| file.name == name)?;
        Some(String::from_utf8_lossy(&file.content).into_owned())
    })
}

/// Finds out the syntax of a file and parses it, compose files apart.
fn parse(file: &File, names: &mut FileNames, options: &ReadOptions<'_>) -> Result<Parsed, Error> {
    let lower = file.name.to_lowercase();
    let ends = |suffix: &str| lower.ends_with(suffix);
    if ends(".yml") || ends(".yaml") {
        compose::check(file, options)?;
        return Ok(Parsed::Compose);
    }
    let single =
        |error: Diagnostic, names: &FileNames| located(&[error], names, std::slice::from_ref(file));
    if ends(".json") || ends(".hcl") {
        let id = names.add(&file.name);
        let parsed = if ends(".json") { parse_json(file, id) } else { parse_native(file, id) };
        return parsed.map(Parsed::Native).map_err(|error| single(error, names));
    }
    let as_compose = match compose::check(file, options) {
        Ok(()) => return Ok(Parsed::Compose),
        Err(error) => error,
    };
    let id = names.add(&format!("{}.hcl", file.name));
    match parse_native(file, id) {
        Ok(body) => Ok(Parsed::Native(body)),
        Err(error) => {
            let json_id = names.add(&format!("{}.json", file.name));
            parse_json(file, json_id).map(Parsed::Native).map_err(|_| {
                Error::new(format!(
                    "failed to parse {}: parsing yaml: {as_compose}, parsing hcl: {}",
                    file.name,
                    diagnostic::describe(&[error], names)
                ))
            })
        }
    }
}

/// Returns the text of a file without a byte order mark.
fn text_of(file: &File, id: FileId) -> Result<&str, Diagnostic> {
    if file.content.len() > limits::FILE_SIZE {
        let range = Range { file: id, start: Position::START, end: Position::START };
        return Err(limits::too_large(range));
    }
    match std::str::from_utf8(&file.content) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(error) => {
            let valid = &file.content[..error.valid_up_to()];
            let line = valid.split(|byte| *byte == b'\n').count() as u32;
            let start = valid.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let column = String::from_utf8_lossy(&valid[start..]).chars().count() as u32 + 1;
            let place = Position { line, column };
            let end = Position { line, column: column + 1 };
            Err(Diagnostic::new(
                "Invalid character encoding",
                "All input files must be UTF-8 encoded. Ensure that UTF-8 encoding is selected in \
                 your editor.",
                Range { file: id, start: place, end },
            ))
        }
    }
}

/// Parses a file in native syntax.
fn parse_native(file: &File, id: FileId) -> Result<Body, Diagnostic> {
    native::parse_body(text_of(file, id)?, id).map(|body| Body::Native(body.into()))
}

/// Parses a file in JSON.
fn parse_json(file: &File, id: FileId) -> Result<Body, Diagnostic> {
    json::parse(text_of(file, id)?, id).map(|node| Body::Json(JsonBody(node)))
}

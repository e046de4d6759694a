//! A world with nothing in it, for definitions.

use std::collections::BTreeMap;
use std::io;

use kiln_bake::{Definition, Error, File, Plan, ReadOptions, Surroundings};

/// No variables, no files, no time.
pub(crate) struct Nothing;

impl Surroundings for Nothing {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn variables(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn now(&self) -> i64 {
        0
    }

    fn home(&self) -> String {
        "/home".to_owned()
    }

    fn random(&self, buffer: &mut [u8]) {
        buffer.fill(7);
    }

    fn read(&self, _: &str) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn check(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn is_folder(&self, _: &str) -> Option<bool> {
        None
    }

    fn prints_to_terminal(&self) -> bool {
        false
    }

    fn working_directory(&self) -> String {
        "/".to_owned()
    }
}

/// Reads one file, and resolves targets.
pub(crate) fn plan(name: &str, content: &[u8], targets: &[&str]) -> Result<Plan, Error> {
    let options = ReadOptions {
        builtins: BTreeMap::new(),
        variables: BTreeMap::new(),
        uses_environment: true,
        relative_to_files: false,
        surroundings: &Nothing,
    };
    let file = File { name: name.to_owned(), content: content.to_vec() };
    let definition = Definition::read(&[file], &options)?;
    let targets: Vec<String> = targets.iter().map(|target| (*target).to_owned()).collect();
    let mut plan = definition.plan(&targets, &[], &options)?;
    plan.check(&options)?;
    Ok(plan)
}

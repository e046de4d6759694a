//! The files, the values and the surroundings of bake definitions.

mod files;
mod overrides;
mod surroundings;

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, bail};
use kiln_bake::{Definition, File, Plan, ReadOptions};
use kiln_oci::Platform;
use kiln_oci::text::parse_bool;

use super::text_variable;
use crate::arguments::bake::BakeArguments;
use overrides::Policies;
use surroundings::Host;

/// The keys of `--allow`.
const RIGHTS: [&str; 11] = [
    "network.host",
    "security.insecure",
    "device",
    "fs",
    "fs.read",
    "fs.write",
    "image",
    "image.push",
    "image.load",
    "ssh",
    "buildx.local.delete",
];

/// The bytes of stack that a definition may use: expressions are nested as deeply as its limits
/// allow.
const STACK: usize = 256 << 20;

/// The request of `kiln bake`.
#[derive(Debug)]
pub(crate) struct BakeRequest {
    files: Vec<File>,
    variables: BTreeMap<String, String>,
    uses_environment: bool,
    relative_to_files: bool,
    targets: Vec<String>,
    overrides: Vec<String>,
    policies: Policies,
    source_date: Option<String>,
}

impl BakeRequest {
    /// Combines the arguments with the environment, and reads the files.
    pub(crate) fn resolve(arguments: &BakeArguments) -> Result<Self> {
        for right in &arguments.allowed {
            let key = right.split_once('=').map_or(&**right, |parts| parts.0);
            if !RIGHTS.contains(&key) {
                bail!("unknown entitlement key {key:?}");
            }
        }
        let variables = variables(&arguments.variables)?;
        let policies = Policies::parse(&arguments.policies)?;
        let mut targets = arguments.targets.clone();
        if targets.is_empty() {
            targets.push("default".to_owned());
        }
        Ok(Self {
            files: files::read(&arguments.files)?,
            variables,
            uses_environment: !truth("BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP")?,
            relative_to_files: truth("BUILDX_BAKE_FILE_RELATIVE_PATHS")?,
            targets,
            overrides: overrides::of(arguments, &policies),
            policies,
            source_date: text_variable("SOURCE_DATE_EPOCH").filter(|date| !date.is_empty()),
        })
    }

    /// Reads the definition and hands it to `use_it`, in a thread of its own that may nest calls
    /// deeply.
    pub(crate) fn with_definition<T: Send>(
        &self,
        use_it: impl FnOnce(&Definition, &ReadOptions<'_>) -> Result<T> + Send,
    ) -> Result<T> {
        let host = Host::new()?;
        let read = || {
            let options = ReadOptions {
                builtins: BTreeMap::from([
                    ("BAKE_CMD_CONTEXT".to_owned(), "cwd://".to_owned()),
                    ("BAKE_LOCAL_PLATFORM".to_owned(), Platform::host().to_string()),
                ]),
                variables: self.variables.clone(),
                uses_environment: self.uses_environment,
                relative_to_files: self.relative_to_files,
                surroundings: &host,
            };
            let definition = Definition::read(&self.files, &options)?;
            use_it(&definition, &options)
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, read)?;
            thread.join().map_err(|_| anyhow!("reading the bake file has failed"))?
        })
    }

    /// Resolves the targets that the user has chosen.
    pub(crate) fn plan(&self, definition: &Definition, options: &ReadOptions<'_>) -> Result<Plan> {
        let mut plan = definition.plan(&self.targets, &self.overrides, options)?;
        if self.policies.disabled {
            plan.disable_policies();
        }
        if let Some(date) = &self.source_date {
            plan.set_missing_argument("SOURCE_DATE_EPOCH", date);
        }
        plan.check(options)?;
        Ok(plan)
    }
}

/// Reads values of variables, as `NAME=VALUE`.
fn variables(words: &[String]) -> Result<BTreeMap<String, String>> {
    let mut variables = BTreeMap::new();
    for word in words.iter().filter(|word| !word.is_empty()) {
        match word.split_once('=') {
            Some((name, value)) => variables.insert(name.to_owned(), value.to_owned()),
            None => bail!("invalid variable {word:?}, expected key=value"),
        };
    }
    Ok(variables)
}

/// Reads a variable of the environment that is true or false.
fn truth(name: &str) -> Result<bool> {
    let Some(text) = text_variable(name).filter(|text| !text.is_empty()) else {
        return Ok(false);
    };
    parse_bool(&text).ok_or_else(|| {
        anyhow!(
            "failed to parse {name} value {text:?}: strconv.ParseBool: parsing {text:?}: invalid \
             syntax"
        )
    })
}

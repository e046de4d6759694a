//! Names and patterns of targets.

use std::collections::BTreeMap;

use super::Definition;
use crate::error::Error;
use crate::overrides::{Override, Overrides};
use crate::path;

impl Definition {
    /// Returns the targets and groups that a name or pattern means.
    pub(super) fn matching(&self, pattern: &str) -> Result<Vec<String>, Error> {
        if !pattern.contains(['*', '?', '[', ']']) {
            return Ok(vec![pattern.to_owned()]);
        }
        let groups = self.groups.iter().map(|group| &group.name);
        let names: Vec<String> = groups
            .chain(self.targets.iter().map(|target| &target.name))
            .filter(|name| path::matches(pattern, name) == Some(true))
            .cloned()
            .collect();
        if names.is_empty() {
            return Err(Error::new(format!("could not find any target matching {pattern:?}")));
        }
        Ok(names)
    }

    /// Returns the targets that a name or pattern of an override means.
    fn overridden(&self, pattern: &str) -> Result<Vec<String>, Error> {
        if self.targets.iter().any(|target| target.name == pattern) {
            return Ok(vec![pattern.to_owned()]);
        }
        let mut names = Vec::new();
        for target in &self.targets {
            match path::matches(pattern, &target.name) {
                Some(true) => names.push(target.name.clone()),
                Some(false) => {}
                None => {
                    return Err(Error::new(format!(
                        "could not match targets with '{pattern}': syntax error in pattern"
                    )));
                }
            }
        }
        if names.is_empty() {
            return Err(Error::new(format!("could not find any target matching '{pattern}'")));
        }
        Ok(names)
    }

    /// Reads overrides: `pattern.key=value` each.
    ///
    /// `lookup` returns the variable of the environment for an argument without a value.
    pub(super) fn read_overrides(
        &self,
        texts: &[String],
        lookup: &dyn Fn(&str) -> Option<Option<String>>,
    ) -> Result<BTreeMap<String, Overrides>, Error> {
        let mut all: BTreeMap<String, Overrides> = BTreeMap::new();
        for text in texts {
            let parsed = Override::parse(text)?;
            let names = self.overridden(&parsed.pattern)?;
            let environment = match &parsed.value {
                None if parsed.key == "args" => {
                    match lookup(parsed.name.as_deref().unwrap_or("")) {
                        // Without look-ups, the argument becomes empty.
                        None => Some(String::new()),
                        Some(Some(value)) => Some(value),
                        Some(None) => {
                            continue;
                        }
                    }
                }
                _ => None,
            };
            for name in names {
                all.entry(name).or_default().add(&parsed, environment.clone());
            }
        }
        Ok(all)
    }
}

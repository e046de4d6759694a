//! Arguments outside of stages: `ARG` before the first `FROM`, and their use in `FROM`.

use std::collections::{BTreeMap, BTreeSet};

use kiln_llb::op::ProxyEnv;

use crate::error::{Error, Span};
use crate::expand::{Expander, Expansion};
use crate::instruction::{self, ArgInstruction};
use crate::lint::rules;
use crate::suggest::{self, Case};

use super::budget::Budget;
use super::checks::Checks;
use super::environment::Environment;
use super::outline::DeclaredArg;
use super::{platform, reference};

/// The arguments that every `FROM` can use, and that stages can use after they declare them again.
#[derive(Clone, Debug, Default)]
pub(super) struct GlobalArgs {
    /// The arguments that have a value.
    pub env: Environment,
    /// All declared arguments, with a value or not.
    pub declared: BTreeMap<String, DeclaredArg>,
}

impl GlobalArgs {
    /// Evaluates the declarations in order. The values in `given` replace defaults.
    ///
    /// # Errors
    /// Fails on a malformed default.
    pub(super) fn new(
        mut env: Environment,
        declarations: &[ArgInstruction],
        given: &BTreeMap<String, String>,
        expander: Expander,
        budget: &Budget,
    ) -> Result<Self, Error> {
        let mut declared: BTreeMap<String, DeclaredArg> = BTreeMap::new();
        for instruction in declarations {
            for arg in &instruction.args {
                let mut found = DeclaredArg::new(arg, instruction.span);
                if let Some(given) = given.get(&arg.key) {
                    found.value = Some(given.clone());
                } else if let Some(default) = &arg.value {
                    let expanded = expander.process_word(default, &env);
                    let expanded = expanded.map_err(|error| error.at(instruction.span))?;
                    budget.spend(expanded.text.len());
                    budget.check().map_err(|error| error.at(instruction.span))?;
                    found.value = Some(expanded.text);
                    found.uses = expanded.matched;
                    // An argument whose default uses its own earlier value also depends on that
                    // value's arguments.
                    if found.uses.remove(&arg.key)
                        && let Some(earlier) = declared.get(&arg.key)
                    {
                        found.uses.extend(earlier.uses.iter().cloned());
                    }
                }
                if let Some(value) = &found.value {
                    env.set(&arg.key, value);
                }
                declared.insert(arg.key.clone(), found);
            }
        }
        Ok(Self { env, declared })
    }

    /// Reports variables of a `FROM` that no `ARG` declares.
    fn check_undeclared(&self, expansion: &Expansion, span: Span, checks: &mut Checks) {
        let known: Vec<&str> =
            self.declared.keys().map(String::as_str).chain(self.env.keys()).collect();
        for name in expansion.unmatched.iter().filter(|name| !known.contains(&name.as_str())) {
            let nearest = suggest::nearest(name, known.iter().copied(), Case::Sensitive);
            checks.report(rules::undefined_arg_in_from(name, nearest.as_deref()), Some(span));
        }
    }

    /// Expands the name of a stage's base. Adds the arguments that it uses to `used`.
    ///
    /// # Errors
    /// Fails if the name is malformed, or empty after expansion.
    pub(super) fn base_name(
        &self,
        stage: &instruction::Stage,
        expander: Expander,
        checks: &mut Checks,
        used: &mut BTreeSet<String>,
    ) -> Result<String, Error> {
        let mut expansion =
            expander.process_word(&stage.base, &self.env).map_err(|error| error.at(stage.span))?;
        self.check_undeclared(&expansion, stage.span, checks);
        if expansion.text.is_empty() {
            let message = format!("base name ({}) should not be blank", stage.base);
            return Err(Error::new(message).at(stage.span));
        }
        used.append(&mut expansion.matched);
        Ok(expansion.text)
    }

    /// Expands and parses a stage's `--platform`. Adds the arguments that it uses to `used`.
    ///
    /// # Errors
    /// Fails if the value is malformed, or empty after expansion.
    pub(super) fn platform(
        &self,
        stage: &instruction::Stage,
        expander: Expander,
        checks: &mut Checks,
        used: &mut BTreeSet<String>,
    ) -> Result<Option<kiln_oci::Platform>, Error> {
        if stage.platform.is_empty() {
            return Ok(None);
        }
        let mut expansion = expander.process_word(&stage.platform, &self.env).map_err(|error| {
            error.context("failed to process arguments for platform ").at(stage.span)
        })?;
        self.check_undeclared(&expansion, stage.span, checks);
        self.check_redundant(stage, &expansion, checks);
        check_constant(stage, &expansion, checks);
        if expansion.text.is_empty() {
            let message = format!("empty platform value from expression {}", stage.platform);
            return Err(Error::new(self.suggest(message, &expansion)).at(stage.span));
        }
        let platform = platform::parse(&expansion.text).map_err(|error| {
            let error = self.suggest(error, &expansion);
            let message = format!("failed to parse platform {}: {error}", stage.platform);
            Error::new(message).at(stage.span)
        })?;
        used.append(&mut expansion.matched);
        Ok(Some(platform))
    }

    fn suggest(&self, message: String, expansion: &Expansion) -> String {
        let nearest = expansion
            .unmatched
            .iter()
            .find_map(|name| suggest::nearest(name, self.env.keys(), Case::Sensitive));
        match nearest {
            Some(nearest) => format!("{message} (did you mean {nearest}?)"),
            None => message,
        }
    }

    fn check_redundant(
        &self,
        stage: &instruction::Stage,
        expansion: &Expansion,
        checks: &mut Checks,
    ) {
        let target = "TARGETPLATFORM";
        let alone = expansion.matched.len() == 1 && expansion.unmatched.is_empty();
        if alone
            && expansion.matched.contains(target)
            && self.env.get(target).unwrap_or_default() == expansion.text
        {
            checks.report(rules::redundant_target_platform(&stage.platform), Some(stage.span));
        }
    }
}

/// Reports a constant platform, unless the stage's name shows that it is intended.
fn check_constant(stage: &instruction::Stage, expansion: &Expansion, checks: &mut Checks) {
    if !expansion.matched.is_empty() || !expansion.unmatched.is_empty() {
        return;
    }
    let Ok(platform) = platform::parse(&expansion.text) else {
        return;
    };
    if stage.name.contains(&platform.os) || stage.name.contains(&platform.architecture) {
        return;
    }
    let finding = rules::from_platform_flag_const_disallowed(&expansion.text);
    checks.report(finding, Some(stage.span));
}

/// Reports base names that are invalid image references if no argument is given a value.
pub(super) fn check_defaults(
    stages: &[instruction::Stage],
    env: Environment,
    declarations: &[ArgInstruction],
    expander: Expander,
    checks: &mut Checks,
) {
    // Malformed declarations are reported later, as errors.
    let Ok(args) =
        GlobalArgs::new(env, declarations, &BTreeMap::new(), expander, &Budget::default())
    else {
        return;
    };
    for stage in stages {
        let Ok(expansion) = expander.process_word(&stage.base, &args.env) else {
            return;
        };
        if reference::parse(&expansion.text).is_err() {
            checks.report(rules::invalid_default_arg_in_from(&stage.base), Some(stage.span));
        }
    }
}

/// Returns the proxy settings among the build arguments.
pub(super) fn proxies(given: &BTreeMap<String, String>) -> Option<ProxyEnv> {
    let mut proxies = ProxyEnv::default();
    let mut found = false;
    for (key, value) in given {
        let field = match key.to_ascii_lowercase().as_str() {
            "http_proxy" => &mut proxies.http_proxy,
            "https_proxy" => &mut proxies.https_proxy,
            "ftp_proxy" => &mut proxies.ftp_proxy,
            "no_proxy" => &mut proxies.no_proxy,
            "all_proxy" => &mut proxies.all_proxy,
            _ => continue,
        };
        field.clone_from(value);
        found = true;
    }
    found.then_some(proxies)
}

//! `ARG`: arguments of a stage.

use std::rc::Rc;

use crate::error::Error;
use crate::instruction::{ArgInstruction, ArgValue};
use crate::lint::rules;

use super::checks;
use super::dispatch::Site;
use super::outline::DeclaredArg;
use super::scan::SCAN_ARGS;
use super::stage::BuildArg;

/// Declares arguments in order. The default of an argument can use the arguments before it.
pub(super) fn dispatch(site: &mut Site<'_, '_>, instruction: &ArgInstruction) -> Result<(), Error> {
    let mut text = "ARG".to_owned();
    for arg in &instruction.args {
        if checks::is_secret(&arg.key) {
            site.report(rules::secrets_used_in_arg_or_env("ARG", &arg.key));
        }
        let inherited = is_inherited(site, arg);
        let value = value(site, arg)?;
        let needs = &mut site.stage.needs;
        needs.args.insert(arg.key.clone());
        if !inherited {
            let declared = DeclaredArg::new(arg, instruction.span);
            let declared = DeclaredArg { value: value.clone(), ..declared };
            needs.declared.insert(arg.key.clone(), declared);
        }
        text = text + " " + &arg.key;
        if let Some(value) = &value {
            text = text + "=" + value;
            if !SCAN_ARGS.contains(&arg.key.as_str()) {
                site.stage.state.set_env(&arg.key, value);
            }
        }
        let value = value.map(Rc::from);
        site.stage.build_args.push(BuildArg { key: Rc::from(arg.key.as_str()), value });
    }
    site.commit(text, false);
    Ok(())
}

/// Returns `true` if the argument has only its global declaration.
fn is_inherited(site: &Site<'_, '_>, arg: &ArgValue) -> bool {
    arg.value.is_none()
        && !site.lowering.build_args.contains_key(&arg.key)
        && site.lowering.global_args.env.get(&arg.key).is_some()
}

/// Returns an argument's value: the one given to the build, else the default, else the global one.
fn value(site: &mut Site<'_, '_>, arg: &ArgValue) -> Result<Option<String>, Error> {
    if let Some(given) = site.lowering.build_args.get(&arg.key) {
        return Ok(Some(given.clone()));
    }
    match &arg.value {
        Some(default) => site.expand(default).map(Some),
        None => Ok(site.lowering.global_args.env.get(&arg.key).map(str::to_owned)),
    }
}

//! A stage that `SOURCE_DATE_EPOCH` names. It only adds one remote file or repository to `scratch`,
//! whose time becomes the build's.

use std::collections::BTreeMap;

use kiln_llb::op::SourceOp;

use crate::error::Error;
use crate::expand::Expander;
use crate::instruction::{AddInstruction, ArgInstruction, InstructionKind, Stage};

use super::environment::Environment;
use super::{copy_sources, git, named_context, path, url};

/// Returns the source that the stage adds. `env` holds the global arguments, `given` the build
/// arguments.
///
/// # Errors
/// Fails if the stage does anything else.
pub(super) fn source(
    stage: &Stage,
    mut env: Environment,
    given: &BTreeMap<String, String>,
    expander: Expander,
) -> Result<SourceOp, Error> {
    let base = expander.process_word(&stage.base, &env).map_err(|error| {
        error.context(format!(
            "failed to process source stage base name {}",
            crate::text::quote(&stage.base)
        ))
    })?;
    if base.text != "scratch" {
        return Err(Error::new("SOURCE_DATE_EPOCH stage must use FROM scratch"));
    }
    let one = || Error::new("SOURCE_DATE_EPOCH stage must contain exactly one remote ADD");
    let mut found = None;
    for instruction in &stage.commands {
        match &instruction.kind {
            InstructionKind::Arg(arg) => declare(arg, &mut env, given, expander)?,
            InstructionKind::Add(_) if found.is_some() => return Err(one()),
            InstructionKind::Add(add) => found = Some(added(add, &env, expander)?),
            _ => {
                return Err(Error::new(format!(
                    "SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported \
                     {} instruction",
                    instruction.keyword
                )));
            }
        }
    }
    found.ok_or_else(one)
}

fn declare(
    instruction: &ArgInstruction,
    env: &mut Environment,
    given: &BTreeMap<String, String>,
    expander: Expander,
) -> Result<(), Error> {
    for arg in &instruction.args {
        if let Some(value) = given.get(&arg.key) {
            env.set(&arg.key, value);
        } else if let Some(default) = &arg.value {
            let value = expander.process_word(default, env)?.text;
            env.set(&arg.key, &value);
        }
    }
    Ok(())
}

fn added(add: &AddInstruction, env: &Environment, expander: Expander) -> Result<SourceOp, Error> {
    let [written] = add.paths.source_paths.as_slice() else {
        return Err(Error::new(
            "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD source",
        ));
    };
    if !add.paths.source_contents.is_empty() {
        return Err(Error::new(
            "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD source",
        ));
    }
    let location = expander.process_word(written, env)?.text;
    let checksum = match add.checksum.as_str() {
        "" => None,
        written => Some(expander.process_word(written, env)?.text),
    };
    if git::is_http(&location) {
        let parsed = url::Url::parse(&location).ok();
        let filename = match parsed.as_ref().map(|url| path::base(&url.path)) {
            None | Some("." | "/") => "__unnamed__",
            Some(filename) => filename,
        };
        let mut source = named_context::http_source(&location, filename);
        if let Some(checksum) = checksum {
            copy_sources::check_digest(&checksum).map_err(Error::new)?;
            source.attrs.insert("http.checksum".to_owned(), checksum);
        }
        return Ok(source);
    }
    match git::parse(&location).map_err(Error::new)? {
        Some(mut git) => {
            if let Some(checksum) = checksum {
                git.checksum = checksum;
            }
            Ok(git.source(add.keep_git_dir == Some(true)))
        }
        None => {
            Err(Error::new("SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD"))
        }
    }
}

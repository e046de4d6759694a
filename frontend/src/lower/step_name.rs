//! The names of steps, as progress shows them: `[stage 2/5] RUN make`.

use std::fmt::Write as _;

use kiln_oci::Platform;

use crate::expand::{Env, Expander};
use crate::text::to_upper;

use super::platform;
use super::stage::Stage;

/// Numbers the stage's next step and returns its name.
///
/// `platform` is given if several platforms are built.
pub(super) fn next(
    stage: &mut Stage,
    text: &str,
    platform: Option<&Platform>,
    env: &dyn Env,
) -> String {
    if stage.steps == 0 {
        return text.to_owned();
    }
    stage.step += 1;
    current(stage, text, platform, env)
}

/// Returns the name of the step that was numbered last.
pub(super) fn current(
    stage: &Stage,
    text: &str,
    platform: Option<&Platform>,
    env: &dyn Env,
) -> String {
    if stage.steps == 0 {
        return text.to_owned();
    }
    let mut out = String::from("[");
    if let Some(platform) = platform {
        out += &platform.specifier();
        out += &platform::cross_target(platform, env);
        out.push(' ');
    }
    if !stage.step_name.is_empty() {
        out += &stage.step_name;
        out.push(' ');
    }
    let width = stage.steps.ilog10() as usize + 1;
    // Writing to a string can't fail.
    let _ = write!(out, "{:width$}/{}] ", stage.step, stage.steps);
    if stage.in_trigger {
        out += "ONBUILD ";
    }
    out + text
}

/// Returns an instruction for a step name: with the keyword in upper case, and with expanded
/// variables if the expansion succeeds.
pub(super) fn of_instruction(text: &str, expander: Expander, env: &dyn Env) -> String {
    let expanded = expander.process_word(text, env).map_or_else(|_| text.to_owned(), |e| e.text);
    match expanded.split_once(' ') {
        Some((keyword, rest)) => format!("{} {rest}", to_upper(keyword)),
        None => to_upper(&expanded),
    }
}

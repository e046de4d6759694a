//! `ENTRYPOINT`: the program that containers run.

use crate::instruction::CommandLine;
use crate::lint::rules;

use super::dispatch::Site;
use super::go_text;
use super::shell;

/// Sets the entrypoint. Removes the base image's default command, which was meant for another
/// program.
pub(super) fn dispatch(site: &mut Site<'_, '_>, command: &CommandLine) {
    let before = site.stage.entrypoint.replace(site.instruction.span);
    if let Some(span) = before {
        let finding = rules::multiple_instructions_disallowed(&site.instruction.keyword);
        site.lowering.checks.report(finding, Some(span));
    }
    let args = shell::checked_command(site, command);
    let text = format!("ENTRYPOINT {}", go_text::quote_list(&args));
    let keeps_command = site.stage.cmd.is_some();
    let config = &mut site.stage.image_mut().config;
    config.entrypoint = Some(args);
    if !keeps_command {
        config.cmd = None;
    }
    site.commit(text, false);
}

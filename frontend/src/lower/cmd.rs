//! `CMD`: the default command of containers.

use crate::instruction::CommandLine;
use crate::lint::rules;

use super::dispatch::Site;
use super::go_text;
use super::shell;

/// Sets the image's default command.
pub(super) fn dispatch(site: &mut Site<'_, '_>, command: &CommandLine) {
    let before = site.stage.cmd.replace(site.instruction.span);
    if let Some(span) = before {
        let finding = rules::multiple_instructions_disallowed(&site.instruction.keyword);
        site.lowering.checks.report(finding, Some(span));
    }
    let args = shell::checked_command(site, command);
    let text = format!("CMD {}", go_text::quote_list(&args));
    let config = &mut site.stage.image_mut().config;
    config.cmd = Some(args);
    config.args_escaped = true;
    site.commit(text, false);
}

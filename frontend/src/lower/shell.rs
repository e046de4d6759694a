//! `SHELL`, and the shell form of commands.

use kiln_oci::ImageConfig;

use crate::instruction::CommandLine;
use crate::lint::rules;

use super::dispatch::Site;
use super::go_text;

/// Sets the shell of the shell form.
pub(super) fn dispatch(site: &mut Site<'_, '_>, words: &[String]) {
    site.stage.image_mut().config.shell = words.to_vec();
    site.commit(format!("SHELL {}", go_text::list(words)), false);
}

/// Prepends the shell to a command.
pub(super) fn with_shell(image: &ImageConfig, args: &[String]) -> Vec<String> {
    let default: &[&str] =
        if image.os == "windows" { &["cmd", "/S", "/C"] } else { &["/bin/sh", "-c"] };
    let mut words = image.config.shell.clone();
    if words.is_empty() {
        words = default.iter().map(|word| (*word).to_owned()).collect();
    }
    words.push(args.join(" "));
    words
}

/// Returns the words of a `CMD` or `ENTRYPOINT`. Reports the shell form if the Dockerfile doesn't
/// choose a shell.
pub(super) fn checked_command(site: &mut Site<'_, '_>, command: &CommandLine) -> Vec<String> {
    if !command.prepend_shell {
        return command.args.clone();
    }
    if site.stage.image.config.shell.is_empty() {
        site.report(rules::json_args_recommended(&site.instruction.keyword));
    }
    with_shell(&site.stage.image, &command.args)
}

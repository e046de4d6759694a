//! The command line of a build, in a form for display and for the history.

#![expect(clippy::disallowed_methods, reason = "the command line reads the environment")]

use std::ffi::OsString;

use kiln::redact;

use crate::arguments::flags;

/// The option that opens a shell in a failed step.
const ON_ERROR: &str = "--on-error";

/// The words after the program's name, without credentials.
#[derive(Clone, Debug)]
pub(crate) struct Invocation {
    arguments: Vec<String>,
}

impl Invocation {
    /// Returns the invocation of this process.
    pub(crate) fn current() -> Self {
        Self::of(std::env::args_os().skip(1))
    }

    fn of(arguments: impl IntoIterator<Item = OsString>) -> Self {
        let mut safe: Vec<String> = Vec::new();
        for argument in arguments {
            let text = argument.to_string_lossy();
            let build_arg = match (text.strip_prefix("--build-arg="), safe.last()) {
                (Some(value), _) => Some(("--build-arg=", value)),
                (None, Some(last)) if last == "--build-arg" => Some(("", text.as_ref())),
                _ => None,
            };
            safe.push(match build_arg {
                Some((flag, value)) => format!("{flag}{}", build_argument(value)),
                None => redact::argument(&text),
            });
        }
        Self { arguments: safe }
    }

    /// Returns the command line, quoted for a shell.
    pub(crate) fn command(&self) -> String {
        words(self.arguments.iter().map(String::as_str))
    }

    /// Returns the same command line with the option that opens a shell in the failed step.
    pub(crate) fn entering(&self) -> String {
        let command = flags::command_at(&self.arguments);
        // `build` stands alone or follows the name of a command group.
        let groups = ["image", "buildx", "builder"];
        let is_group = |name: &String| groups.contains(&name.as_str());
        let subcommand = command + usize::from(self.arguments.get(command).is_some_and(is_group));
        let mut typed = self.arguments.iter().enumerate();
        let mut entering = Vec::new();
        while let Some((number, argument)) = typed.next() {
            if argument == ON_ERROR {
                typed.next();
            } else if !argument.starts_with("--on-error=") {
                entering.push(argument.as_str());
            }
            if number == subcommand {
                entering.push("--on-error=shell");
            }
        }
        words(entering.into_iter())
    }
}

/// Returns a build argument. If its value is a credential, returns only the name, which makes kiln
/// read the value from the environment.
fn build_argument(text: &str) -> String {
    match text.split_once('=') {
        Some((name, value)) if redact::is_credential(name, value) => name.to_owned(),
        _ => redact::urls(text).into_owned(),
    }
}

/// Returns a kiln command line, quoted for a shell.
fn words<'a>(arguments: impl Iterator<Item = &'a str>) -> String {
    let words = std::iter::once("kiln".to_owned()).chain(arguments.map(quoted));
    words.collect::<Vec<_>>().join(" ")
}

/// Quotes a word for a shell if necessary.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(words: &[&str]) -> Invocation {
        Invocation::of(words.iter().map(OsString::from))
    }

    #[test]
    fn the_command_that_enters_is_what_was_typed() {
        for (words, entering) in [
            (&["build", "."][..], "kiln build --on-error=shell ."),
            (
                &["--root", "build", "-D", "b", "--target", "it's", "-t", "a b", "--", "."],
                "kiln --root build -D b --on-error=shell --target 'it'\\''s' -t 'a b' -- .",
            ),
            (&["-D", "image", "build", "x"], "kiln -D image build --on-error=shell x"),
            (&["build", "--on-error", "fail", "x"], "kiln build --on-error=shell x"),
            (&["build", "--on-error=fail", ""], "kiln build --on-error=shell ''"),
        ] {
            assert_eq!(typed(words).entering(), entering);
        }
    }

    #[test]
    fn no_credential_is_in_it() {
        let invocation = typed(&[
            "build",
            "--build-arg",
            "NPM_TOKEN=x",
            "--build-arg=http_proxy=http://u:p@h",
            "--build-arg",
            "A=1",
            "--secret",
            "id=token,env=TOKEN",
            "https://u:p@h/x.git",
        ]);
        assert_eq!(
            invocation.command(),
            "kiln build --build-arg NPM_TOKEN --build-arg=http_proxy --build-arg A=1 \
             --secret id=token,env=TOKEN https://h/x.git"
        );
    }
}

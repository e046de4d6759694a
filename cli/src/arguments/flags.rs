//! Flags, parsed as docker parses them.
//!
//! Users, scripts and editors rely on the habits of docker's parser. This module gives them to all
//! commands:
//!
//! - a flag without a value accepts one after `=`, in any of Go's spellings: `--pull=false`,
//!   `-i=1`;
//! - if an option with one value is repeated, the last value counts;
//! - an option takes the word that follows it, even `-1`, `--`, or the name of another flag;
//! - if a command ends in the command line of another program, words after the first argument are
//!   not flags (`RunArguments` implements this).
//!
//! Help shows flags without values. So the parser gives flags their values only if it can't parse
//! the words otherwise.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command, CommandFactory, Error, FromArgMatches};
use kiln_oci::text::parse_bool;

use super::{Arguments, docker};

/// A command line that can't be parsed, or that requests help or the version.
#[derive(Debug)]
pub(crate) struct UsageError {
    error: Box<Error>,
    /// The names of the command, such as `["image", "prune"]`.
    path: Vec<String>,
}

impl UsageError {
    /// Replaces the usage in the message by the command's general one: clap's would list options
    /// whose values came from the environment as if the user had typed them.
    fn new(mut error: Error, path: Vec<String>, command: &Command) -> Self {
        let below = |command, name| Command::find_subcommand(command, name);
        let named = path.iter().try_fold(command, below).unwrap_or(command);
        if error.get(ContextKind::Usage).is_some() {
            let usage = ContextValue::StyledStr(named.clone().render_usage());
            error.insert(ContextKind::Usage, usage);
        }
        Self { error: Box::new(error), path }
    }

    /// Returns clap's error, with the general usage of the command.
    pub(crate) fn error(&self) -> &Error {
        &self.error
    }

    /// Returns docker's name of the command, such as `image prune`.
    pub(crate) fn command(&self) -> String {
        docker::name_of(&self.path())
    }

    fn path(&self) -> Vec<&str> {
        strings(&self.path)
    }

    /// Returns `true` for a request for help or the version, which is not an error.
    #[cfg(test)]
    pub(crate) fn is_help(&self) -> bool {
        !self.error.use_stderr()
    }

    /// Explains why kiln lacks the unknown flag, if the flag is one of docker's.
    pub(crate) fn refusal(&self) -> Option<String> {
        let Some(ContextValue::String(flag)) = self.error.get(ContextKind::InvalidArg) else {
            return None;
        };
        let is_unknown = self.error.kind() == ErrorKind::UnknownArgument;
        if is_unknown && self.command() == "bake" {
            return Some(format!("unknown flag: {flag}"));
        }
        docker::refused_flag(&self.path(), flag).filter(|_| is_unknown)
    }
}

fn strings(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}

/// Parses a command line. The first word is the program's name.
pub(super) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Arguments, UsageError> {
    let words: Vec<OsString> = words.into_iter().collect();
    let error = match parse_by(Arguments::command(), &words) {
        Ok(arguments) => return Ok(arguments),
        Err(error) => error,
    };
    let mut command = Arguments::command();
    command.build();
    let path = path_of(&command, &words);
    let words = if ["bake", "build"].contains(&docker::name_of(&strings(&path)).as_str()) {
        with_next(words)
    } else {
        words
    };
    if error.use_stderr() && words.iter().any(|word| has_value(word)) {
        let command = with_values(command);
        return parse_by(command.clone(), &words)
            .map_err(|error| UsageError::new(error, path, &command));
    }
    Err(UsageError::new(error, path, &command))
}

fn parse_by(mut command: Command, words: &[OsString]) -> Result<Arguments, Error> {
    let mut matches = command.try_get_matches_from_mut(words)?;
    let warnings = docker::warnings(&matches);
    let arguments = Arguments::from_arg_matches_mut(&mut matches);
    arguments
        .map(|arguments| Arguments { warnings, ..arguments })
        .map_err(|error| error.format(&mut command))
}

/// Returns the names of the command that a command line selects.
fn path_of(command: &Command, words: &[OsString]) -> Vec<String> {
    let mut path = Vec::new();
    let mut command = command;
    let mut at = 1;
    while let Some(word) = words.get(at) {
        if word.as_bytes().starts_with(b"-") {
            at += if takes_next(command, word) { 2 } else { 1 };
            continue;
        }
        let Some(below) = command.find_subcommand(word) else { break };
        path.push(below.get_name().to_owned());
        command = below;
        at += 1;
    }
    path
}

/// Returns `true` if a word is an option of the command and takes the next word as its value.
fn takes_next(command: &Command, word: &OsStr) -> bool {
    command.get_arguments().any(|known| {
        let is_it = known.get_long().is_some_and(|long| *word == *format!("--{long}"));
        is_it && known.get_action().takes_values()
    })
}

/// Lets the options of a command take any word that follows them.
pub(crate) fn take_anything(command: Command) -> Command {
    let take_anything = |arg: Arg| {
        let is_option = !arg.is_positional() && arg.get_action().takes_values();
        if is_option { arg.allow_hyphen_values(true) } else { arg }
    };
    command.mut_args(take_anything).mut_subcommands(self::take_anything)
}

/// Lets the flags of a command take a value after `=`.
fn with_values(command: Command) -> Command {
    let with_value = |arg: Arg| match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .value_name("BOOL")
            .default_value("false")
            .default_missing_value("true")
            .value_parser(truth),
        _ => arg,
    };
    command.mut_args(with_value).mut_subcommands(with_values)
}

/// Returns the index of the command's name in the words after the program's name. Global options
/// may precede it.
pub(crate) fn command_at(words: &[impl AsRef<OsStr>]) -> usize {
    let command = Arguments::command();
    let mut at = 0;
    while let Some(word) = words.get(at).map(AsRef::as_ref)
        && word.as_bytes().starts_with(b"-")
    {
        at += if takes_next(&command, word) { 2 } else { 1 };
    }
    at
}

/// Joins flags of builds whose value is optional with the next word if that word can only be a
/// value, as buildx does.
fn with_next(words: Vec<OsString>) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::new();
    for word in words {
        let is_value = word.to_str().is_some_and(|text| {
            let is_parameter = text.starts_with("mode=") || text.starts_with("generator=");
            truth(text).is_ok() || is_parameter
        });
        match joined.last_mut() {
            Some(flag) if is_value && (*flag == "--provenance" || *flag == "--sbom") => {
                flag.push("=");
                flag.push(word);
            }
            _ => joined.push(word),
        }
    }
    joined
}

/// Returns `true` if a word is a flag with a value after `=`.
fn has_value(word: &OsStr) -> bool {
    let bytes = word.as_bytes();
    bytes.starts_with(b"-") && bytes.contains(&b'=')
}

/// Parses a boolean in Go's spellings.
pub(crate) fn truth(text: &str) -> Result<bool, String> {
    parse_bool(text).ok_or_else(|| format!("{text:?} is neither true nor false"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::Command;
    use crate::arguments::progress::ProgressMode;

    fn parse(line: &[&str]) -> Result<Command, String> {
        let words = ["kiln"].iter().chain(line).map(Into::into);
        let parsed = super::parse(words);
        parsed.map(|arguments| arguments.command).map_err(|misread| misread.error.to_string())
    }

    /// Parses the words that follow `kiln run`.
    pub(crate) fn run(line: &[&str]) -> crate::arguments::run::RunArguments {
        match parse(&[&["run"], line].concat()) {
            Ok(Command::Run(arguments)) => arguments.into_inner(),
            other => panic!("{line:?}: {other:?}"),
        }
    }

    fn build(line: &[&str]) -> crate::arguments::build::BuildArguments {
        match parse(&[&["build"], line, &["."]].concat()) {
            Ok(Command::Build(arguments)) => arguments.into_inner(),
            other => panic!("{line:?}: {other:?}"),
        }
    }

    #[test]
    fn quiet_is_a_kind_of_progress() {
        let mode = |line: &[&str], variable: &str| {
            ProgressMode::of(&build(line), Some(variable.to_owned())).map_err(|e| e.to_string())
        };
        assert_eq!(mode(&["-q"], "plain"), Ok(ProgressMode::Quiet));
        assert_eq!(mode(&["-q", "--progress=quiet"], ""), Ok(ProgressMode::Quiet));
        assert_eq!(mode(&["-q", "--progress=plain"], ""), Ok(ProgressMode::Quiet));
        assert_eq!(mode(&["--progress=tty"], "plain"), Ok(ProgressMode::Tty));
        assert_eq!(mode(&[], "rawjson"), Ok(ProgressMode::RawJson));
        assert_eq!(mode(&[], ""), Ok(ProgressMode::Auto));
        let error = mode(&[], "loud").unwrap_err();
        assert!(error.contains("\"loud\", not one of auto, plain"), "{error}");
    }

    #[test]
    fn nothing_behind_the_image_is_a_flag() {
        for behind in [
            &["--version"][..],
            &["--help"],
            &["-u", "root", "z"],
            &["-v", "/etc:/h", "z"],
            &["--", "z"],
            &["--rm", "--no-such", "-D", "--root=/x"],
            &["help"],
            &["sh", "-c", "x", "--", "-e", "A=1"],
        ] {
            let all = [&["--rm", "img"], behind].concat();
            let read = run(&all);
            assert_eq!((read.image(), read.command()), ("img", &strings(behind)[..]));
            assert!(read.rm && read.user.is_none() && read.volumes.is_empty(), "{behind:?}");
        }
        // A `--` before the image ends the options and is dropped.
        assert_eq!(run(&["--rm", "--", "img", "--", "z"]).command(), strings(&["--", "z"]));
        assert_eq!(run(&["--", "-img"]).image(), "-img");
        assert!(parse(&["run", "--no-such", "img"]).unwrap_err().contains("--no-such"));
        assert!(parse(&["run", "--rm"]).unwrap_err().contains("IMAGE"));
    }

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn flags_take_truth_values() {
        assert!(build(&["--no-cache=true", "--pull"]).no_cache);
        assert!(!build(&["--no-cache", "--no-cache=0", "--pull"]).no_cache);
        assert!(build(&["--no-cache=F", "--no-cache=T"]).no_cache);
        let read = run(&["-i=false", "-t=1", "--rm=true", "--read-only=FALSE", "img", "--rm=no"]);
        assert!(!read.interactive && read.tty && read.rm && !read.read_only);
        let read = run(&["-it=false", "--rm=1", "img"]);
        assert!(read.interactive && !read.tty);
        for line in [
            &["rmi", "--force=true", "x"][..],
            &["image", "rm", "-f=true", "x"],
            &["image", "prune", "-af=true"],
            &["images", "-q=true", "--no-trunc=false"],
            &["builder", "prune", "-f=1"],
            &["history", "--human=false", "--no-trunc=true", "x"],
            &["--debug=true", "images"],
            &["pull", "-q=false", "x"],
            &["build", "--provenance", "false", "--sbom", "true", "."],
            &["buildx", "--builder", "x", "build", "--provenance", "mode=max", "."],
            &["build", "--sbom", "generator=scanner:1,ARG=x", "."],
            &["build", "--provenance", "--sbom", "."],
            &["build", "--sbom=true", "--provenance=false", "--pull=false", "."],
        ] {
            parse(line).unwrap();
        }
        let error = parse(&["build", "--no-cache=maybe", "."]).unwrap_err();
        assert!(error.contains("\"maybe\" is neither true nor false"), "{error}");
        // A flag that can't have a value doesn't take the next word.
        assert!(parse(&["build", "--no-cache", "false", "."]).is_err());
    }

    #[test]
    fn the_last_of_several_values_counts() {
        let read = build(&["--progress", "plain", "--progress=quiet", "-f", "a", "--file", "b"]);
        assert_eq!(read.progress, ProgressMode::Quiet);
        assert_eq!(read.file.unwrap().to_str(), Some("b"));
        let read = build(&["-t", "a", "--tag", "b", "--label=x", "--label", "y", "-q", "-q"]);
        assert_eq!((read.tags, read.labels), (strings(&["a", "b"]), strings(&["x", "y"])));
        let read = run(&["-w", "/a", "-w", "/b", "--rm", "--rm", "--cpus=1", "--cpus", "2", "img"]);
        assert_eq!(read.workdir.unwrap().to_str(), Some("/b"));
        for line in [
            &["--root", "/a", "--root=/b", "images", "--format", "x", "--format=y"][..],
            &["--root", "/a", "images", "--root=/b"],
            &["-D", "images", "-D"],
            &["login", "-u", "a", "-u", "b", "--password-stdin", "--password-stdin"],
            &["save", "-o", "a", "-o", "b", "img"],
            &["import", "-m", "a", "-m", "b", "-"],
            &["pull", "--platform", "linux/arm64", "--platform=linux/amd64", "x"],
            &["image", "inspect", "-f", "a", "-f", "b", "img"],
            &["builder", "prune", "--keep-storage", "1g", "--keep-storage", "2g"],
        ] {
            parse(line).unwrap();
        }
    }

    #[test]
    fn options_take_what_follows_them() {
        let read =
            run(&["--entrypoint", "--", "-e", "-x=1", "-w", "-d", "--cpu-quota", "-1", "img"]);
        assert_eq!(read.entrypoint.as_deref(), Some("--"));
        assert_eq!((read.image(), read.env.as_slice()), ("img", &strings(&["-x=1"])[..]));
        let read = build(&["--build-arg", "--flag=1", "--label", "-x", "--memory-swap", "-1"]);
        assert_eq!(read.build_args, ["--flag=1"]);
        assert_eq!(read.labels, ["-x"]);
    }

    #[test]
    fn help_shows_flags_without_values() {
        let help = parse(&["build", "--help"]).unwrap_err();
        assert!(help.contains("--no-cache\n") && !help.contains("BOOL"), "{help}");
    }
}

//! The commands and flags of docker, and their support in kiln.
//!
//! `docker/table.tsv` has a line for each: the command, the flag (empty in a line about a command),
//! an example value, the support, and a note. A flag works, is accepted without effect, or is
//! refused with the note as the reason. The parser accepts and refuses flags by these lines. A `!`
//! before the note of an accepted flag makes the note a warning. `docs/reference/docker.md` shows the table.

use clap::{Arg, ArgAction, ArgMatches, Command, parser::ValueSource};

/// The contents of the table.
const TABLE: &str = include_str!("docker/table.tsv");

/// The support of a command or flag in kiln.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// kiln implements it like docker.
    Works,
    /// kiln parses it, without effect.
    Accepted,
    /// kiln rejects it.
    Refused,
}

/// A line of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// The command, such as `image prune`.
    pub(crate) command: &'static str,
    /// The flag's short form.
    short: Option<char>,
    /// The flag's name without dashes; empty in a line about the command itself.
    pub(crate) long: &'static str,
    /// An example of the flag's value; empty if the flag takes none.
    pub(crate) example: &'static str,
    /// The support in kiln.
    pub(crate) state: State,
    /// The reason for the state, or the alternative.
    pub(crate) note: &'static str,
    /// `true` if the note is a warning.
    pub(crate) warns: bool,
}

impl Row {
    fn parse(line: &'static str) -> Option<Self> {
        let mut fields = line.split('\t');
        let mut next = || fields.next();
        let (command, flag, example, state, note) = (next()?, next()?, next()?, next()?, next()?);
        let (short, long) = flag.split_once(' ').unwrap_or(("", flag));
        let state = match state {
            "works" => State::Works,
            "accepted" => State::Accepted,
            _ => State::Refused,
        };
        let warning = note.strip_prefix('!');
        Some(Self {
            command,
            short: short.chars().nth(1),
            long: long.trim_start_matches('-'),
            example,
            state,
            note: warning.unwrap_or(note),
            warns: warning.is_some(),
        })
    }

    /// Returns `true` if a word is this flag in its long or short form.
    fn is_flag(&self, word: &str) -> bool {
        match word.strip_prefix("--") {
            Some(long) => !long.is_empty() && self.long == long,
            None => self.short.is_some_and(|short| word == format!("-{short}")),
        }
    }

    /// Returns the parser's description of a flag without effect.
    fn describe(&self) -> Arg {
        let takes_value = !self.example.is_empty();
        let action = if takes_value { ArgAction::Append } else { ArgAction::SetTrue };
        let arg = Arg::new(self.id()).long(self.long).action(action).hide(true);
        match self.short {
            Some(short) => arg.short(short),
            None => arg,
        }
    }

    /// Returns the parser's ID of the flag. It can't clash with kiln's own IDs, which contain no
    /// dashes.
    fn id(&self) -> String {
        format!("docker-{}", self.long)
    }
}

/// Returns all lines of the table, in the table's order.
pub(crate) fn rows() -> impl Iterator<Item = Row> {
    TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(Row::parse)
}

/// Returns the table's name for a kiln command. `path` holds the names of the command and its
/// groups.
pub(crate) fn name_of(path: &[&str]) -> String {
    match path {
        ["inspect"] => "image inspect".to_owned(),
        ["prune"] | ["buildx", "prune"] => "builder prune".to_owned(),
        ["image", "ls"] => "images".to_owned(),
        ["image", "rm"] => "rmi".to_owned(),
        ["buildx", "b"] => "build".to_owned(),
        ["buildx", "bake" | "f"] => "bake".to_owned(),
        [
            "image",
            name @ ("build" | "history" | "import" | "load" | "pull" | "push" | "save" | "tag"),
        ]
        | ["container", name @ "run"]
        | ["builder" | "buildx", name @ "build"]
        | ["system", name @ "info"] => (*name).to_owned(),
        path => path.join(" "),
    }
}

/// Adds the flags without effect to a command and its subcommands.
pub(crate) fn accept(command: Command) -> Command {
    let name = command.get_name().to_owned();
    accept_below(command, &[&name])
}

fn accept_below(mut command: Command, path: &[&str]) -> Command {
    let name = name_of(path);
    for row in accepted(&name) {
        command = command.arg(row.describe());
    }
    let names: Vec<String> =
        command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    for name in names {
        command = command
            .mut_subcommand(&name, |below| accept_below(below, &[path, &[name.as_str()]].concat()));
    }
    command
}

fn accepted(command: &str) -> impl Iterator<Item = Row> {
    let is_it = move |row: &Row| row.state == State::Accepted && row.command == command;
    rows().filter(is_it)
}

/// Returns warnings about flags without effect on the command line.
pub(crate) fn warnings(matches: &ArgMatches) -> Vec<String> {
    let (mut path, mut matches) = (Vec::new(), matches);
    let mut warnings = Vec::new();
    while let Some((name, below)) = matches.subcommand() {
        path.push(name);
        matches = below;
        let is_typed = |row: &Row| {
            let id = row.id();
            matches.try_contains_id(&id).is_ok_and(|is_there| is_there)
                && matches.value_source(&id) == Some(ValueSource::CommandLine)
        };
        let typed = accepted(&name_of(&path)).collect::<Vec<_>>();
        let typed = typed.iter().filter(|row| row.warns && is_typed(row));
        warnings.extend(typed.map(|row| format!("--{} has no effect: {}", row.long, row.note)));
    }
    warnings
}

/// Explains why kiln lacks a flag of docker's; returns `None` if docker doesn't have it either.
pub(crate) fn refused_flag(path: &[&str], flag: &str) -> Option<String> {
    let name = name_of(path);
    let is_it = |row: &Row| row.state == State::Refused && row.is_flag(flag);
    let found = rows().find(|row| row.command == name && is_it(row));
    let row = found.or_else(|| rows().find(|row| row.command == "docker" && is_it(row)))?;
    Some(format!("there is no --{}: {}", row.long, row.note))
}

/// Explains why kiln lacks a command of docker's; returns `None` if docker doesn't have it either.
pub(crate) fn refused_command(path: &[&str]) -> Option<String> {
    let name = path.join(" ");
    let is_it = |row: &Row| row.long.is_empty() && row.command == name;
    let row = rows().find(|row| is_it(row) && row.state == State::Refused)?;
    Some(format!("kiln has no `{name}`: {}", row.note))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;
    use crate::arguments::Arguments;
    use crate::arguments::flags::UsageError;

    /// The arguments that each command requires after its flags.
    const BEHIND: &[(&str, &str)] = &[
        ("build", "."),
        ("run", "img"),
        ("history", "x"),
        ("import", "-"),
        ("image inspect", "x"),
        ("pull", "x"),
        ("push", "x"),
        ("rmi", "x"),
        ("save", "x"),
        ("manifest inspect", "x"),
        ("docker", "images"),
        ("buildx", "version"),
    ];

    fn read(words: &str) -> Result<Arguments, UsageError> {
        Arguments::read(words.split_whitespace().map(Into::into))
    }

    fn flags() -> impl Iterator<Item = Row> {
        rows().filter(|row| !row.long.is_empty())
    }

    /// Returns command lines with the flag in each form that docker's parser accepts.
    fn lines(row: &Row) -> Vec<String> {
        let command = if row.command == "docker" { "" } else { row.command };
        let behind = BEHIND.iter().find(|(name, _)| *name == row.command);
        let behind = behind.map_or("", |(_, words)| words);
        let mut typed = match row.example {
            "" => vec![format!("--{}", row.long), format!("--{}=true", row.long)],
            value => vec![format!("--{} {value}", row.long), format!("--{}={value}", row.long)],
        };
        typed.extend(row.short.map(|short| format!("-{short} {}", row.example)));
        typed.retain(|typed| !matches!(typed.as_str(), "--help=true" | "--version=true"));
        typed.iter().map(|typed| format!("kiln {command} {typed} {behind}")).collect()
    }

    #[test]
    fn every_flag_is_taken_or_refused_as_the_table_says() {
        for row in flags() {
            for line in lines(&row) {
                match (read(&line), row.state) {
                    (Ok(read), state) if state != State::Refused => {
                        assert_eq!(!read.warnings.is_empty(), row.warns, "{line}");
                    }
                    (Err(misread), State::Works) if misread.is_help() => {}
                    (Err(misread), State::Refused) => {
                        let refusal = misread.refusal().unwrap_or_default();
                        assert!(refusal.ends_with(row.note), "{line}: {misread:?}");
                    }
                    (read, state) => panic!("{line}: {state:?}, but {read:?}"),
                }
            }
        }
    }

    #[test]
    fn every_command_is_there_or_refused_as_the_table_says() {
        let commands = rows().filter(|row| row.long.is_empty());
        let named = flags().filter(|row| row.command != "docker");
        for row in commands.chain(named.map(|row| Row { state: State::Works, ..row })) {
            let line = format!("kiln {} --help", row.command);
            match (read(&line), row.state) {
                (Err(misread), State::Works) => assert!(misread.is_help(), "{line}: {misread:?}"),
                (Ok(_), State::Refused) => {
                    let path: Vec<&str> = row.command.split(' ').collect();
                    assert!(refused_command(&path).unwrap().ends_with(row.note), "{line}");
                }
                (read, state) => panic!("{line}: {state:?}, but {read:?}"),
            }
        }
    }

    #[test]
    fn flags_have_one_line() {
        let mut seen = std::collections::BTreeSet::new();
        for row in rows() {
            assert!(seen.insert((row.command, row.long)), "{row:?}");
            let has_reason = !row.note.is_empty();
            assert!(has_reason || row.state == State::Works, "{row:?}");
        }
    }

    /// Returns the tables of the documentation.
    fn tables() -> String {
        let mut text = String::from("\n## Commands\n\n| docker | kiln |\n| --- | --- |\n");
        let line = |row: &Row| match (row.state, row.note) {
            (State::Works, "") => "works".to_owned(),
            (State::Works, note) => format!("works: {note}"),
            (State::Accepted, note) => format!("accepted, without effect: {note}"),
            (State::Refused, note) => format!("refused: {note}"),
        };
        for row in rows().filter(|row| row.long.is_empty()) {
            writeln!(text, "| `{}` | {} |", row.command, line(&row)).unwrap();
        }
        let mut command = "";
        for row in flags() {
            if row.command != command {
                command = row.command;
                let title = if command == "docker" {
                    "Flags before the command".to_owned()
                } else {
                    format!("`{command}`")
                };
                write!(text, "\n## {title}\n\n| flag | kiln |\n| --- | --- |\n").unwrap();
            }
            let short = row.short.map(|short| format!("`-{short}`, ")).unwrap_or_default();
            writeln!(text, "| {short}`--{}` | {} |", row.long, line(&row)).unwrap();
        }
        text
    }

    #[test]
    fn the_documentation_has_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/docker.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (own, shown) = text.split_at(text.find("\n## Commands\n").unwrap());
        if std::env::var_os("KILN_WRITE_DOCS").is_some() {
            std::fs::write(path, format!("{own}{}", tables())).unwrap();
            return;
        }
        let advice = "run `KILN_WRITE_DOCS=1 cargo test -p kiln-cli docker` and look at the change";
        assert!(
            shown == tables(),
            "docs/reference/docker.md differs from cli/src/arguments/docker/table.tsv: {advice}"
        );
    }
}

//! The parts of a logical line: keyword, flags and arguments.

use super::{json, words};
use crate::error::Span;
use crate::instruction::{Heredoc, KeyValue};
use crate::text::to_lower;

/// The parts of a logical line.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// The keyword, as written.
    pub(super) keyword: String,
    /// The line as written, with continuations joined and without heredocs.
    pub(super) original: String,
    /// The flags without quotes and escapes: `--name=value`.
    pub(super) flags: Vec<String>,
    pub(super) args: Args,
    pub(super) heredocs: Vec<Heredoc>,
    pub(super) span: Span,
    /// The comment lines in front of the line.
    pub(super) comments: Vec<String>,
}

/// The text behind the flags. Its form depends on the instruction.
#[derive(Debug, Default)]
pub(super) enum Args {
    /// No arguments, or an unknown instruction.
    #[default]
    None,
    /// A list of words, or the whole text as one word.
    Words(Vec<String>),
    /// The strings of a JSON array.
    Json(Vec<String>),
    /// The pairs of `ENV` or `LABEL`.
    Pairs(Vec<KeyValue>),
    /// The type of a `HEALTHCHECK`, and the words of its command.
    Typed { word: String, command: Vec<String>, is_json: bool },
    /// The keyword of an `ONBUILD` trigger. Heredocs may follow if the flag is set.
    Trigger { keyword: String, may_have_heredocs: bool },
}

impl Node {
    /// Splits a logical line. The caller adds the span and the heredocs.
    pub(super) fn parse(line: &str, escape: char, comments: Vec<String>) -> Result<Self, String> {
        let (keyword, flags, rest) = words::split_command(line, escape);
        let args = match to_lower(&keyword).as_str() {
            "onbuild" => trigger(&rest, escape)?,
            name => args(name, &rest, escape)?,
        };
        Ok(Self { keyword, original: line.to_owned(), flags, args, comments, ..Self::default() })
    }

    /// Returns `true` if `<<` begins a heredoc in this instruction.
    pub(super) fn may_have_heredocs(&self) -> bool {
        match &self.args {
            Args::Trigger { may_have_heredocs, .. } => *may_have_heredocs,
            args => takes_heredocs(&self.keyword, args),
        }
    }
}

fn takes_heredocs(keyword: &str, args: &Args) -> bool {
    let keyword = to_lower(keyword);
    matches!(keyword.as_str(), "add" | "copy" | "run") && !matches!(args, Args::Json(_))
}

/// Splits the trigger of an `ONBUILD`. For nested `ONBUILD`s, splits the innermost trigger.
fn trigger(rest: &str, escape: char) -> Result<Args, String> {
    let mut outermost: Option<Args> = None;
    let mut rest = rest.to_owned();
    while !rest.is_empty() {
        let (keyword, _, inner) = words::split_command(&rest, escape);
        let name = to_lower(&keyword);
        let nested = name == "onbuild";
        let args = if nested { Args::None } else { args(&name, &inner, escape)? };
        let may_have_heredocs = takes_heredocs(&keyword, &args);
        outermost.get_or_insert(Args::Trigger { keyword, may_have_heredocs });
        if !nested {
            break;
        }
        rest = inner;
    }
    Ok(outermost.unwrap_or_default())
}

fn args(name: &str, rest: &str, escape: char) -> Result<Args, String> {
    Ok(match name {
        "add" | "copy" | "volume" => match json::strings(rest)? {
            Some(strings) => Args::Json(strings),
            None => Args::Words(words::split_blanks(rest)),
        },
        "cmd" | "entrypoint" | "run" | "shell" => match json::strings(rest)? {
            Some(strings) => Args::Json(strings),
            None => Args::Words(whole(rest)),
        },
        "expose" | "from" => Args::Words(words::split_blanks(rest)),
        "maintainer" | "stopsignal" | "user" | "workdir" => Args::Words(whole(rest)),
        "arg" => Args::Words(words::split_quoted(rest, escape)),
        "env" => Args::Pairs(pairs(rest, "ENV", escape)?),
        "label" => Args::Pairs(pairs(rest, "LABEL", escape)?),
        "healthcheck" => healthcheck(rest)?,
        _ => Args::None,
    })
}

fn whole(rest: &str) -> Vec<String> {
    if rest.is_empty() { Vec::new() } else { vec![rest.to_owned()] }
}

fn pairs(rest: &str, keyword: &str, escape: char) -> Result<Vec<KeyValue>, String> {
    let words = words::split_quoted(rest, escape);
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.contains('=') {
        let Some((key, value)) = words::split_blank(rest) else {
            return Err(format!("{keyword} must have two arguments"));
        };
        return Ok(vec![KeyValue { key: key.into(), value: value.into(), delimiter: false }]);
    }
    let pair = |word: &String| match word.split_once('=') {
        Some((key, value)) => {
            Ok(KeyValue { key: key.into(), value: value.into(), delimiter: true })
        }
        None => Err(format!(
            "Syntax error - can't find = in {}. Must be of the form: name=value",
            crate::text::quote(word)
        )),
    };
    words.iter().map(pair).collect()
}

fn healthcheck(rest: &str) -> Result<Args, String> {
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    if end == 0 {
        return Ok(Args::None);
    }
    let (word, command) = rest.split_at(end);
    let command = command.trim_start();
    let word = word.to_owned();
    Ok(match json::strings(command)? {
        Some(strings) => Args::Typed { word, command: strings, is_json: true },
        None => Args::Typed { word, command: whole(command), is_json: false },
    })
}

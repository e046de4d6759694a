//! A scanner for words.

use std::collections::BTreeSet;

use super::limits::Limits;
use super::{Env, Expander, pattern};
use crate::error::Error;
use crate::text::quote;

/// The greatest depth to which substitutions may nest.
const DEEPEST: usize = 200;

/// The words that a scan has finished. The unfinished word is in the buffer that all scans share.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    in_word: bool,
}

impl Words {
    fn push(&mut self, buffer: &mut String, c: char) {
        if !c.is_whitespace() {
            self.push_raw(buffer, c);
        } else if self.in_word && !buffer.is_empty() {
            self.done.push(std::mem::take(buffer));
            self.in_word = false;
        }
    }

    fn push_raw(&mut self, buffer: &mut String, c: char) {
        buffer.push(c);
        self.in_word = true;
    }

    fn finish(mut self, buffer: &mut String) -> Vec<String> {
        if !buffer.is_empty() {
            self.done.push(std::mem::take(buffer));
        }
        self.done
    }
}

/// A scan of a single word.
pub(super) struct Scan<'a> {
    options: &'a Expander,
    env: &'a dyn Env,
    chars: Vec<char>,
    position: usize,
    raw_escapes: bool,
    depth: usize,
    limits: Limits,
    buffer: String,
    pub(super) matched: BTreeSet<String>,
    pub(super) unmatched: BTreeSet<String>,
}

impl<'a> Scan<'a> {
    pub(super) fn new(options: &'a Expander, word: &str, env: &'a dyn Env) -> Self {
        Self {
            options,
            env,
            // A byte-order mark at the beginning is ignored.
            chars: word.strip_prefix('\u{feff}').unwrap_or(word).chars().collect(),
            position: 0,
            raw_escapes: options.raw_escapes,
            depth: 0,
            limits: Limits::of(word.len()),
            buffer: String::new(),
            matched: BTreeSet::new(),
            unmatched: BTreeSet::new(),
        }
    }

    pub(super) fn run(&mut self, source: &str) -> Result<(String, Vec<String>), Error> {
        self.scan_until(None, self.raw_escapes).map_err(|message| {
            Error::new(format!("failed to process {}: {message}", quote(source)))
        })
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.position).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.position += 1;
        Some(c)
    }

    fn scan_until(
        &mut self,
        stop: Option<char>,
        raw_escapes: bool,
    ) -> Result<(String, Vec<String>), String> {
        if self.depth >= DEEPEST {
            return Err("syntax error: substitutions are nested too deeply".into());
        }
        let outer = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        self.depth += 1;
        let result = self.scan_inner(stop);
        self.depth -= 1;
        self.raw_escapes = outer;
        result
    }

    fn scan_inner(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), String> {
        let mut result = String::new();
        let mut words = Words::default();
        self.buffer.clear();
        while let Some(c) = self.peek() {
            if stop == Some(c) {
                self.position += 1;
                return Ok((result, words.finish(&mut self.buffer)));
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    value.chars().for_each(|c| words.push(&mut self.buffer, c));
                    result.push_str(&value);
                }
                '<' | '\'' | '"' if c == '<' || !self.options.skip_quotes => {
                    let piece = match c {
                        '<' => self.possible_heredoc(),
                        '\'' => self.single_quoted()?,
                        _ => self.double_quoted()?,
                    };
                    self.buffer.push_str(&piece);
                    words.in_word = true;
                    result.push_str(&piece);
                }
                _ => self.plain(&mut result, &mut words),
            }
        }
        match stop {
            Some(stop) => {
                Err(format!("unexpected end of statement while looking for matching {stop}"))
            }
            None => Ok((result, words.finish(&mut self.buffer))),
        }
    }

    /// Consumes a literal character, or an escape character and the character that it escapes.
    fn plain(&mut self, result: &mut String, words: &mut Words) {
        let Some(mut c) = self.next() else { return };
        if c == self.options.escape {
            if self.raw_escapes {
                words.push_raw(&mut self.buffer, c);
                result.push(c);
            }
            match self.next() {
                Some(kept) => c = kept,
                None => return,
            }
            words.push_raw(&mut self.buffer, c);
        } else {
            words.push(&mut self.buffer, c);
        }
        result.push(c);
    }

    fn single_quoted(&mut self) -> Result<String, String> {
        let mut result = String::new();
        self.position += 1;
        if self.options.raw_quotes {
            result.push('\'');
        }
        loop {
            match self.next() {
                None => {
                    return Err(
                        "unexpected end of statement while looking for matching single-quote"
                            .into(),
                    );
                }
                Some('\'') => break,
                Some(c) => result.push(c),
            }
        }
        if self.options.raw_quotes {
            result.push('\'');
        }
        Ok(result)
    }

    fn double_quoted(&mut self) -> Result<String, String> {
        let mut result = String::new();
        self.position += 1;
        if self.options.raw_quotes {
            result.push('"');
        }
        loop {
            match self.peek() {
                None => {
                    return Err(
                        "unexpected end of statement while looking for matching double-quote"
                            .into(),
                    );
                }
                Some('"') => break,
                Some('$') => result.push_str(&self.dollar()?),
                Some(c) => self.plain_in_double_quotes(c, &mut result),
            }
        }
        self.position += 1;
        if self.options.raw_quotes {
            result.push('"');
        }
        Ok(result)
    }

    fn plain_in_double_quotes(&mut self, mut c: char, result: &mut String) {
        self.position += 1;
        let escape = self.options.escape;
        if c == escape {
            if self.raw_escapes {
                result.push(c);
            }
            match self.peek() {
                None => return,
                Some(kept) if kept == '"' || kept == '$' || kept == escape => {
                    self.position += 1;
                    c = kept;
                }
                Some(_) => {}
            }
        }
        result.push(c);
    }

    /// Consumes the `<<` of a heredoc and the blanks behind it, which belong to the heredoc's word.
    fn possible_heredoc(&mut self) -> String {
        self.position += 1;
        if self.peek() != Some('<') {
            return "<".into();
        }
        self.position += 1;
        let mut result = String::from("<<");
        while let Some(c @ ('\t' | '\r' | ' ')) = self.peek() {
            result.push(c);
            self.position += 1;
        }
        result
    }

    fn dollar(&mut self) -> Result<String, String> {
        self.position += 1;
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".into());
            }
            return Ok(match self.lookup(&name)? {
                None if self.options.skip_unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.position += 1;
        match self.peek() {
            None => return Err("syntax error: missing '}'".into()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".into()),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            Some('}') => Ok(match self.lookup(&name)? {
                None if self.options.skip_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some(':') => {
                let operator = self.next();
                self.operation(&name, operator, true)
            }
            Some('/') => self.replacement(&name),
            Some(operator @ ('+' | '-' | '?' | '#' | '%')) => {
                self.operation(&name, Some(operator), false)
            }
            operator => Err(unsupported("", operator)),
        }
    }

    /// Evaluates `${name-word}` and the like. The scan is behind the operator.
    fn operation(
        &mut self,
        name: &str,
        operator: Option<char>,
        null_is_unset: bool,
    ) -> Result<String, String> {
        let colon = if null_is_unset { ":" } else { "" };
        let is_pattern = matches!(operator, Some('#' | '%'));
        if null_is_unset && is_pattern {
            return Err(unsupported(colon, operator));
        }
        let (word, _) = self.scan_until(Some('}'), is_pattern).map_err(|message| {
            if self.peek().is_none() { "syntax error: missing '}'".into() } else { message }
        })?;
        let value = self.lookup(name)?;
        let shown = operator.unwrap_or(char::REPLACEMENT_CHARACTER);
        if self.options.skip_unset && value.is_none() {
            return Ok(format!("${{{name}{colon}{shown}{word}}}"));
        }
        let is_set = value.as_ref().is_some_and(|value| !(null_is_unset && value.is_empty()));
        match operator {
            Some('-') => Ok(value.filter(|_| is_set).unwrap_or(word)),
            Some('+') => Ok(if is_set { word } else { String::new() }),
            Some('?') => required(name, value, is_set, &word),
            Some(side @ ('#' | '%')) => {
                let (word, greedy) = match word.strip_prefix(side) {
                    Some(rest) => (rest, true),
                    None => (word.as_str(), false),
                };
                let value = value.unwrap_or_default();
                let trim = if side == '%' { pattern::trim_suffix } else { pattern::trim_prefix };
                trim(word, &value, greedy, &mut self.limits)
            }
            _ => Err(unsupported(colon, operator)),
        }
    }

    /// Evaluates `${name/pattern/replacement}`. The scan is behind the first slash.
    fn replacement(&mut self, name: &str) -> Result<String, String> {
        let all = self.peek() == Some('/');
        if all {
            self.position += 1;
        }
        let (pattern, _) = self.scan_until(Some('/'), true).map_err(|message| {
            if self.peek().is_none() { "syntax error: missing '/' in ${}".into() } else { message }
        })?;
        let (replacement, _) = self.scan_until(Some('}'), true).map_err(|message| {
            if self.peek().is_none() { "syntax error: missing '}'".into() } else { message }
        })?;
        let value = self.lookup(name)?;
        if self.options.skip_unset && value.is_none() {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        }
        let replace = if all { pattern::replace_all } else { pattern::replace_first };
        replace(&pattern, &value.unwrap_or_default(), &replacement, &mut self.limits)
    }

    /// Consumes a name: digits, one special parameter, or letters, digits and underscores.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            Some(c) if c.is_ascii_digit() => {
                while let Some(c) = self.peek().filter(char::is_ascii_digit) {
                    self.position += 1;
                    name.push(c);
                }
            }
            Some(c) if "@*#?-$!".contains(c) => {
                self.position += 1;
                name.push(c);
            }
            _ => {
                while let Some(c) = self.peek().filter(|c| is_name(*c)) {
                    self.position += 1;
                    name.push(c);
                }
            }
        }
        name
    }

    fn lookup(&mut self, name: &str) -> Result<Option<String>, String> {
        let value = self.env.get(name);
        self.limits.bytes(value.map_or(0, str::len))?;
        let names = if value.is_some() { &mut self.matched } else { &mut self.unmatched };
        if !names.contains(name) {
            names.insert(name.to_owned());
        }
        Ok(value.map(str::to_owned))
    }
}

fn is_name(c: char) -> bool {
    c.is_alphabetic() || c.is_ascii_digit() || c == '_'
}

fn unsupported(colon: &str, operator: Option<char>) -> String {
    let shown = operator.unwrap_or(char::REPLACEMENT_CHARACTER);
    format!("unsupported modifier ({colon}{shown}) in substitution")
}

fn required(
    name: &str,
    value: Option<String>,
    is_set: bool,
    message: &str,
) -> Result<String, String> {
    let missing = if value.is_none() { "unset" } else { "empty" };
    match value {
        Some(value) if is_set => Ok(value),
        _ if message.is_empty() => Err(format!("{name}: is not allowed to be {missing}")),
        _ => Err(format!("{name}: {message}")),
    }
}

//! Directives: `# name=value` on the first lines of a Dockerfile.

use std::collections::BTreeMap;

use crate::error::{Error, Span};
use crate::instruction::Directive;
use crate::text::to_lower;

const NAMES: [&str; 3] = ["syntax", "escape", "check"];

/// A reader of directives, which stops at the first line without one.
#[derive(Debug)]
pub(crate) struct Directives<'a> {
    prefix: &'a str,
    seen: Vec<Directive>,
    line: u32,
    done: bool,
}

impl<'a> Directives<'a> {
    /// Returns a reader for comments that begin with `prefix`.
    pub(crate) fn new(prefix: &'a str) -> Self {
        Self { prefix, seen: Vec::new(), line: 0, done: false }
    }

    /// Reads a line. Returns its directive, if it has one.
    pub(crate) fn take(&mut self, line: &str) -> Result<Option<&Directive>, Error> {
        self.line += 1;
        if self.done {
            return Ok(None);
        }
        let Some((name, value)) =
            line.strip_prefix(self.prefix).and_then(|text| split(text.trim_start()))
        else {
            self.done = true;
            return Ok(None);
        };
        let span = Span::line(self.line);
        if self.seen.iter().any(|seen| seen.name == name) {
            let message = format!("only one {name} parser directive can be used");
            return Err(Error::new(message).at(span));
        }
        self.seen.push(Directive { name, value: value.to_owned(), span });
        Ok(self.seen.last())
    }

    /// Returns the directives that were read, in order.
    pub(crate) fn into_seen(self) -> Vec<Directive> {
        self.seen
    }
}

/// Splits `name = value`. Returns `None` if the text is no directive.
fn split(text: &str) -> Option<(String, &str)> {
    let (name, value) = text.split_once('=')?;
    let name = name.trim_end_matches(is_blank);
    let mut letters = name.chars();
    if !letters.next()?.is_ascii_alphabetic() || !letters.all(|c| c.is_ascii_alphanumeric()) {
        return None;
    }
    let name = to_lower(name);
    if !NAMES.contains(&name.as_str()) {
        return None;
    }
    let trimmed = value.trim_matches(is_blank);
    // If the value consists of blanks, it is the last of them.
    let value = if trimmed.is_empty() { &value[value.len().checked_sub(1)?..] } else { trimmed };
    Some((name, value))
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0c' | '\r')
}

/// Returns the first word of the value of the directive `name`. As in BuildKit, the lookup doesn't
/// parse the file: it skips a first line with `#!`, and directives may not be indented.
pub fn find(name: &str, source: &[u8]) -> Option<String> {
    let (value, _) = locate(name, source)?;
    Some(value.split(' ').next().unwrap_or_default().to_owned())
}

/// Returns the value of the directive `name` and the number of its line. See [`find`].
///
/// A file that isn't a Dockerfile may have the directive in a comment that begins with `//`, or as a
/// member of a JSON object whose members are texts.
pub fn locate(name: &str, source: &[u8]) -> Option<(String, u32)> {
    let source = source.strip_prefix(b"\xef\xbb\xbf").unwrap_or(source);
    let text = String::from_utf8_lossy(source);
    let (body, skipped) = match text.split_once('\n') {
        Some((first, rest)) if first.starts_with("#!") => (rest, 1),
        None if text.starts_with("#!") => ("", 1),
        _ => (&*text, 0),
    };
    let commented = |prefix| in_comments(name, body, prefix);
    let found = commented("#").or_else(|| commented("//")).or_else(|| {
        let mut members: BTreeMap<String, String> = serde_json::from_str(body).ok()?;
        Some((members.remove(name)?, 1))
    });
    found.map(|(value, line)| (value, line + skipped))
}

/// Returns the value and the line of a directive in comments that begin with `prefix`.
fn in_comments(name: &str, body: &str, prefix: &str) -> Option<(String, u32)> {
    let mut directives = Directives::new(prefix);
    for line in body.split('\n') {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if directives.take(line).is_err() || directives.done {
            break;
        }
    }
    let found = directives.into_seen().into_iter().find(|seen| seen.name == name)?;
    Some((found.value, found.span.start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits() {
        for (text, expected) in [
            ("escape=`", Some(("escape", "`"))),
            ("Syntax = docker/dockerfile:1  ", Some(("syntax", "docker/dockerfile:1"))),
            ("check=skip=all;error=true", Some(("check", "skip=all;error=true"))),
            ("check=  ", Some(("check", " "))),
            ("check=", None),
            ("unknown=1", None),
            ("es cape=1", None),
            ("1escape=1", None),
        ] {
            let found = split(text);
            assert_eq!(found.as_ref().map(|(n, v)| (n.as_str(), *v)), expected, "{text}");
        }
    }

    #[test]
    fn finds_up_to_the_first_other_line() {
        let source = b"#!/usr/bin/env x\n# syntax=a\n#check=skip=A rest\nFROM x\n# escape=`\n";
        assert_eq!(find("check", source).as_deref(), Some("skip=A"));
        assert_eq!(find("escape", source), None);
        assert_eq!(locate("check", source), Some(("skip=A rest".to_owned(), 3)));
        assert_eq!(find("syntax", b"\xef\xbb\xbf# syntax=a\r\n").as_deref(), Some("a"));
        assert_eq!(find("syntax", b" # syntax=a\n"), None);
    }

    #[test]
    fn other_files_have_directives_too() {
        let locate = |source: &str| locate("syntax", source.as_bytes());
        let found = |value: &str, line| Some((value.to_owned(), line));
        assert_eq!(locate("//syntax=a/b:1 -x\npackage x\n"), found("a/b:1 -x", 1));
        assert_eq!(locate("#!/bin/x\n// syntax = a\n"), found("a", 2));
        assert_eq!(locate("# syntax=a\n// syntax=b\n"), found("a", 1));
        assert_eq!(locate("{\n\"syntax\": \"a\",\n\"other\": \"b\"}"), found("a", 1));
        assert_eq!(locate("#!/bin/x\n{\"syntax\": \"a\"}"), found("a", 2));
        for none in ["{\"syntax\": 1}", "{\"syntax\": \"a\", \"b\": {}}", "/ syntax=a", "[]"] {
            assert_eq!(locate(none), None, "{none}");
        }
    }
}

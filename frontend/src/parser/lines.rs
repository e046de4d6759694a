//! Joining of physical lines to logical lines.
//!
//! A physical line ends with a line feed. It continues on the next line if its last character,
//! blanks aside, is a single escape character. Comment lines and empty lines in between are
//! removed, and empty lines are reported. The lines of heredocs follow their instruction.

use super::directive::Directives;
use super::heredoc::{self, chomped};
use super::node::Node;
use crate::error::{Error, Span};
use crate::hint::Hint;
use crate::instruction::{Directive, Heredoc};

/// The maximal length of a physical line in bytes, without its line feed.
const LONGEST: usize = 65_535;

/// The result of the first pass.
#[derive(Default)]
pub(super) struct Lines {
    pub(super) nodes: Vec<Node>,
    pub(super) directives: Vec<Directive>,
    pub(super) escape: char,
    /// The numbers of the last lines of instructions that contain empty lines.
    pub(super) empty_continuations: Vec<u32>,
    pub(super) errors: Vec<Error>,
}

/// Reads all logical lines of a Dockerfile.
pub(super) fn read(source: &[u8]) -> Lines {
    let source = source.strip_prefix(b"\xef\xbb\xbf").unwrap_or(source);
    let mut reader = Reader {
        physical: Physical { rest: source, line: 0, is_too_long: false },
        directives: Directives::new("#"),
        comments: Vec::new(),
        lines: Lines { escape: '\\', ..Lines::default() },
    };
    while let Some(line) = reader.physical.next() {
        if !reader.take(&line) {
            break;
        }
    }
    let Reader { physical, directives, mut lines, .. } = reader;
    if lines.nodes.is_empty() && lines.errors.is_empty() {
        let last = physical.line.max(1);
        lines.errors.push(Error::new("file with no instructions").at(Span::line(last)));
    }
    if physical.is_too_long {
        let message = format!("dockerfile line greater than max allowed size of {LONGEST}");
        lines.errors.push(Error::new(message).at(Span::line(physical.line + 1)));
    }
    lines.directives = directives.into_seen();
    lines
}

/// A physical line, including its line feed.
struct Line {
    text: String,
    is_utf8: bool,
}

impl Line {
    fn without_end(&self) -> &str {
        self.text.trim_end_matches(['\r', '\n'])
    }

    fn is_comment(&self) -> bool {
        self.text.trim_start().starts_with('#')
    }
}

struct Physical<'a> {
    rest: &'a [u8],
    /// The number of lines read so far.
    line: u32,
    is_too_long: bool,
}

impl Physical<'_> {
    fn next(&mut self) -> Option<Line> {
        if self.rest.is_empty() || self.is_too_long {
            return None;
        }
        let end = self.rest.iter().position(|b| *b == b'\n');
        if end.unwrap_or(self.rest.len()) > LONGEST {
            self.is_too_long = true;
            return None;
        }
        let (line, rest) = self.rest.split_at(end.map_or(self.rest.len(), |end| end + 1));
        self.rest = rest;
        self.line += 1;
        Some(match std::str::from_utf8(line) {
            Ok(text) => Line { text: text.to_owned(), is_utf8: true },
            Err(_) => Line { text: replaced(line), is_utf8: false },
        })
    }
}

struct Reader<'a> {
    physical: Physical<'a>,
    directives: Directives<'static>,
    comments: Vec<String>,
    lines: Lines,
}

impl Reader<'_> {
    /// Handles the first physical line of an instruction, or a line outside of instructions.
    /// Returns `false` if reading should stop.
    fn take(&mut self, line: &Line) -> bool {
        if line.is_comment() {
            self.take_comment(&line.text);
        }
        let text = line.without_end().trim_start();
        match self.directives.take(text) {
            Ok(None) => {}
            Ok(Some(directive)) => {
                self.comments.pop();
                if directive.name == "escape" {
                    let value = directive.value.clone();
                    return self.set_escape(&value);
                }
            }
            Err(error) => {
                self.lines.errors.push(error);
                return false;
            }
        }
        if text.is_empty() || line.is_comment() {
            return true;
        }
        self.take_instruction(text, line.is_utf8);
        true
    }

    fn take_comment(&mut self, text: &str) {
        // The character before an indented `#` is dropped, whichever it is.
        let mut chars = text.chars();
        chars.next();
        let comment = chars.as_str().trim();
        if comment.is_empty() {
            self.comments.clear();
        } else {
            self.comments.push(comment.to_owned());
        }
    }

    fn set_escape(&mut self, value: &str) -> bool {
        match value {
            "`" => self.lines.escape = '`',
            "\\" => self.lines.escape = '\\',
            _ => {
                let message = format!("invalid escape token '{value}' does not match ` or \\");
                self.lines.errors.push(Error::new(message).at(Span::line(self.physical.line)));
                return false;
            }
        }
        true
    }

    fn take_instruction(&mut self, first: &str, is_utf8: bool) {
        let start = self.physical.line;
        let mut is_utf8 = is_utf8;
        let mut has_empty_line = false;
        let (part, mut goes_on) = continued(first, self.lines.escape);
        let mut logical = part.to_owned();
        while goes_on {
            let Some(line) = self.physical.next() else { break };
            if line.is_comment() {
                continue;
            }
            let text = line.without_end();
            if text.trim_start().is_empty() {
                has_empty_line = true;
                continue;
            }
            is_utf8 &= line.is_utf8;
            let (part, more) = continued(text, self.lines.escape);
            goes_on = more;
            logical.push_str(part);
        }
        if has_empty_line {
            self.lines.empty_continuations.push(self.physical.line);
        }
        let comments = std::mem::take(&mut self.comments);
        let node = Node::parse(&logical, self.lines.escape, comments);
        let keyword = first.split_whitespace().next().unwrap_or_default();
        let node = node.map_err(|message| {
            let hint = Hint::for_instruction(keyword, &message);
            Error { hint, ..Error::new(message) }
        });
        let node = node.and_then(|mut node| {
            is_utf8 &= self.take_heredocs(&mut node)?;
            if is_utf8 { Ok(node) } else { node.with_replaced() }
        });
        let span = Span { start, end: self.physical.line };
        match node {
            Ok(node) => self.lines.nodes.push(Node { span, ..node }),
            Err(error) => self.lines.errors.push(error.at(span)),
        }
    }

    /// Reads the heredocs that the instruction declares. Returns `true` if they are UTF-8.
    fn take_heredocs(&mut self, node: &mut Node) -> Result<bool, Error> {
        let mut is_utf8 = true;
        if !node.may_have_heredocs() || !node.original.contains("<<") {
            return Ok(true);
        }
        for mut heredoc in heredoc::announced(&node.original)? {
            is_utf8 &= self.take_heredoc(&mut heredoc)?;
            node.heredocs.push(heredoc);
        }
        Ok(is_utf8)
    }

    fn take_heredoc(&mut self, heredoc: &mut Heredoc) -> Result<bool, Error> {
        let mut is_utf8 = true;
        while let Some(line) = self.physical.next() {
            let text = line.without_end();
            let end = if heredoc.chomp { text.trim_start_matches('\t') } else { text };
            if end == heredoc.name {
                return Ok(is_utf8);
            }
            is_utf8 &= line.is_utf8;
            heredoc.content.push_str(&line.text);
        }
        let hint = Hint::EndHeredoc(heredoc.name.clone());
        Err(Error::new("unterminated heredoc").with_hint(hint))
    }
}

/// Returns text with a replacement character for each byte that is not UTF-8, as Go's scanners do.
fn replaced(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

/// Returns a line without its escape character, and `true` if the line continues.
fn continued(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(rest) if !rest.ends_with(escape) => (rest, true),
        _ => (line, false),
    }
}

impl Node {
    /// Returns the instruction, whose invalid UTF-8 was replaced, if the reference replaces it too.
    /// The reference does so during expansion and when it writes the image config.
    fn with_replaced(self) -> Result<Self, Error> {
        let keyword = crate::text::to_lower(&self.keyword);
        if keyword == "run" && !matches!(self.args, super::node::Args::Json(_)) {
            // A shell command is not expanded, and an op can't contain invalid UTF-8.
            return Err(Error::new("string field contains invalid UTF-8"));
        }
        let is_kept = |heredoc: &Heredoc| {
            !heredoc.expand && heredoc.content.contains(char::REPLACEMENT_CHARACTER)
        };
        if self.flags.iter().any(|flag| !flag.is_ascii()) || self.heredocs.iter().any(is_kept) {
            return Err(Error::new("instruction is not valid UTF-8"));
        }
        Ok(self)
    }

    /// Returns the content of the heredoc `name`, or an empty string if it doesn't exist.
    pub(super) fn file_content(&self, name: &str, chomp: bool) -> String {
        let content = self.heredocs.iter().rev().find(|heredoc| heredoc.name == name);
        let content = content.map_or("", |heredoc| heredoc.content.as_str());
        if chomp { chomped(content) } else { content.to_owned() }
    }
}

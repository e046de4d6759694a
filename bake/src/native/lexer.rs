//! Splits text into tokens.
//!
//! Templates nest in expressions and expressions in templates, so the lexer keeps a stack of modes.
//! A closing brace ends the sequence of a template if no brace within the sequence is open.

use super::scan::Cursor;
use super::token::{Kind, Token};
use crate::source::{FileId, Position};

/// The states of the lexer.
enum Mode<'a> {
    /// Expressions and bodies. The number of open braces tells which one ends a sequence.
    Normal { braces: usize },
    /// Text in quotes.
    Quotes,
    /// A heredoc up to its closing word.
    Heredoc { word: &'a str, at_line_start: bool },
    /// A template without quotes around it.
    Bare,
}

/// A lexer.
pub(crate) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    cursor: Cursor,
    modes: Vec<Mode<'a>>,
    tokens: Vec<Token>,
}

impl<'a> Lexer<'a> {
    /// Splits a body or an expression into tokens.
    pub(crate) fn body(text: &'a str, file: FileId, start: Position) -> Vec<Token> {
        Self::new(text, file, start, Mode::Normal { braces: 0 }).run()
    }

    /// Splits a template into tokens.
    pub(crate) fn template(text: &'a str, file: FileId, start: Position) -> Vec<Token> {
        Self::new(text, file, start, Mode::Bare).run()
    }

    fn new(text: &'a str, file: FileId, start: Position, mode: Mode<'a>) -> Self {
        Self {
            text,
            at: 0,
            cursor: Cursor::new(file, start),
            modes: vec![mode],
            tokens: Vec::new(),
        }
    }

    fn run(mut self) -> Vec<Token> {
        while self.at < self.text.len() {
            match self.modes.last_mut() {
                Some(Mode::Normal { .. }) | None => self.normal(),
                Some(Mode::Quotes) => self.quotes(),
                Some(Mode::Heredoc { word, at_line_start }) => {
                    let word = *word;
                    let at_line_start = std::mem::replace(at_line_start, false);
                    self.heredoc(word, at_line_start);
                }
                Some(Mode::Bare) => self.bare(),
            }
        }
        self.emit(Kind::End, 0);
        self.tokens
    }

    /// Returns what is left.
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Adds a token of a length.
    fn emit(&mut self, kind: Kind, length: usize) {
        let start = self.at;
        let range = self.cursor.pass(&self.text[start..start + length]);
        self.at += length;
        self.tokens.push(Token { kind, start, end: self.at, range });
    }

    /// Passes over something that makes no token.
    fn skip(&mut self, length: usize) {
        self.cursor.pass(&self.text[self.at..self.at + length]);
        self.at += length;
    }

    /// Reads a token of an expression or body.
    fn normal(&mut self) {
        let rest = self.rest();
        let bytes = rest.as_bytes();
        match bytes[0] {
            b' ' | b'\t' => {
                let length = bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
                self.skip(length);
            }
            b'#' => self.line_comment(),
            b'/' if rest.starts_with("//") => self.line_comment(),
            b'/' if rest.starts_with("/*") => match rest[2..].find("*/") {
                Some(length) => self.skip(length + 4),
                None => self.emit(Kind::Invalid, rest.len()),
            },
            b'"' => {
                self.emit(Kind::OpenQuote, 1);
                self.modes.push(Mode::Quotes);
            }
            b'{' => {
                self.emit(Kind::OpenBrace, 1);
                if let Some(Mode::Normal { braces }) = self.modes.last_mut() {
                    *braces += 1;
                }
            }
            b'}' => self.close_brace(1),
            b'~' if rest.starts_with("~}") => self.close_brace(2),
            b'<' if rest.starts_with("<<") && self.open_heredoc() => {}
            b'0'..=b'9' => self.emit(Kind::Number, number_length(bytes)),
            _ => {
                if let Some(length) = identifier_length(rest) {
                    self.emit(Kind::Identifier, length);
                } else {
                    let symbol = symbol(rest);
                    self.emit(symbol.kind, symbol.length);
                }
            }
        }
    }

    /// Reads a comment up to the end of its line. The line break counts as one of the body.
    fn line_comment(&mut self) {
        match self.rest().find('\n') {
            Some(length) => self.emit(Kind::Newline, length + 1),
            None => self.skip(self.rest().len()),
        }
    }

    /// Reads a closing brace, which may end a sequence of a template.
    fn close_brace(&mut self, length: usize) {
        let ends_sequence =
            self.modes.len() > 1 && matches!(self.modes.last(), Some(Mode::Normal { braces: 0 }));
        if ends_sequence {
            self.emit(Kind::SequenceEnd { strip: length == 2 }, length);
            self.modes.pop();
            return;
        }
        let kind = if length == 2 { Kind::SequenceEnd { strip: true } } else { Kind::CloseBrace };
        self.emit(kind, length);
        if let Some(Mode::Normal { braces }) = self.modes.last_mut() {
            *braces = braces.saturating_sub(1);
        }
    }

    /// Reads the opening of a heredoc. Returns `false` if there is none.
    fn open_heredoc(&mut self) -> bool {
        let rest = self.rest();
        let flush = rest[2..].starts_with('-');
        let begin = if flush { 3 } else { 2 };
        let Some(length) = identifier_length(&rest[begin..]) else {
            return false;
        };
        let behind = &rest[begin + length..];
        let line_break = if behind.starts_with("\r\n") {
            2
        } else if behind.starts_with('\n') {
            1
        } else {
            return false;
        };
        self.emit(Kind::OpenHeredoc { flush }, begin + length + line_break);
        self.modes.push(Mode::Heredoc { word: &rest[begin..begin + length], at_line_start: true });
        true
    }

    /// Reads the opening of a sequence. Returns `false` if there is none.
    fn open_sequence(&mut self) -> bool {
        let rest = self.rest();
        let is_directive = rest.starts_with("%{");
        if !is_directive && !rest.starts_with("${") {
            return false;
        }
        let strip = rest[2..].starts_with('~');
        let kind =
            if is_directive { Kind::Directive { strip } } else { Kind::Interpolation { strip } };
        self.emit(kind, if strip { 3 } else { 2 });
        self.modes.push(Mode::Normal { braces: 0 });
        true
    }

    /// Reads a token of a text in quotes.
    fn quotes(&mut self) {
        if self.open_sequence() {
            return;
        }
        let rest = self.rest();
        match rest.as_bytes()[0] {
            b'"' => {
                self.emit(Kind::CloseQuote, 1);
                self.modes.pop();
            }
            b'\n' | b'\r' => {
                let length = rest.bytes().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
                self.emit(Kind::QuotedNewline, length);
            }
            b'$' | b'%' => self.emit(Kind::QuotedText, marker_length(rest)),
            _ => {
                let mut escaped = false;
                let length = rest
                    .bytes()
                    .position(|byte| match byte {
                        b'\n' | b'\r' => true,
                        _ if escaped => {
                            escaped = false;
                            false
                        }
                        b'\\' => {
                            escaped = true;
                            false
                        }
                        byte => matches!(byte, b'"' | b'$' | b'%'),
                    })
                    .unwrap_or(rest.len());
                self.emit(Kind::QuotedText, length.max(1));
            }
        }
    }

    /// Reads a token of a heredoc. Each line is a text of its own.
    fn heredoc(&mut self, word: &str, at_line_start: bool) {
        if self.open_sequence() {
            return;
        }
        let rest = self.rest();
        if rest.starts_with(['$', '%']) {
            self.emit(Kind::PlainText, marker_length(rest));
            return;
        }
        let length = rest.find(['\n', '$', '%']).unwrap_or(rest.len());
        let ends_line = rest[length..].starts_with('\n');
        if !ends_line {
            self.emit(Kind::PlainText, length);
            return;
        }
        if at_line_start && rest[..length].trim() == word {
            let marker = rest[..length].strip_suffix('\r').map_or(length, str::len);
            self.emit(Kind::CloseHeredoc, marker);
            self.emit(Kind::Newline, length - marker + 1);
            self.modes.pop();
            return;
        }
        self.emit(Kind::PlainText, length + 1);
        if let Some(Mode::Heredoc { at_line_start, .. }) = self.modes.last_mut() {
            *at_line_start = true;
        }
    }

    /// Reads a token of a template without quotes.
    fn bare(&mut self) {
        if self.open_sequence() {
            return;
        }
        let rest = self.rest();
        if rest.starts_with(['$', '%']) {
            self.emit(Kind::PlainText, marker_length(rest));
            return;
        }
        let length = match rest.find(['\n', '$', '%']) {
            Some(at) if rest[at..].starts_with('\n') => at + 1,
            Some(at) => at,
            None => rest.len(),
        };
        self.emit(Kind::PlainText, length);
    }
}

/// Returns the length of a text that begins with a dollar or percent sign but opens nothing.
fn marker_length(text: &str) -> usize {
    if text.starts_with("$${") || text.starts_with("%%{") { 3 } else { 1 }
}

/// Returns the length of a number.
fn number_length(bytes: &[u8]) -> usize {
    let mut at = 1;
    let mut length = 1;
    loop {
        match bytes.get(at) {
            Some(b'0'..=b'9') => {
                at += 1;
                length = at;
            }
            Some(b'.') => at += 1,
            Some(b'e' | b'E') => {
                let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
                if !bytes.get(at + 1 + sign).is_some_and(u8::is_ascii_digit) {
                    return length;
                }
                at += 2 + sign;
                length = at;
            }
            _ => return length,
        }
    }
}

/// Returns the length of an identifier, if the text begins with one.
pub(crate) fn identifier_length(text: &str) -> Option<usize> {
    let first = text.chars().next()?;
    if first != '_' && !first.is_alphabetic() {
        return None;
    }
    let continues = |character: char| {
        character == '_'
            || character == '-'
            || character.is_alphanumeric()
            || unicode_normalization::char::is_combining_mark(character)
    };
    Some(text.find(|character| !continues(character)).unwrap_or(text.len()))
}

/// An operator or a mark.
struct Symbol {
    kind: Kind,
    length: usize,
}

/// Returns the operator or mark at the begin of a text.
fn symbol(text: &str) -> Symbol {
    const LONG: [(&str, Kind); 11] = [
        ("...", Kind::Ellipsis),
        ("\r\n", Kind::Newline),
        ("==", Kind::Equal),
        ("!=", Kind::NotEqual),
        (">=", Kind::GreaterOrEqual),
        ("<=", Kind::LessOrEqual),
        ("&&", Kind::And),
        ("||", Kind::Or),
        ("::", Kind::DoubleColon),
        ("=>", Kind::FatArrow),
        ("\n", Kind::Newline),
    ];
    for (written, kind) in LONG {
        if text.starts_with(written) {
            return Symbol { kind, length: written.len() };
        }
    }
    let first = text.chars().next().unwrap_or(' ');
    let kind = match first {
        '[' => Kind::OpenBracket,
        ']' => Kind::CloseBracket,
        '(' => Kind::OpenParen,
        ')' => Kind::CloseParen,
        '.' => Kind::Dot,
        ',' => Kind::Comma,
        '*' => Kind::Star,
        '/' => Kind::Slash,
        '%' => Kind::Percent,
        '+' => Kind::Plus,
        '-' => Kind::Minus,
        '=' => Kind::Assign,
        '<' => Kind::Less,
        '>' => Kind::Greater,
        '!' => Kind::Bang,
        '?' => Kind::Question,
        ':' => Kind::Colon,
        _ => Kind::Invalid,
    };
    Symbol { kind, length: first.len_utf8() }
}

//! Tokens of JSON.

use unicode_segmentation::UnicodeSegmentation;

use crate::source::{FileId, Position, Range};

/// The kind of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    OpenBrace,
    CloseBrace,
    OpenBracket,
    CloseBracket,
    Comma,
    Colon,
    Assign,
    Word,
    Text,
    Number,
    End,
    Invalid,
}

/// A token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
    pub(super) range: Range,
}

/// Splits text into tokens. The last one is the end.
pub(super) fn scan(text: &str, file: FileId) -> Vec<Token<'_>> {
    let mut scanner = Scanner { rest: text, position: Position::START, file };
    let mut tokens = Vec::new();
    loop {
        scanner.skip_blanks();
        let token = scanner.token();
        tokens.push(token);
        match token.kind {
            Kind::End => return tokens,
            Kind::Invalid => scanner.rest = "",
            _ => {}
        }
    }
}

/// A scanner.
struct Scanner<'a> {
    rest: &'a str,
    position: Position,
    file: FileId,
}

impl<'a> Scanner<'a> {
    /// Passes over white space. A tab counts as two columns.
    fn skip_blanks(&mut self) {
        let length = self.rest.bytes().take_while(|byte| b" \n\r\t".contains(byte)).count();
        for byte in self.rest[..length].bytes() {
            match byte {
                b' ' => self.position.column += 1,
                b'\t' => self.position.column += 2,
                b'\n' => self.position = Position { line: self.position.line + 1, column: 1 },
                _ => {}
            }
        }
        self.rest = &self.rest[length..];
    }

    /// Reads a token.
    fn token(&mut self) -> Token<'a> {
        let rest = self.rest;
        let Some(first) = rest.bytes().next() else {
            return self.take(Kind::End, 0);
        };
        let run = |continues: fn(u8) -> bool| {
            rest.bytes().position(|byte| !continues(byte)).unwrap_or(rest.len())
        };
        match first {
            b'{' => self.take(Kind::OpenBrace, 1),
            b'}' => self.take(Kind::CloseBrace, 1),
            b'[' => self.take(Kind::OpenBracket, 1),
            b']' => self.take(Kind::CloseBracket, 1),
            b',' => self.take(Kind::Comma, 1),
            b':' => self.take(Kind::Colon, 1),
            b'=' => self.take(Kind::Assign, 1),
            b'"' => self.take(Kind::Text, text_length(rest)),
            b'-' | b'+' | b'.' | b'0'..=b'9' => {
                let length = run(|byte| byte.is_ascii_digit() || b"-+.eE".contains(&byte));
                self.take(Kind::Number, length)
            }
            byte if byte.is_ascii_alphabetic() => {
                let length = run(|byte| byte.is_ascii_alphabetic() || byte == b'_');
                self.take(Kind::Word, length)
            }
            _ => {
                let length = rest.chars().next().map_or(1, char::len_utf8);
                self.take(Kind::Invalid, length)
            }
        }
    }

    /// Takes a token of a length.
    fn take(&mut self, kind: Kind, length: usize) -> Token<'a> {
        let text = &self.rest[..length];
        let start = self.position;
        self.position.column +=
            if text.is_ascii() { length as u32 } else { text.graphemes(true).count() as u32 };
        self.rest = &self.rest[length..];
        Token { kind, text, range: Range { file: self.file, start, end: self.position } }
    }
}

/// Returns the length of a text with its quotes. A control character ends it.
fn text_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            0..=31 => return at,
            b'\\' => escaped = !escaped,
            b'"' if !escaped => return at + 1,
            _ => escaped = false,
        }
    }
    text.len()
}

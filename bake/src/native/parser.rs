//! The parser of the native syntax. It stops at the first error.

use std::rc::Rc;

use super::lexer::Lexer;
use super::token::{self, Kind, Token};
use crate::body::NativeBody;
use crate::diagnostic::Diagnostic;
use crate::expression::Expression;
use crate::limits;
use crate::source::{FileId, Position, Range};

mod bodies;
mod brackets;
mod operators;
mod templates;
mod terms;

/// Parses the text of a file.
pub(crate) fn parse_body(text: &str, file: FileId) -> Result<NativeBody, Diagnostic> {
    let tokens = Lexer::body(text, file, Position::START);
    token::check(&tokens, text)?;
    Parser::new(text, &tokens).file()
}

/// Parses an expression.
pub(crate) fn parse_expression(
    text: &str,
    file: FileId,
    start: Position,
) -> Result<Expression, Diagnostic> {
    let tokens = Lexer::body(text, file, start);
    token::check(&tokens, text)?;
    let mut parser = Parser::new(text, &tokens);
    parser.newlines.push(false);
    let expression = parser.expression()?;
    let behind = parser.peek();
    if behind.kind == Kind::End {
        return Ok(expression);
    }
    Err(Diagnostic::new(
        "Extra characters after expression",
        "An expression was successfully parsed, but extra characters were found after it.",
        behind.range,
    ))
}

/// Parses a template that has no quotes around it.
pub(crate) fn parse_template(
    text: &str,
    file: FileId,
    start: Position,
) -> Result<Expression, Diagnostic> {
    let tokens = Lexer::template(text, file, start);
    token::check(&tokens, text)?;
    let mut parser = Parser::new(text, &tokens);
    let begin = parser.peek().range;
    parser.template(Kind::End, false, begin.at_start())
}

/// A parser.
struct Parser<'a> {
    text: &'a str,
    tokens: &'a [Token],
    at: usize,
    /// `true` for each open bracket in which line breaks count.
    newlines: Vec<bool>,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, tokens: &'a [Token]) -> Self {
        Self { text, tokens, at: 0, newlines: vec![true], depth: 0 }
    }

    /// Returns the index of the next token that counts.
    fn next_index(&self) -> usize {
        let mut index = self.at;
        if self.newlines.last() == Some(&false) {
            while self.tokens[index].kind == Kind::Newline {
                index += 1;
            }
        }
        index
    }

    /// Returns the next token.
    fn peek(&self) -> Token {
        self.tokens[self.next_index()]
    }

    /// Returns the next token and passes over it. The end is never passed.
    fn read(&mut self) -> Token {
        let index = self.next_index();
        let token = self.tokens[index];
        self.at = if token.kind == Kind::End { index } else { index + 1 };
        token
    }

    /// Returns the place of the token before the next one.
    fn previous(&self) -> Range {
        let index = self.at.saturating_sub(1);
        self.tokens[index].range
    }

    /// Returns the text of a token.
    fn text(&self, token: Token) -> &'a str {
        &self.text[token.start..token.end]
    }

    /// Returns the text of a token as a name.
    fn name(&self, token: Token) -> Rc<str> {
        self.text(token).into()
    }

    /// Returns `true` if the next token is a word.
    fn is_word(&self, word: &str) -> bool {
        let token = self.peek();
        token.kind == Kind::Identifier && self.text(token) == word
    }

    /// Runs a part of the parser within brackets, where line breaks count or don't.
    fn within<T>(
        &mut self,
        newlines: bool,
        part: impl FnOnce(&mut Self) -> Result<T, Diagnostic>,
    ) -> Result<T, Diagnostic> {
        self.newlines.push(newlines);
        let parsed = part(self);
        self.newlines.pop();
        parsed
    }

    /// Runs a part of the parser one level deeper.
    fn deeper<T>(
        &mut self,
        part: impl FnOnce(&mut Self) -> Result<T, Diagnostic>,
    ) -> Result<T, Diagnostic> {
        if self.depth >= limits::NESTING {
            return Err(limits::too_deep(self.peek().range));
        }
        self.depth += 1;
        let parsed = part(self);
        self.depth -= 1;
        parsed
    }

    /// Parses an expression.
    fn expression(&mut self) -> Result<Expression, Diagnostic> {
        self.deeper(Self::conditional)
    }
}

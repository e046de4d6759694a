//! Templates: text with interpolations and directives.
//!
//! The text is split into parts first. White space is stripped from the parts, a flushed heredoc
//! loses its indentation, and then directives and their ends are matched.

use std::rc::Rc;

use super::Parser;
use crate::diagnostic::Diagnostic;
use crate::expression::{Expression, Kind as ExpressionKind};
use crate::native::literal;
use crate::native::token::{Kind, Token};
use crate::quote::quote;
use crate::source::Range;
use crate::suggest;

mod tree;

/// A part of a template.
enum Part {
    /// Text.
    Text { text: String, range: Range },
    /// An expression.
    Interpolation(Expression),
    /// `%{ if … }`.
    If { condition: Expression, range: Range },
    /// `%{ for … in … }`.
    For(ForDirective),
    /// `%{ else }`, `%{ endif }` or `%{ endfor }`.
    End { word: &'static str, range: Range },
}

/// The opening of a loop.
struct ForDirective {
    key_name: Option<Rc<str>>,
    value_name: Rc<str>,
    collection: Expression,
    range: Range,
}

impl Parser<'_> {
    /// Parses a template up to its end.
    pub(super) fn template(
        &mut self,
        end: Kind,
        flush: bool,
        open: Range,
    ) -> Result<Expression, Diagnostic> {
        let begin = self.tokens[self.at].range;
        let mut parts = Vec::new();
        let mut strip_next = false;
        let close = loop {
            let token = self.read_within_template();
            if token.kind == end {
                break token.range;
            }
            let strip = std::mem::replace(&mut strip_next, false);
            match token.kind {
                Kind::QuotedText | Kind::PlainText => {
                    let in_quotes = token.kind == Kind::QuotedText;
                    let mut text = literal::unescape(self.text(token), token.range, in_quotes)?;
                    if strip {
                        text.drain(..text.len() - text.trim_start().len());
                    }
                    parts.push(Part::Text { text, range: token.range });
                }
                Kind::Interpolation { strip } => {
                    strip_before(&mut parts, strip);
                    let part = self.within(false, |parser| parser.interpolation(begin, end))?;
                    strip_next = self.tokens[self.at - 1].kind == Kind::SequenceEnd { strip: true };
                    parts.push(Part::Interpolation(part));
                }
                Kind::Directive { strip } => {
                    strip_before(&mut parts, strip);
                    let part = self.within(false, |parser| parser.directive(token.range))?;
                    strip_next = self.tokens[self.at - 1].kind == Kind::SequenceEnd { strip: true };
                    parts.push(part);
                }
                _ => {
                    return Err(Diagnostic::new(
                        "Unterminated template string",
                        "No closing marker was found for the string.",
                        token.range,
                    ));
                }
            }
        };
        if flush {
            flush_left(&mut parts);
        }
        let is_wrapped = matches!(parts.as_slice(), [Part::Interpolation(_)]);
        let mut parts = tree::build(join_texts(parts), begin.at_end(), close)?;
        let range = open.to(close);
        if is_wrapped && let Some(only) = parts.pop() {
            return Ok(Expression { kind: ExpressionKind::Wrapped(Box::new(only)), range });
        }
        Ok(Expression { kind: ExpressionKind::Template(parts), range })
    }

    /// Reads a token of the template itself, where every token counts.
    fn read_within_template(&mut self) -> Token {
        let token = self.tokens[self.at];
        if token.kind != Kind::End {
            self.at += 1;
        }
        token
    }

    /// Parses an expression within a template and its closing brace.
    fn interpolation(&mut self, begin: Range, end: Kind) -> Result<Expression, Diagnostic> {
        let expression = self.expression()?;
        let close = self.peek();
        let unclosed = |place: &str| {
            Diagnostic::new(
                "Unclosed template interpolation sequence",
                format!(
                    "There is no closing brace for this interpolation sequence before the end of \
                     the {place}. This might be caused by incorrect nesting inside the given \
                     expression."
                ),
                begin,
            )
        };
        match close.kind {
            Kind::SequenceEnd { .. } => {
                self.read();
                Ok(expression)
            }
            Kind::End => Err(unclosed("file")),
            Kind::CloseQuote | Kind::OpenQuote if end == Kind::CloseQuote => {
                Err(unclosed("quoted template"))
            }
            Kind::Colon => Err(extra_characters(
                "Template interpolation doesn't expect a colon at this location. Did you intend \
                 this to be a literal sequence to be processed as part of another language? If so, \
                 you can escape it by starting with \"$${\" instead of just \"${\".",
                close.range,
            )),
            _ => Err(extra_characters(
                "Expected a closing brace to end the interpolation expression, but found extra \
                 characters.\n\nThis can happen when you include interpolation syntax for another \
                 language, such as shell scripting, but forget to escape the interpolation start \
                 token. If this is an embedded sequence for another language, escape it by \
                 starting with \"$${\" instead of just \"${\".",
                close.range,
            )),
        }
    }

    /// Parses a directive and its closing brace.
    fn directive(&mut self, open: Range) -> Result<Part, Diagnostic> {
        let word = self.peek();
        if word.kind != Kind::Identifier {
            return Err(Diagnostic::new(
                "Invalid template directive",
                "A template directive keyword (\"if\", \"for\", etc) is expected at the beginning \
                 of a %{ sequence.",
                word.range,
            ));
        }
        self.read();
        let mut part = match self.text(word) {
            "if" => Part::If { condition: self.expression()?, range: open },
            "for" => Part::For(self.for_directive(open)?),
            "else" => Part::End { word: "else", range: open },
            "endif" => Part::End { word: "endif", range: open },
            "endfor" => Part::End { word: "endfor", range: open },
            other => {
                let known = ["if", "for", "else", "endif", "endfor"];
                let hint = suggest::nearest(other, known)
                    .map(|near| format!(" Did you mean {}?", quote(near)))
                    .unwrap_or_default();
                return Err(Diagnostic::new(
                    "Invalid template control keyword",
                    format!("{} is not a valid template control keyword.{hint}", quote(other)),
                    word.range,
                ));
            }
        };
        let close = self.peek();
        if !matches!(close.kind, Kind::SequenceEnd { .. }) {
            return Err(Diagnostic::new(
                format!("Extra characters in {} marker", self.text(word)),
                "Expected a closing brace to end the sequence, but found extra characters.",
                close.range,
            ));
        }
        self.read();
        if let Part::If { range, .. }
        | Part::For(ForDirective { range, .. })
        | Part::End { range, .. } = &mut part
        {
            *range = open.to(close.range);
        }
        Ok(part)
    }

    /// Parses the names and the collection of a loop.
    fn for_directive(&mut self, range: Range) -> Result<ForDirective, Diagnostic> {
        let invalid =
            |detail: &str, range: Range| Diagnostic::new("Invalid 'for' directive", detail, range);
        let first = self.peek();
        if first.kind != Kind::Identifier {
            return Err(invalid("For directive requires variable name after 'for'.", first.range));
        }
        self.read();
        let mut key_name = None;
        let mut value = first;
        if self.peek().kind == Kind::Comma {
            self.read();
            key_name = Some(self.name(first));
            value = self.peek();
            if value.kind != Kind::Identifier {
                return Err(invalid(
                    "For directive requires value variable name after comma.",
                    value.range,
                ));
            }
            self.read();
        }
        if !self.is_word("in") {
            return Err(invalid(
                "For directive requires 'in' keyword after names.",
                self.peek().range,
            ));
        }
        self.read();
        let collection = self.expression()?;
        Ok(ForDirective { key_name, value_name: self.name(value), collection, range })
    }
}

/// Says that a sequence goes on where it should end.
fn extra_characters(detail: &str, range: Range) -> Diagnostic {
    Diagnostic::new("Extra characters after interpolation expression", detail, range)
}

/// Strips white space at the end of the text before a sequence.
fn strip_before(parts: &mut [Part], strip: bool) {
    if strip && let Some(Part::Text { text, .. }) = parts.last_mut() {
        text.truncate(text.trim_end().len());
    }
}

/// Removes the indentation that all lines share.
fn flush_left(parts: &mut [Part]) {
    let mut least = usize::MAX;
    let mut begins_line = true;
    let mut indented = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let text = match part {
            Part::Text { text, .. } => Some(text),
            _ => None,
        };
        if begins_line {
            match text {
                Some(text) if text.trim_start().is_empty() && text.ends_with('\n') => {}
                Some(text) => {
                    let blanks = text.len() - text.trim_start().len();
                    least = least.min(text[..blanks].chars().count());
                    indented.push(index);
                }
                None => least = 0,
            }
        }
        begins_line = text.is_some_and(|text| text.ends_with('\n'));
    }
    for index in indented {
        if let Part::Text { text, .. } = &mut parts[index] {
            let cut = text.char_indices().nth(least).map_or(text.len(), |place| place.0);
            text.drain(..cut);
        }
    }
}

/// Joins texts that follow each other.
fn join_texts(parts: Vec<Part>) -> Vec<Part> {
    let mut joined: Vec<Part> = Vec::with_capacity(parts.len());
    for part in parts {
        if let Part::Text { text: more, range: last } = &part
            && let Some(Part::Text { text, range }) = joined.last_mut()
        {
            text.push_str(more);
            *range = range.to(*last);
            continue;
        }
        joined.push(part);
    }
    joined
}

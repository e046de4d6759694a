//! Attributes and blocks.

use std::rc::Rc;

use super::Parser;
use crate::body::{Attribute, Block, Body, Label, NativeBody};
use crate::diagnostic::Diagnostic;
use crate::native::literal;
use crate::native::token::{Kind, Token};
use crate::source::Range;

const DEFINITION_REQUIRED: &str = "Argument or block definition required";
const SINGLE_ARGUMENT: &str = "Invalid single-argument block definition";
const BLOCK_DEFINITION: &str = "Invalid block definition";

impl Parser<'_> {
    /// Parses a whole file.
    pub(super) fn file(&mut self) -> Result<NativeBody, Diagnostic> {
        let start = self.peek().range.at_start();
        self.body(Kind::End, start)
    }

    /// Parses a body up to a token.
    fn body(&mut self, end: Kind, start: Range) -> Result<NativeBody, Diagnostic> {
        let mut body = NativeBody { start: Some(start), ..NativeBody::default() };
        loop {
            let next = self.peek();
            if next.kind == end {
                self.read();
                return Ok(body);
            }
            match next.kind {
                Kind::Newline => {
                    self.read();
                }
                Kind::Identifier => self.deeper(|parser| parser.body_item(&mut body))?,
                Kind::OpenQuote => {
                    return Err(Diagnostic::new(
                        "Invalid argument name",
                        "Argument names must not be quoted.",
                        next.range,
                    ));
                }
                Kind::End => return Err(unclosed_block(start)),
                _ => {
                    return Err(Diagnostic::new(
                        DEFINITION_REQUIRED,
                        "An argument or block definition is required here.",
                        next.range,
                    ));
                }
            }
        }
    }

    /// Parses an attribute or a block.
    fn body_item(&mut self, body: &mut NativeBody) -> Result<(), Diagnostic> {
        let word = self.read();
        match self.peek().kind {
            Kind::Assign => {
                let attribute = self.attribute(word)?;
                self.end_of_attribute()?;
                add_attribute(attribute, body)
            }
            Kind::OpenQuote | Kind::OpenBrace | Kind::Identifier => {
                let block = self.block(word)?;
                body.blocks.push(block);
                Ok(())
            }
            _ => Err(definition_required(word)),
        }
    }

    /// Parses the rest of an attribute.
    fn attribute(&mut self, word: Token) -> Result<Attribute, Diagnostic> {
        self.read();
        let value = self.expression()?;
        Ok(Attribute {
            name: self.name(word),
            value: Rc::new(value),
            range: word.range.to(self.previous()),
            name_range: word.range,
        })
    }

    /// Passes over the end of the line behind an attribute.
    fn end_of_attribute(&mut self) -> Result<(), Diagnostic> {
        let end = self.peek();
        match end.kind {
            Kind::Newline => {
                self.read();
                Ok(())
            }
            Kind::End => Ok(()),
            Kind::Comma => Err(Diagnostic::new(
                "Unexpected comma after argument",
                "Argument definitions must be separated by newlines, not commas. An argument \
                 definition must end with a newline.",
                end.range,
            )),
            _ => Err(Diagnostic::new(
                "Missing newline after argument",
                "An argument definition must end with a newline.",
                end.range,
            )),
        }
    }

    /// Parses the rest of a block.
    fn block(&mut self, word: Token) -> Result<Block, Diagnostic> {
        let mut labels = Vec::new();
        let open = loop {
            let token = self.peek();
            match token.kind {
                Kind::OpenBrace => break self.read(),
                Kind::OpenQuote => labels.push(self.quoted_label()?),
                Kind::Identifier => {
                    self.read();
                    labels.push(Label { text: self.name(token), range: token.range });
                }
                kind => return Err(no_block(kind, token.range)),
            }
        };
        let body = match self.peek().kind {
            Kind::Newline | Kind::End | Kind::CloseBrace => {
                self.body(Kind::CloseBrace, open.range)?
            }
            _ => self.single_attribute(open)?,
        };
        let end = self.peek();
        match end.kind {
            Kind::Newline | Kind::End => {
                self.read();
            }
            _ => {
                return Err(Diagnostic::new(
                    "Missing newline after block definition",
                    "A block definition must end with a newline.",
                    end.range,
                ));
            }
        }
        Ok(Block {
            kind: self.name(word),
            labels,
            body: Body::Native(Rc::new(body)),
            kind_range: word.range,
            open: open.range,
        })
    }

    /// Parses the body of a block on one line, which is a single attribute.
    fn single_attribute(&mut self, open: Token) -> Result<NativeBody, Diagnostic> {
        let word = self.read();
        if word.kind != Kind::Identifier {
            return Err(Diagnostic::new(
                DEFINITION_REQUIRED,
                "An argument or block definition is required here.",
                word.range,
            ));
        }
        let next = self.peek();
        let attribute = match next.kind {
            Kind::Assign => self.attribute(word)?,
            Kind::OpenQuote | Kind::OpenBrace | Kind::Identifier => {
                return Err(Diagnostic::new(
                    "Argument definition required",
                    format!(
                        "A single-line block definition can contain only a single argument. If you \
                         meant to define argument {:?}, use an equals sign to assign it a value. \
                         To define a nested block, place it on a line of its own within its parent \
                         block.",
                        self.text(word)
                    ),
                    word.range.to(next.range),
                ));
            }
            _ => return Err(definition_required(word)),
        };
        self.end_of_single(open)?;
        let start = attribute.range;
        Ok(NativeBody { attributes: vec![attribute], start: Some(start), ..NativeBody::default() })
    }

    /// Passes over the end of a block on one line.
    fn end_of_single(&mut self, open: Token) -> Result<(), Diagnostic> {
        let end = self.peek();
        let detail = match end.kind {
            Kind::CloseBrace => {
                self.read();
                return Ok(());
            }
            Kind::Comma => {
                "Single-line block syntax can include only one argument definition. To define \
                 multiple arguments, use the multi-line block syntax with one argument definition \
                 per line."
            }
            Kind::Newline => {
                "An argument definition on the same line as its containing block creates a \
                 single-line block definition, which must also be closed on the same line. Place \
                 the block's closing brace immediately after the argument definition."
            }
            Kind::End => return Err(unclosed_block(open.range)),
            _ => {
                "A single-line block definition must end with a closing brace immediately after \
                 its single argument definition."
            }
        };
        Err(Diagnostic::new(SINGLE_ARGUMENT, detail, end.range))
    }

    /// Parses a label in quotes.
    fn quoted_label(&mut self) -> Result<Label, Diagnostic> {
        let open = self.read();
        let mut text = String::new();
        loop {
            let token = self.read();
            match token.kind {
                Kind::CloseQuote => {
                    return Ok(Label { text: text.into(), range: open.range.to(token.range) });
                }
                Kind::QuotedText => {
                    text += &literal::unescape(self.text(token), token.range, true)?;
                }
                Kind::Interpolation { .. } | Kind::Directive { .. } => {
                    let mark = &self.text(token)[..1];
                    return Err(Diagnostic::new(
                        "Invalid string literal",
                        format!(
                            "Template sequences are not allowed in this string. To include a \
                             literal {mark:?}, double it (as \"{mark}{mark}\") to escape it."
                        ),
                        token.range,
                    ));
                }
                Kind::End => {
                    return Err(Diagnostic::new(
                        "Unterminated string literal",
                        "Unable to find the closing quote mark before the end of the file.",
                        token.range,
                    ));
                }
                _ => {
                    return Err(Diagnostic::new(
                        "Invalid string literal",
                        "This item is not valid in a string literal.",
                        token.range,
                    ));
                }
            }
        }
    }
}

/// Says that a word must be followed by an attribute or a block.
fn definition_required(word: Token) -> Diagnostic {
    Diagnostic::new(
        DEFINITION_REQUIRED,
        "An argument or block definition is required here. To set an argument, use the equals \
         sign \"=\" to introduce the argument value.",
        word.range,
    )
}

/// Says that a block has no end.
fn unclosed_block(open: Range) -> Diagnostic {
    Diagnostic::new(
        "Unclosed configuration block",
        "There is no closing brace for this block before the end of the file. This may be caused \
         by incorrect brace nesting elsewhere in this file.",
        open,
    )
}

/// Says that something can't stand before the brace of a block.
fn no_block(kind: Kind, range: Range) -> Diagnostic {
    let detail = match kind {
        Kind::Assign => {
            "The equals sign \"=\" indicates an argument definition, and must not be used when \
             defining a block."
        }
        Kind::Newline => {
            "A block definition must have block content delimited by \"{\" and \"}\", starting on \
             the same line as the block header."
        }
        _ => "Either a quoted string block label or an opening brace (\"{\") is expected here.",
    };
    Diagnostic::new(BLOCK_DEFINITION, detail, range)
}

/// Adds an attribute unless there is one of its name.
fn add_attribute(attribute: Attribute, body: &mut NativeBody) -> Result<(), Diagnostic> {
    if let Some(existing) = body.names.insert(attribute.name.clone(), attribute.name_range) {
        return Err(crate::limits::redefined(&attribute, existing));
    }
    body.attributes.push(attribute);
    Ok(())
}

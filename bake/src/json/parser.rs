//! The parser of JSON. It stops at the first error.

use std::rc::Rc;

use super::scanner::{Kind, Token, scan};
use super::{Array, Node, Object, Property};
use crate::diagnostic::Diagnostic;
use crate::limits;
use crate::number::Number;
use crate::quote::quote;
use crate::source::{FileId, Range};
use crate::suggest;

const VALUE_START: &str =
    "A JSON value must start with a brace, a bracket, a number, a string, or a keyword.";

/// Parses the text of a file.
pub(crate) fn parse(text: &str, file: FileId) -> Result<Rc<Node>, Diagnostic> {
    let tokens = scan(text, file);
    let mut parser = Parser { tokens, at: 0, depth: 0 };
    let node = parser.value()?;
    let behind = parser.peek();
    if behind.kind == Kind::End {
        return Ok(Rc::new(node));
    }
    Err(Diagnostic::new(
        "Extraneous data after value",
        "Extra characters appear after the JSON value.",
        behind.range,
    ))
}

/// A parser.
struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn read(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn value(&mut self) -> Result<Node, Diagnostic> {
        let token = self.peek();
        if self.depth >= limits::NESTING {
            return Err(limits::too_deep(token.range));
        }
        self.depth += 1;
        let value = match token.kind {
            Kind::OpenBrace => self.object(),
            Kind::OpenBracket => self.array(),
            Kind::Number => self.number(),
            Kind::Text => self.text(),
            Kind::Word => self.word(),
            kind => Err(no_value(kind, token.range)),
        };
        self.depth -= 1;
        value
    }

    fn object(&mut self) -> Result<Node, Diagnostic> {
        let open = self.read();
        let mut properties = Vec::new();
        if self.peek().kind != Kind::CloseBrace {
            loop {
                properties.push(self.property()?);
                let next = self.peek();
                match next.kind {
                    Kind::Comma => {
                        let comma = self.read();
                        if self.peek().kind == Kind::CloseBrace {
                            return Err(Diagnostic::new(
                                "Trailing comma in object",
                                "JSON does not permit a trailing comma after the final property in \
                                 an object.",
                                comma.range,
                            ));
                        }
                    }
                    Kind::CloseBrace => break,
                    Kind::End => {
                        return Err(Diagnostic::new(
                            "Unclosed object",
                            "No closing brace was found for this JSON object.",
                            open.range,
                        ));
                    }
                    Kind::CloseBracket => {
                        self.read();
                        return Err(Diagnostic::new(
                            "Mismatched braces",
                            "A JSON object must be closed with a brace, not a bracket.",
                            self.peek().range,
                        ));
                    }
                    _ => {
                        return Err(Diagnostic::new(
                            "Missing attribute seperator comma",
                            "A comma must appear between each property definition in an object.",
                            next.range,
                        ));
                    }
                }
            }
        }
        let close = self.read();
        Ok(Node::Object(Object {
            properties,
            range: open.range.to(close.range),
            open: open.range,
            close: close.range,
        }))
    }

    fn property(&mut self) -> Result<Property, Diagnostic> {
        let name = match self.value()? {
            Node::Text(name, range) => (name, range),
            other => {
                return Err(Diagnostic::new(
                    "Invalid object property name",
                    "A JSON object property name must be a string",
                    other.start(),
                ));
            }
        };
        let colon = self.read();
        let missing = |summary: &str, detail: &str| Diagnostic::new(summary, detail, colon.range);
        match colon.kind {
            Kind::Colon => {}
            Kind::CloseBrace | Kind::Comma => {
                return Err(missing(
                    "Missing object value",
                    "A JSON object attribute must have a value, introduced by a colon.",
                ));
            }
            Kind::Assign => {
                return Err(missing(
                    "Missing property value colon",
                    "JSON uses a colon as its name/value delimiter, not an equals sign.",
                ));
            }
            _ => {
                return Err(missing(
                    "Missing property value colon",
                    "A colon must appear between an object property's name and its value.",
                ));
            }
        }
        let value = self.value()?;
        Ok(Property { name: name.0.into(), name_range: name.1, value: Rc::new(value) })
    }

    fn array(&mut self) -> Result<Node, Diagnostic> {
        let open = self.read();
        let mut items = Vec::new();
        if self.peek().kind != Kind::CloseBracket {
            loop {
                items.push(Rc::new(self.value()?));
                let next = self.peek();
                match next.kind {
                    Kind::Comma => {
                        let comma = self.read();
                        if self.peek().kind == Kind::CloseBracket {
                            return Err(Diagnostic::new(
                                "Trailing comma in array",
                                "JSON does not permit a trailing comma after the final value in an \
                                 array.",
                                comma.range,
                            ));
                        }
                    }
                    Kind::CloseBracket => break,
                    kind => return Err(bad_separator(kind, next.range, open.range)),
                }
            }
        }
        let close = self.read();
        Ok(Node::Array(Array { items, range: open.range.to(close.range), open: open.range }))
    }

    fn number(&mut self) -> Result<Node, Diagnostic> {
        let token = self.read();
        let number = serde_json::from_str::<&serde_json::value::RawValue>(token.text)
            .ok()
            .and_then(|_| Number::parse(token.text));
        number.map(|number| Node::Number(number, token.range)).ok_or_else(|| {
            Diagnostic::new(
                "Invalid JSON number",
                "There is a syntax error in the given JSON number.",
                token.range,
            )
        })
    }

    fn text(&mut self) -> Result<Node, Diagnostic> {
        let token = self.read();
        match serde_json::from_str::<String>(token.text) {
            Ok(text) => Ok(Node::Text(text, token.range)),
            Err(error) => {
                let mut range = token.range;
                range.start.column += error.column() as u32;
                range.end = range.start;
                range.end.column += 1;
                Err(Diagnostic::new(
                    "Invalid JSON string",
                    "There is a syntax error in the given JSON string.",
                    range,
                ))
            }
        }
    }

    fn word(&mut self) -> Result<Node, Diagnostic> {
        let token = self.read();
        let range = token.range;
        let invalid = |detail| Err(Diagnostic::new("Invalid JSON keyword", detail, range));
        match token.text {
            "true" => Ok(Node::Bool(true, range)),
            "false" => Ok(Node::Bool(false, range)),
            "null" => Ok(Node::Null(range)),
            "undefined" | "NaN" | "Infinity" => invalid(format!(
                "The JavaScript identifier {} cannot be used in JSON.",
                quote(token.text)
            )),
            other => {
                let hint = suggest::nearest(other, ["true", "false", "null"])
                    .map(|near| format!(" Did you mean {near:?}?"))
                    .unwrap_or_default();
                invalid(format!("{} is not a valid JSON keyword.{hint}", quote(other)))
            }
        }
    }
}

/// Says that no value begins at a token.
fn no_value(kind: Kind, range: Range) -> Diagnostic {
    match kind {
        Kind::CloseBrace => Diagnostic::new("Missing JSON value", VALUE_START, range),
        Kind::CloseBracket => Diagnostic::new("Missing array element value", VALUE_START, range),
        Kind::End => Diagnostic::new("Missing value", "The JSON data ends prematurely.", range),
        _ => Diagnostic::new("Invalid start of value", VALUE_START, range),
    }
}

/// Says what is wrong behind an element of an array.
fn bad_separator(kind: Kind, range: Range, open: Range) -> Diagnostic {
    match kind {
        Kind::Colon => Diagnostic::new(
            "Invalid array value",
            "A colon is not used to introduce values in a JSON array.",
            range,
        ),
        Kind::End => Diagnostic::new(
            "Unclosed object",
            "No closing bracket was found for this JSON array.",
            open,
        ),
        Kind::CloseBrace => Diagnostic::new(
            "Mismatched brackets",
            "A JSON array must be closed with a bracket, not a brace.",
            range,
        ),
        _ => Diagnostic::new(
            "Missing attribute seperator comma",
            "A comma must appear between each value in an array.",
            range,
        ),
    }
}

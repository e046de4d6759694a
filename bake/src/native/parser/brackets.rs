//! Tuples, objects, and the expressions that make them of collections.

use super::Parser;
use crate::diagnostic::Diagnostic;
use crate::expression::{Expression, For, Item, Kind as ExpressionKind};
use crate::native::token::{Kind, Token};
use crate::source::Range;

impl Parser<'_> {
    /// Parses a tuple.
    pub(super) fn tuple(&mut self) -> Result<Expression, Diagnostic> {
        let open = self.read();
        self.within(false, |parser| {
            if parser.is_word("for") {
                return parser.for_expression(open, Kind::CloseBracket);
            }
            let mut items = Vec::new();
            loop {
                if parser.peek().kind == Kind::CloseBracket {
                    break;
                }
                items.push(parser.expression()?);
                let next = parser.peek();
                match next.kind {
                    Kind::CloseBracket => break,
                    Kind::Comma => {
                        parser.read();
                    }
                    Kind::End => {
                        return Err(Diagnostic::new(
                            "Unterminated tuple constructor expression",
                            "There is no corresponding closing bracket before the end of the file. \
                             This may be caused by incorrect bracket nesting elsewhere in this \
                             file.",
                            open.range,
                        ));
                    }
                    _ => {
                        return Err(Diagnostic::new(
                            "Missing item separator",
                            "Expected a comma to mark the beginning of the next item.",
                            next.range,
                        ));
                    }
                }
            }
            let close = parser.read();
            Ok(Expression {
                kind: ExpressionKind::Tuple { items, open: open.range },
                range: open.range.to(close.range),
            })
        })
    }

    /// Parses an object.
    pub(super) fn object(&mut self) -> Result<Expression, Diagnostic> {
        let open = self.read();
        let is_for = self.within(false, |parser| Ok(parser.is_word("for")))?;
        if is_for {
            return self.within(false, |parser| parser.for_expression(open, Kind::CloseBrace));
        }
        self.within(true, |parser| {
            let mut items = Vec::new();
            loop {
                match parser.peek().kind {
                    Kind::Newline => {
                        parser.read();
                        continue;
                    }
                    Kind::CloseBrace => break,
                    _ => {}
                }
                items.push(parser.item(open)?);
                let next = parser.peek();
                match next.kind {
                    Kind::CloseBrace => break,
                    Kind::Comma | Kind::Newline => {
                        parser.read();
                    }
                    Kind::End => return Err(unterminated_object(open.range)),
                    _ => {
                        return Err(Diagnostic::new(
                            "Missing attribute separator",
                            "Expected a newline or comma to mark the beginning of the next \
                             attribute.",
                            next.range,
                        ));
                    }
                }
            }
            let close = parser.read();
            Ok(Expression {
                kind: ExpressionKind::Object { items, open: open.range },
                range: open.range.to(close.range),
            })
        })
    }

    /// Parses an entry of an object.
    fn item(&mut self, open: Token) -> Result<Item, Diagnostic> {
        let key_is_computed = self.peek().kind == Kind::OpenParen;
        let key = self.expression()?;
        let next = self.peek();
        match next.kind {
            Kind::Assign | Kind::Colon => {}
            Kind::Newline | Kind::Comma => {
                return Err(Diagnostic::new(
                    "Missing attribute value",
                    "Expected an attribute value, introduced by an equals sign (\"=\").",
                    next.range,
                ));
            }
            Kind::Identifier => {
                return Err(Diagnostic::new(
                    "Missing key/value separator",
                    "Expected an equals sign (\"=\") to mark the beginning of the attribute value. \
                     If you intended to given an attribute name containing periods or spaces, \
                     write the name in quotes to create a string literal.",
                    next.range,
                ));
            }
            Kind::End => return Err(unterminated_object(open.range)),
            _ => {
                return Err(Diagnostic::new(
                    "Missing key/value separator",
                    "Expected an equals sign (\"=\") to mark the beginning of the attribute value.",
                    next.range,
                ));
            }
        }
        self.read();
        let value = self.expression()?;
        Ok(Item { key, key_is_computed, value })
    }

    /// Parses the rest of a `for` expression.
    fn for_expression(&mut self, open: Token, close: Kind) -> Result<Expression, Diagnostic> {
        self.read();
        let first = self.for_name("For expression requires variable name after 'for'.")?;
        let mut key_name = None;
        let mut value_name = first;
        if self.peek().kind == Kind::Comma {
            self.read();
            key_name = Some(self.name(value_name));
            value_name =
                self.for_name("For expression requires value variable name after comma.")?;
        }
        if !self.is_word("in") {
            return Err(invalid_for(
                "For expression requires the 'in' keyword after its name declarations.",
                self.peek().range,
            ));
        }
        self.read();
        let collection = self.expression()?;
        if self.peek().kind != Kind::Colon {
            return Err(invalid_for(
                "For expression requires a colon after the collection expression.",
                self.peek().range,
            ));
        }
        self.read();
        let mut key = None;
        let mut value = self.expression()?;
        if self.peek().kind == Kind::FatArrow {
            self.read();
            key = Some(std::mem::replace(&mut value, self.expression()?));
        }
        let ellipsis = (self.peek().kind == Kind::Ellipsis).then(|| self.read());
        let mut condition = None;
        if self.is_word("if") {
            self.read();
            condition = Some(self.expression()?);
        }
        let end = self.peek();
        if end.kind != close {
            return Err(invalid_for(
                "Extra characters after the end of the 'for' expression.",
                end.range,
            ));
        }
        self.read();
        check_result(close, key.as_ref(), &value, ellipsis)?;
        let each = For {
            key_name,
            value_name: self.name(value_name),
            collection,
            key,
            value,
            condition,
            groups: ellipsis.is_some(),
            open: open.range,
        };
        Ok(Expression {
            kind: ExpressionKind::For(Box::new(each)),
            range: open.range.to(end.range),
        })
    }

    /// Parses a name of a `for` expression.
    fn for_name(&mut self, missing: &str) -> Result<Token, Diagnostic> {
        let token = self.peek();
        if token.kind != Kind::Identifier {
            return Err(invalid_for(missing, token.range));
        }
        Ok(self.read())
    }
}

/// Checks that a `for` expression has a key if and only if it makes an object.
fn check_result(
    close: Kind,
    key: Option<&Expression>,
    value: &Expression,
    ellipsis: Option<Token>,
) -> Result<(), Diagnostic> {
    if close == Kind::CloseBrace {
        return match key {
            Some(_) => Ok(()),
            None => {
                Err(invalid_for("Key expression is required when building an object.", value.range))
            }
        };
    }
    if let Some(key) = key {
        return Err(invalid_for("Key expression is not valid when building a tuple.", key.range));
    }
    if let Some(ellipsis) = ellipsis {
        return Err(invalid_for(
            "Grouping ellipsis (...) cannot be used when building a tuple.",
            ellipsis.range,
        ));
    }
    Ok(())
}

/// Says what is wrong with a `for` expression.
fn invalid_for(detail: &str, range: Range) -> Diagnostic {
    Diagnostic::new("Invalid 'for' expression", detail, range)
}

/// Says that an object has no end.
fn unterminated_object(open: Range) -> Diagnostic {
    Diagnostic::new(
        "Unterminated object constructor expression",
        "There is no corresponding closing brace before the end of the file. This may be caused by \
         incorrect brace nesting elsewhere in this file.",
        open,
    )
}

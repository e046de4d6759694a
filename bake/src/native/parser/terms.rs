//! Terms: literals, names, calls and what is in brackets.

use super::Parser;
use super::operators::invalid_number;
use crate::diagnostic::Diagnostic;
use crate::expression::{Call, Expression, Kind as ExpressionKind, Reference, Unary};
use crate::native::token::{Kind, Token};
use crate::number::Number;
use crate::value::Value;

impl Parser<'_> {
    /// Parses a term.
    pub(super) fn term(&mut self) -> Result<Expression, Diagnostic> {
        let start = self.peek();
        match start.kind {
            Kind::OpenParen => self.parentheses(),
            Kind::Number => {
                self.read();
                let number =
                    Number::parse(self.text(start)).ok_or_else(|| invalid_number(start.range))?;
                Ok(literal(Value::Number(number), start))
            }
            Kind::Identifier => self.word(),
            Kind::OpenQuote => {
                let open = self.read();
                self.deeper(|parser| parser.template(Kind::CloseQuote, false, open.range))
            }
            Kind::OpenHeredoc { flush } => {
                let open = self.read();
                self.deeper(|parser| parser.template(Kind::CloseHeredoc, flush, open.range))
            }
            Kind::Minus => self.unary(Unary::Negate),
            Kind::Bang => self.unary(Unary::Not),
            Kind::OpenBracket => self.tuple(),
            Kind::OpenBrace => self.object(),
            Kind::End => Err(Diagnostic::new(
                "Missing expression",
                "Expected the start of an expression, but found the end of the file.",
                start.range,
            )),
            _ => Err(Diagnostic::new(
                "Invalid expression",
                "Expected the start of an expression, but found an invalid expression token.",
                start.range,
            )),
        }
    }

    /// Parses an expression in parentheses.
    fn parentheses(&mut self) -> Result<Expression, Diagnostic> {
        let open = self.read();
        self.within(false, |parser| {
            let inner = parser.expression()?;
            let close = parser.read();
            if close.kind != Kind::CloseParen {
                return Err(Diagnostic::new(
                    "Unbalanced parentheses",
                    "Expected a closing parenthesis to terminate the expression.",
                    close.range,
                ));
            }
            Ok(Expression {
                kind: ExpressionKind::Parentheses(Box::new(inner)),
                range: open.range.to(close.range),
            })
        })
    }

    /// Parses an operation on the term that follows.
    fn unary(&mut self, operator: Unary) -> Result<Expression, Diagnostic> {
        let symbol = self.read();
        let operand = self.deeper(Self::stepped)?;
        let range = symbol.range.to(operand.range);
        Ok(Expression {
            kind: ExpressionKind::Unary {
                operator,
                operand: Box::new(operand),
                symbol: symbol.range,
            },
            range,
        })
    }

    /// Parses a name, a call, or one of the words for values.
    fn word(&mut self) -> Result<Expression, Diagnostic> {
        let word = self.read();
        if matches!(self.peek().kind, Kind::OpenParen | Kind::DoubleColon) {
            return self.call(word);
        }
        Ok(match self.text(word) {
            "true" => literal(Value::Bool(true), word),
            "false" => literal(Value::Bool(false), word),
            "null" => literal(Value::NULL, word),
            _ => Expression {
                kind: ExpressionKind::Reference(Reference {
                    root: self.name(word),
                    root_range: word.range,
                    steps: Vec::new(),
                }),
                range: word.range,
            },
        })
    }

    /// Parses the rest of a call.
    fn call(&mut self, word: Token) -> Result<Expression, Diagnostic> {
        let mut name = self.text(word).to_owned();
        let mut name_range = word.range;
        let mut open = self.read();
        while open.kind == Kind::DoubleColon {
            let next = self.read();
            if next.kind != Kind::Identifier {
                return Err(Diagnostic::new(
                    "Missing function name",
                    "Function scope resolution symbol :: must be followed by a function name in \
                     this scope.",
                    next.range,
                ));
            }
            name = format!("{name}::{}", self.text(next));
            name_range = name_range.to(next.range);
            open = self.read();
        }
        if open.kind != Kind::OpenParen {
            return Err(Diagnostic::new(
                "Missing open parenthesis",
                "Function selector must be followed by an open parenthesis to begin the function \
                 call.",
                open.range,
            ));
        }
        let mut call = Call {
            name: name.into(),
            arguments: Vec::new(),
            expands: false,
            name_range,
            open: open.range,
            close: open.range,
        };
        self.within(false, |parser| parser.arguments(&mut call))?;
        let range = call.name_range.to(call.close);
        Ok(Expression { kind: ExpressionKind::Call(call), range })
    }

    /// Parses arguments up to the closing parenthesis.
    fn arguments(&mut self, call: &mut Call) -> Result<(), Diagnostic> {
        loop {
            if self.peek().kind == Kind::CloseParen {
                call.close = self.read().range;
                return Ok(());
            }
            call.arguments.push(self.expression()?);
            let separator = self.read();
            match separator.kind {
                Kind::Comma => {}
                Kind::CloseParen => {
                    call.close = separator.range;
                    return Ok(());
                }
                Kind::Ellipsis => {
                    call.expands = true;
                    if self.peek().kind != Kind::CloseParen {
                        return Err(Diagnostic::new(
                            "Missing closing parenthesis",
                            "An expanded function argument (with ...) must be immediately followed \
                             by closing parentheses.",
                            separator.range,
                        ));
                    }
                }
                Kind::End => {
                    return Err(Diagnostic::new(
                        "Unterminated function call",
                        "There is no closing parenthesis for this function call before the end of \
                         the file. This may be caused by incorrect parenthesis nesting elsewhere \
                         in this file.",
                        call.name_range.to(call.open),
                    ));
                }
                _ => {
                    return Err(Diagnostic::new(
                        "Missing argument separator",
                        "A comma is required to separate each function argument from the next.",
                        separator.range,
                    ));
                }
            }
        }
    }
}

/// Makes a literal of a token.
fn literal(value: Value, token: Token) -> Expression {
    Expression { kind: ExpressionKind::Literal(value), range: token.range }
}

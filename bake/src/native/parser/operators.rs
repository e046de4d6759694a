//! Operators and steps into values.

use super::Parser;
use crate::diagnostic::Diagnostic;
use crate::expression::{Binary, Expression, Kind as ExpressionKind, Step, To};
use crate::native::token::{Kind, Token};
use crate::number::Number;
use crate::source::Range;
use crate::value::Value;

/// The levels of operators, the loosest first.
const LEVELS: u8 = 6;

impl Parser<'_> {
    /// Parses `condition ? yes : no`, or what can be the condition.
    pub(super) fn conditional(&mut self) -> Result<Expression, Diagnostic> {
        let condition = self.binary(0)?;
        if self.peek().kind != Kind::Question {
            return Ok(condition);
        }
        self.read();
        let yes = self.expression()?;
        let colon = self.peek();
        if colon.kind != Kind::Colon {
            return Err(Diagnostic::new(
                "Missing false expression in conditional",
                "The conditional operator (...?...:...) requires a false expression, delimited by \
                 a colon.",
                colon.range,
            ));
        }
        self.read();
        let no = self.expression()?;
        let range = condition.range.to(no.range);
        Ok(Expression {
            kind: ExpressionKind::Conditional {
                condition: Box::new(condition),
                yes: Box::new(yes),
                no: Box::new(no),
            },
            range,
        })
    }

    /// Parses operations of a level and of tighter ones. Operators group to the left.
    fn binary(&mut self, level: u8) -> Result<Expression, Diagnostic> {
        let mut left = self.stepped()?;
        let mut length = 0;
        while let Some(operator) = operator(self.peek().kind) {
            if operator.level < level {
                break;
            }
            length += 1;
            if length > crate::limits::OPERATORS {
                return Err(crate::limits::too_deep(self.peek().range));
            }
            self.read();
            let right = if operator.level + 1 < LEVELS {
                self.deeper(|parser| parser.binary(operator.level + 1))?
            } else {
                self.stepped()?
            };
            let range = left.range.to(right.range);
            left = Expression {
                kind: ExpressionKind::Binary {
                    operator: operator.operation,
                    left: Box::new(left),
                    right: Box::new(right),
                },
                range,
            };
        }
        Ok(left)
    }

    /// Parses a term and the steps behind it.
    pub(super) fn stepped(&mut self) -> Result<Expression, Diagnostic> {
        let term = self.term()?;
        self.steps(term)
    }

    /// Parses the steps behind an expression.
    fn steps(&mut self, from: Expression) -> Result<Expression, Diagnostic> {
        let begin = from.range;
        let mut stepped = from;
        let mut length = 0;
        loop {
            length += 1;
            if length > crate::limits::OPERATORS {
                return Err(crate::limits::too_deep(self.peek().range));
            }
            match self.peek().kind {
                Kind::Dot => {
                    let dot = self.read();
                    stepped = self.dot_step(stepped, dot, begin)?;
                }
                Kind::OpenBracket => {
                    let open = self.read();
                    stepped = if self.peek().kind == Kind::Star {
                        self.full_splat(stepped, open, begin)?
                    } else {
                        self.index(stepped, open, begin)?
                    };
                }
                _ => return Ok(stepped),
            }
        }
    }

    /// Parses what follows a dot.
    fn dot_step(
        &mut self,
        from: Expression,
        dot: Token,
        begin: Range,
    ) -> Result<Expression, Diagnostic> {
        match self.peek().kind {
            Kind::Identifier | Kind::Number => {
                let step = self.attribute_step(dot, "")?;
                Ok(with_step(from, step))
            }
            Kind::Star => {
                let marker = self.read();
                self.attribute_splat(from, dot, marker, begin)
            }
            _ => Err(no_attribute(self.peek().range)),
        }
    }

    /// Parses a name or a whole number behind a dot.
    fn attribute_step(&mut self, dot: Token, splat: &str) -> Result<Step, Diagnostic> {
        let token = self.read();
        let range = dot.range.to(token.range);
        if token.kind == Kind::Identifier {
            return Ok(Step { to: To::Attribute(self.name(token)), range });
        }
        let text = self.text(token);
        if let Some((first, second)) = text.split_once('.') {
            return Err(Diagnostic::new(
                "Invalid legacy index syntax",
                format!(
                    "When using the legacy index syntax, chaining two indexes together is not \
                     permitted. Use the proper index syntax{splat} instead, like \
                     [{first}][{second}]."
                ),
                token.range,
            ));
        }
        let key = Number::parse(text).ok_or_else(|| invalid_number(token.range))?;
        Ok(Step { to: To::Index(Value::Number(key)), range })
    }

    /// Parses `.*` and the names behind it, which alone belong to it.
    fn attribute_splat(
        &mut self,
        from: Expression,
        dot: Token,
        marker: Token,
        begin: Range,
    ) -> Result<Expression, Diagnostic> {
        let marker_range = dot.range.to(marker.range);
        let mut each = Expression { kind: ExpressionKind::Element, range: marker_range };
        let mut last = marker.range;
        while self.peek().kind == Kind::Dot {
            let dot = self.read();
            match self.peek().kind {
                Kind::Identifier | Kind::Number => {
                    let step = self.attribute_step(dot, " with a full splat expression [*]")?;
                    last = step.range;
                    each = with_step(each, step);
                }
                Kind::Star => {
                    return Err(Diagnostic::new(
                        "Nested splat expression not allowed",
                        "A splat expression (*) cannot be used inside another attribute-only \
                         splat expression.",
                        self.peek().range,
                    ));
                }
                _ => return Err(no_attribute(marker.range)),
            }
        }
        Ok(Expression {
            kind: ExpressionKind::Splat {
                source: Box::new(from),
                each: Box::new(each),
                marker: marker_range,
            },
            range: begin.to(last),
        })
    }

    /// Parses `*]` and all steps behind it, which belong to it.
    fn full_splat(
        &mut self,
        from: Expression,
        open: Token,
        begin: Range,
    ) -> Result<Expression, Diagnostic> {
        self.read();
        let close = self.read();
        if close.kind != Kind::CloseBracket {
            return Err(Diagnostic::new(
                "Missing close bracket on splat index",
                "The star for a full splat operator must be immediately followed by a closing \
                 bracket (\"]\").",
                close.range,
            ));
        }
        let marker = open.range.to(close.range);
        let element = Expression { kind: ExpressionKind::Element, range: marker };
        let each = self.deeper(|parser| parser.steps(element))?;
        let range = begin.to(each.range);
        Ok(Expression {
            kind: ExpressionKind::Splat { source: Box::new(from), each: Box::new(each), marker },
            range,
        })
    }

    /// Parses the key of an element and the closing bracket.
    fn index(
        &mut self,
        from: Expression,
        open: Token,
        begin: Range,
    ) -> Result<Expression, Diagnostic> {
        let (key, close) = self.within(false, |parser| {
            let key = parser.expression()?;
            let close = parser.read();
            if close.kind != Kind::CloseBracket {
                return Err(Diagnostic::new(
                    "Missing close bracket on index",
                    "The index operator must end with a closing bracket (\"]\").",
                    close.range,
                ));
            }
            Ok((key, close))
        })?;
        let bracket = open.range.to(close.range);
        if let Some(key) = written_key(&key) {
            return Ok(with_step(from, Step { to: To::Index(key), range: bracket }));
        }
        Ok(Expression {
            kind: ExpressionKind::Index {
                collection: Box::new(from),
                key: Box::new(key),
                open: open.range,
                bracket,
            },
            range: begin.to(bracket),
        })
    }
}

/// Returns the value of a key that is written down.
fn written_key(key: &Expression) -> Option<Value> {
    match &key.kind {
        ExpressionKind::Literal(value) => Some(value.clone()),
        ExpressionKind::Template(parts) => match parts.as_slice() {
            [Expression { kind: ExpressionKind::Literal(value), .. }] => Some(value.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// Adds a step to an expression.
fn with_step(from: Expression, step: Step) -> Expression {
    let range = from.range.to(step.range);
    let kind = match from.kind {
        ExpressionKind::Reference(mut reference) => {
            reference.steps.push(step);
            ExpressionKind::Reference(reference)
        }
        ExpressionKind::Relative { source, mut steps } => {
            steps.push(step);
            ExpressionKind::Relative { source, steps }
        }
        _ => ExpressionKind::Relative { source: Box::new(from), steps: vec![step] },
    };
    Expression { kind, range }
}

/// Says that a dot must be followed by a name.
fn no_attribute(range: Range) -> Diagnostic {
    Diagnostic::new("Invalid attribute name", "An attribute name is required after a dot.", range)
}

/// Says that a number can't be read.
pub(super) fn invalid_number(range: Range) -> Diagnostic {
    Diagnostic::new(
        "Invalid number literal",
        "Failed to recognize the value of this number literal.",
        range,
    )
}

/// An operator and how tightly it binds.
struct Operator {
    operation: Binary,
    level: u8,
}

/// Returns the operator of a token.
fn operator(kind: Kind) -> Option<Operator> {
    let (operation, level) = match kind {
        Kind::Or => (Binary::Or, 0),
        Kind::And => (Binary::And, 1),
        Kind::Equal => (Binary::Equal, 2),
        Kind::NotEqual => (Binary::NotEqual, 2),
        Kind::Greater => (Binary::Greater, 3),
        Kind::GreaterOrEqual => (Binary::GreaterOrEqual, 3),
        Kind::Less => (Binary::Less, 3),
        Kind::LessOrEqual => (Binary::LessOrEqual, 3),
        Kind::Plus => (Binary::Add, 4),
        Kind::Minus => (Binary::Subtract, 4),
        Kind::Star => (Binary::Multiply, 5),
        Kind::Slash => (Binary::Divide, 5),
        Kind::Percent => (Binary::Modulo, 5),
        _ => return None,
    };
    Some(Operator { operation, level })
}

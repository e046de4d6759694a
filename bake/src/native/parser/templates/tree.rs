//! Matching of directives and their ends.

use std::collections::VecDeque;

use super::{ForDirective, Part};
use crate::diagnostic::Diagnostic;
use crate::expression::{Expression, For, Kind};
use crate::source::Range;
use crate::value::Value;

/// Makes expressions of the parts of a template.
pub(super) fn build(
    parts: Vec<Part>,
    start: Range,
    end: Range,
) -> Result<Vec<Expression>, Diagnostic> {
    let mut builder = Builder { parts: parts.into(), end };
    if builder.parts.is_empty() {
        return Ok(vec![text(String::new(), start)]);
    }
    let mut expressions = Vec::new();
    while let Some(part) = builder.parts.pop_front() {
        expressions.push(builder.expression(part)?);
    }
    Ok(expressions)
}

/// The parts that are left.
struct Builder {
    parts: VecDeque<Part>,
    end: Range,
}

/// The expressions of a branch and what ended it.
struct Branch {
    expressions: Vec<Expression>,
    end: &'static str,
    end_range: Range,
}

impl Builder {
    /// Makes an expression that begins with a part.
    fn expression(&mut self, part: Part) -> Result<Expression, Diagnostic> {
        match part {
            Part::Text { text: content, range } => Ok(text(content, range)),
            Part::Interpolation(expression) => Ok(expression),
            Part::If { condition, range } => self.conditional(condition, range),
            Part::For(directive) => self.each(directive),
            Part::End { word, range } => Err(Diagnostic::new(
                format!("Unexpected {word} directive"),
                "The control directives within this template are unbalanced.",
                range,
            )),
        }
    }

    /// Collects expressions up to the end of a branch.
    fn branch(&mut self, directive: &str) -> Result<Branch, Diagnostic> {
        let mut expressions = Vec::new();
        loop {
            match self.parts.pop_front() {
                None => {
                    return Err(Diagnostic::new(
                        "Unexpected end of template",
                        format!(
                            "The {directive} directive is missing its corresponding end{directive} \
                             directive."
                        ),
                        self.end,
                    ));
                }
                Some(Part::End { word, range }) => {
                    return Ok(Branch { expressions, end: word, end_range: range });
                }
                Some(part) => expressions.push(self.expression(part)?),
            }
        }
    }

    /// Makes a conditional expression.
    fn conditional(
        &mut self,
        condition: Expression,
        open: Range,
    ) -> Result<Expression, Diagnostic> {
        let yes = self.branch("if")?;
        let mut close = yes.end_range;
        let mut no = Vec::new();
        match yes.end {
            "endif" => {}
            "else" => {
                let branch = self.branch("if")?;
                close = branch.end_range;
                no = branch.expressions;
                match branch.end {
                    "endif" => {}
                    "else" => {
                        return Err(Diagnostic::new(
                            "Unexpected else directive",
                            "Already in the else clause for the if directive.",
                            close,
                        ));
                    }
                    other => return Err(unexpected(other, "if", close)),
                }
            }
            other => return Err(unexpected(other, "if", close)),
        }
        Ok(Expression {
            kind: Kind::Conditional {
                condition: Box::new(condition),
                yes: Box::new(template(yes.expressions, open.at_end())),
                no: Box::new(template(no, close.at_start())),
            },
            range: open.to(close),
        })
    }

    /// Makes a loop whose texts are joined.
    fn each(&mut self, directive: ForDirective) -> Result<Expression, Diagnostic> {
        let branch = self.branch("for")?;
        match branch.end {
            "endfor" => {}
            "else" => {
                return Err(Diagnostic::new(
                    "Unexpected else directive",
                    "An else clause is not expected for a for directive.",
                    branch.end_range,
                ));
            }
            other => return Err(unexpected(other, "for", branch.end_range)),
        }
        let open = directive.range;
        let range = open.to(branch.end_range);
        let each = For {
            key_name: directive.key_name,
            value_name: directive.value_name,
            collection: directive.collection,
            key: None,
            value: template(branch.expressions, open.at_end()),
            condition: None,
            groups: false,
            open,
        };
        let each = Expression { kind: Kind::For(Box::new(each)), range };
        Ok(Expression { kind: Kind::Join(Box::new(each)), range })
    }
}

/// Makes a template of a branch.
fn template(mut parts: Vec<Expression>, empty: Range) -> Expression {
    if parts.is_empty() {
        parts.push(text(String::new(), empty));
    }
    let first = parts.first().map_or(empty, |part| part.range);
    let last = parts.last().map_or(empty, |part| part.range);
    Expression { kind: Kind::Template(parts), range: first.to(last) }
}

/// Makes a literal.
fn text(text: String, range: Range) -> Expression {
    Expression { kind: Kind::Literal(Value::text(text)), range }
}

/// Says that the end of another directive was found.
fn unexpected(word: &str, directive: &str, range: Range) -> Diagnostic {
    Diagnostic::new(
        format!("Unexpected {word} directive"),
        format!("Expecting an end{directive} directive for the {directive} directive."),
        range,
    )
}

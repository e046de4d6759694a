//! Operators.

use super::{Evaluator, Scope};
use crate::convert::convert;
use crate::diagnostic::Diagnostic;
use crate::expression::{Binary, Expression, Unary};
use crate::number::Number;
use crate::source::Range;
use crate::types::Type;
use crate::value::Value;

const INVALID_OPERAND: &str = "Invalid operand";

/// An operation on two operands.
pub(super) struct Operation<'a> {
    pub(super) operator: Binary,
    pub(super) left: &'a Expression,
    pub(super) right: &'a Expression,
}

impl Evaluator<'_> {
    /// Evaluates an operation on two operands.
    pub(super) fn binary(
        &self,
        operation: &Operation<'_>,
        range: Range,
        scope: &Scope<'_>,
        errors: &mut Vec<Diagnostic>,
    ) -> Value {
        let operator = operation.operator;
        let mut left_errors = Vec::new();
        let mut right_errors = Vec::new();
        let want = operand_type(operator);
        let mut wrong = Vec::new();
        let mut operand = |expression: &Expression, name, own: &mut Vec<Diagnostic>| {
            let value = self.evaluate(expression, scope, own);
            convert(&value, &want).unwrap_or_else(|error| {
                wrong.push(Diagnostic::new(
                    INVALID_OPERAND,
                    format!("Unsuitable value for {name} operand: {error}."),
                    expression.range,
                ));
                Value::UNKNOWN
            })
        };
        let left = operand(operation.left, "left", &mut left_errors);
        let right = operand(operation.right, "right", &mut right_errors);
        let unknown = Value::Unknown(result_type(operator));
        if !wrong.is_empty() {
            errors.extend(wrong);
            errors.extend(left_errors);
            errors.extend(right_errors);
            return unknown;
        }
        // One operand can decide: then the errors of the other one don't count.
        let decisive = match operator {
            Binary::Or => Some(true),
            Binary::And => Some(false),
            _ => None,
        };
        if let Some(decisive) = decisive {
            if left == Value::Bool(decisive) {
                errors.extend(left_errors);
                return Value::Bool(decisive);
            }
            if right == Value::Bool(decisive) {
                errors.extend(right_errors);
                return Value::Bool(decisive);
            }
        }
        let has_errors = !left_errors.is_empty() || !right_errors.is_empty();
        errors.extend(left_errors);
        errors.extend(right_errors);
        if has_errors {
            return unknown;
        }
        match apply(operator, &left, &right) {
            Ok(Some(value)) => value,
            Ok(None) => unknown,
            Err(error) => {
                errors.push(failed(error, range));
                unknown
            }
        }
    }

    /// Evaluates an operation on one operand.
    pub(super) fn unary(
        &self,
        operator: Unary,
        operand: &Expression,
        scope: &Scope<'_>,
        errors: &mut Vec<Diagnostic>,
    ) -> Value {
        let want = match operator {
            Unary::Negate => Type::Number,
            Unary::Not => Type::Bool,
        };
        let before = errors.len();
        let value = self.evaluate(operand, scope, errors);
        let value = match convert(&value, &want) {
            Ok(value) => value,
            Err(error) => {
                errors.push(Diagnostic::new(
                    INVALID_OPERAND,
                    format!("Unsuitable value for unary operand: {error}."),
                    operand.range,
                ));
                return Value::Unknown(want);
            }
        };
        if errors.len() > before {
            return Value::Unknown(want);
        }
        match value {
            Value::Number(number) => Value::Number(number.negate()),
            Value::Bool(value) => Value::Bool(!value),
            Value::Null(_) => {
                errors.push(failed("argument must not be null", operand.range));
                Value::Unknown(want)
            }
            _ => Value::Unknown(want),
        }
    }
}

/// Says that an operation has no result.
fn failed(error: &str, range: Range) -> Diagnostic {
    Diagnostic::new("Operation failed", format!("Error during operation: {error}."), range)
}

/// Returns the type to which operands are converted.
fn operand_type(operator: Binary) -> Type {
    match operator {
        Binary::Or | Binary::And => Type::Bool,
        Binary::Equal | Binary::NotEqual => Type::Dynamic,
        _ => Type::Number,
    }
}

/// Returns the type of results.
fn result_type(operator: Binary) -> Type {
    match operator {
        Binary::Add | Binary::Subtract | Binary::Multiply | Binary::Divide | Binary::Modulo => {
            Type::Number
        }
        _ => Type::Bool,
    }
}

/// Applies an operator. `None` means that the result isn't known.
pub(crate) fn apply(
    operator: Binary,
    left: &Value,
    right: &Value,
) -> Result<Option<Value>, &'static str> {
    match operator {
        Binary::Equal => return Ok(left.equals(right).map(Value::Bool)),
        Binary::NotEqual => return Ok(left.equals(right).map(|equal| Value::Bool(!equal))),
        _ => {}
    }
    if left.is_null() || right.is_null() {
        return Err("argument must not be null");
    }
    match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => Ok(Some(Value::Bool(match operator {
            Binary::Or => *left || *right,
            _ => *left && *right,
        }))),
        (Value::Number(left), Value::Number(right)) => numbers(operator, left, right).map(Some),
        _ => Ok(None),
    }
}

/// Applies an operator to numbers.
fn numbers(operator: Binary, left: &Number, right: &Number) -> Result<Value, &'static str> {
    let (result, error) = match operator {
        Binary::Greater => return Ok(Value::Bool(left > right)),
        Binary::GreaterOrEqual => return Ok(Value::Bool(left >= right)),
        Binary::Less => return Ok(Value::Bool(left < right)),
        Binary::LessOrEqual => return Ok(Value::Bool(left <= right)),
        Binary::Add => (left.add(right), "can't compute sum of opposing infinities"),
        Binary::Subtract => (left.subtract(right), "can't subtract infinity from itself"),
        Binary::Multiply => (left.multiply(right), "can't multiply zero by infinity"),
        Binary::Divide => (left.divide(right), "can't divide zero by zero or infinity by infinity"),
        _ => (left.modulo(right), "can't use modulo with zero and infinity"),
    };
    result.map(Value::Number).ok_or(error)
}

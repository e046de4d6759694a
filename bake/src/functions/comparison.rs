//! Functions that compare, and the operators as functions.

use super::{Failure, Function, Parameter, ParameterKind};
use crate::convert::convert;
use crate::evaluate::apply_operator;
use crate::expression::Binary;
use crate::types::Type;
use crate::unify::unify;
use crate::value::Value;

const A: Parameter = Parameter::any("a").open();
const B: Parameter = Parameter::any("b").open();
const BOOLS: &[Parameter] =
    &[Parameter::new("a", ParameterKind::Bool), Parameter::new("b", ParameterKind::Bool)];
const NUMBERS: &[Parameter] = &[Parameter::number("a"), Parameter::number("b")];

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("add", NUMBERS, ParameterKind::Number, |_, values| operate(Binary::Add, values)),
    Function::new("and", BOOLS, ParameterKind::Bool, |_, values| operate(Binary::And, values)),
    Function::new("coalesce", &[], ParameterKind::Any, |_, values| coalesce(values))
        .with_more(Parameter::any("vals").open()),
    Function::new("divide", NUMBERS, ParameterKind::Number, |_, values| {
        operate(Binary::Divide, values)
    }),
    Function::new("equal", &[A, B], ParameterKind::Bool, |_, values| {
        operate(Binary::Equal, values)
    }),
    Function::new("greaterthan", NUMBERS, ParameterKind::Bool, |_, values| {
        operate(Binary::Greater, values)
    }),
    Function::new("greaterthanorequalto", NUMBERS, ParameterKind::Bool, |_, values| {
        operate(Binary::GreaterOrEqual, values)
    }),
    Function::new("lessthan", NUMBERS, ParameterKind::Bool, |_, values| {
        operate(Binary::Less, values)
    }),
    Function::new("lessthanorequalto", NUMBERS, ParameterKind::Bool, |_, values| {
        operate(Binary::LessOrEqual, values)
    }),
    Function::new("modulo", NUMBERS, ParameterKind::Number, |_, values| {
        operate(Binary::Modulo, values)
    }),
    Function::new("multiply", NUMBERS, ParameterKind::Number, |_, values| {
        operate(Binary::Multiply, values)
    }),
    Function::new(
        "not",
        &[Parameter::new("val", ParameterKind::Bool)],
        ParameterKind::Bool,
        |_, values| match values {
            [Value::Bool(value)] => Ok(Value::Bool(!value)),
            _ => Err(Failure::argument(0, "bool required")),
        },
    ),
    Function::new("notequal", &[A, B], ParameterKind::Bool, |_, values| {
        operate(Binary::NotEqual, values)
    }),
    Function::new("or", BOOLS, ParameterKind::Bool, |_, values| operate(Binary::Or, values)),
    Function::new("subtract", NUMBERS, ParameterKind::Number, |_, values| {
        operate(Binary::Subtract, values)
    }),
];

/// Applies an operator to two arguments.
fn operate(operator: Binary, values: &[Value]) -> Result<Value, Failure> {
    let [left, right] = values else {
        return Err(Failure::new("two arguments are required"));
    };
    match apply_operator(operator, left, right) {
        Ok(Some(value)) => Ok(value),
        Ok(None) => Ok(Value::Unknown(Type::Bool)),
        Err(error) => Err(Failure::new(error)),
    }
}

/// Returns the first argument that isn't null.
fn coalesce(values: &[Value]) -> Result<Value, Failure> {
    let types: Vec<Type> =
        values.iter().map(Value::type_of).filter(|kind| *kind != Type::Dynamic).collect();
    let common = if types.is_empty() && !values.is_empty() {
        Type::Dynamic
    } else {
        unify(&types, true).ok_or_else(|| Failure::new("all arguments must have the same type"))?
    };
    for value in values {
        match value {
            Value::Unknown(_) => return Ok(Value::Unknown(common)),
            Value::Null(_) => {}
            value => return convert(value, &common).map_err(Failure::new),
        }
    }
    Err(Failure::new("no non-null arguments"))
}

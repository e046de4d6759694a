//! Functions of collections of several kinds.

use super::{Failure, Function, Parameter, ParameterKind, whole};
use crate::number::Number;
use crate::value::Value;

const COLLECTION: Parameter = Parameter::any("collection");

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new(
        "contains",
        &[Parameter::any("list"), Parameter::any("value").nullable()],
        ParameterKind::Bool,
        |_, values| contains(values),
    ),
    Function::new("hasindex", &[COLLECTION, Parameter::any("key")], ParameterKind::Bool, |_, v| {
        if !is_indexed(&v[0]) {
            return Err(Failure::new("collection must be a list, a map or a tuple"));
        }
        Ok(Value::Bool(at(&v[0], &v[1]).is_some()))
    }),
    Function::new(
        "index",
        &[COLLECTION, Parameter::any("key")],
        ParameterKind::Any,
        |_, values| index(values),
    ),
    Function::new("length", &[COLLECTION], ParameterKind::Number, |_, values| {
        let length = match &values[0] {
            Value::Map(mapping) => Some(mapping.entries.len()),
            other => other.items().map(<[Value]>::len),
        };
        length
            .map(|length| Value::Number(Number::from(length)))
            .ok_or_else(|| Failure::new("collection must be a list, a map or a tuple"))
    }),
];

/// Returns `true` for lists, tuples and maps.
fn is_indexed(value: &Value) -> bool {
    matches!(value, Value::List(_) | Value::Tuple(_) | Value::Map(_))
}

/// Returns the element at a key of the right type.
fn at<'a>(collection: &'a Value, key: &Value) -> Option<&'a Value> {
    match (collection, key) {
        (Value::Map(mapping), Value::String(key)) => mapping.entries.get(key),
        (Value::List(sequence) | Value::Tuple(sequence), Value::Number(key)) => {
            sequence.items.get(usize::try_from(key.to_i64()?).ok()?)
        }
        _ => None,
    }
}

/// Returns whether a list, tuple or set has an element.
fn contains(values: &[Value]) -> Result<Value, Failure> {
    let Some(items) = values[0].items() else {
        return Err(Failure::new("argument must be list, tuple, or set"));
    };
    Ok(Value::Bool(items.iter().any(|item| item.equals(&values[1]) == Some(true))))
}

/// Returns the element at a key.
fn index(values: &[Value]) -> Result<Value, Failure> {
    let collection = &values[0];
    let is_number = matches!(values[1], Value::Number(_));
    match collection {
        Value::Tuple(sequence) => {
            if !is_number {
                return Err(Failure::new("key for tuple must be number"));
            }
            whole(values, 1).map_err(|failure| {
                Failure::new(format!("invalid key for tuple: {}", failure.message))
            })?;
            at(collection, &values[1]).cloned().ok_or_else(|| {
                Failure::new(format!(
                    "key must be between 0 and {} inclusive",
                    sequence.items.len()
                ))
            })
        }
        Value::List(_) if !is_number => Err(Failure::new("key for list must be number")),
        Value::Map(_) if !matches!(values[1], Value::String(_)) => {
            Err(Failure::new("key for map must be string"))
        }
        Value::List(_) | Value::Map(_) => {
            at(collection, &values[1]).cloned().ok_or_else(|| Failure::new("invalid index"))
        }
        _ => Err(Failure::new("collection must be a list, a map or a tuple")),
    }
}

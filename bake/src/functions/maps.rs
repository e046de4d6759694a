//! Functions of maps and objects.

use super::{Failure, Function, Parameter, ParameterKind, items, text};
use crate::convert::convert;
use crate::quote::quote;
use crate::types::Type;
use crate::value::{Entries, Value};

const ANY: ParameterKind = ParameterKind::Any;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("keys", &[Parameter::any("inputMap")], ANY, |_, values| keys(values)),
    Function::new(
        "lookup",
        &[Parameter::any("inputMap"), Parameter::string("key"), Parameter::any("default")],
        ANY,
        |_, values| lookup(values),
    ),
    Function::new("merge", &[], ANY, |_, values| merge(values))
        .with_more(Parameter::any("maps").nullable()),
    Function::new("values", &[Parameter::any("mapping")], ANY, |_, values| match &values[0] {
        Value::Map(mapping) => {
            Ok(Value::list(mapping.element.clone(), mapping.entries.values().cloned().collect()))
        }
        Value::Object(mapping) => Ok(Value::tuple(mapping.entries.values().cloned().collect())),
        _ => Err(Failure::new("values() requires a map as the first argument")),
    }),
    Function::new(
        "zipmap",
        &[Parameter::new("keys", ParameterKind::ListOfString), Parameter::any("values")],
        ANY,
        |_, values| zip(values),
    ),
];

/// Returns the names of entries.
fn keys(values: &[Value]) -> Result<Value, Failure> {
    match &values[0] {
        Value::Map(mapping) => Ok(Value::texts(mapping.entries.keys())),
        Value::Object(mapping) => {
            Ok(Value::tuple(mapping.entries.keys().map(Value::text).collect()))
        }
        _ => Err(Failure::argument(0, "must have map or object type")),
    }
}

/// Returns an entry, or a default.
fn lookup(values: &[Value]) -> Result<Value, Failure> {
    let key = text(values, 1)?;
    match &values[0] {
        Value::Object(mapping) => Ok(mapping.entries.get(key).unwrap_or(&values[2]).clone()),
        Value::Map(mapping) => {
            let default = convert(&values[2], &mapping.element).map_err(|_| {
                Failure::argument(
                    2,
                    "the default value must have the same type as the map elements",
                )
            })?;
            Ok(mapping.entries.get(key).cloned().unwrap_or(default))
        }
        _ => Err(Failure::argument(0, "lookup() requires a map as the first argument")),
    }
}

/// Puts the entries of all arguments together. Later ones win.
fn merge(values: &[Value]) -> Result<Value, Failure> {
    let mut merged = Entries::new();
    let mut kinds: Vec<Type> = Vec::new();
    for value in values {
        let kind = value.type_of();
        match (&kind, value.entries()) {
            (Type::Dynamic, _) => kinds.push(Type::Dynamic),
            (_, Some(entries)) => {
                merged.extend(entries.clone());
                kinds.push(kind);
            }
            (Type::Map(_), None) => kinds.push(kind),
            (Type::Object(_), None) => kinds.push(Type::object(std::collections::BTreeMap::new())),
            _ => {
                return Err(Failure::new(format!(
                    "arguments must be maps or objects, got {}",
                    quote(&kind.name())
                )));
            }
        }
    }
    match kinds.first() {
        Some(Type::Map(element)) if kinds.iter().all(|kind| *kind == kinds[0]) => {
            Ok(Value::map((**element).clone(), merged))
        }
        _ => Ok(Value::object(merged)),
    }
}

/// Makes a map of keys and values.
fn zip(values: &[Value]) -> Result<Value, Failure> {
    let keys = items(values, 0)?;
    let (Value::List(sequence) | Value::Tuple(sequence)) = &values[1] else {
        return Err(Failure::new("values argument must be a list or tuple value"));
    };
    if keys.len() != sequence.items.len() {
        return Err(Failure::new(format!(
            "number of keys ({}) does not match number of values ({})",
            keys.len(),
            sequence.items.len()
        )));
    }
    let mut entries = Entries::new();
    for (index, key) in keys.iter().enumerate() {
        let Value::String(key) = key else {
            return Err(Failure::new(format!("keys list has null value at index {index}")));
        };
        entries.insert(key.clone(), sequence.items[index].clone());
    }
    Ok(match &values[1] {
        Value::List(_) => Value::map(sequence.element.clone(), entries),
        _ => Value::object(entries),
    })
}

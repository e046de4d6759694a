//! Attributes and elements of values.

use crate::convert::convert;
use crate::diagnostic::Diagnostic;
use crate::quote::quote;
use crate::source::Range;
use crate::types::Type;
use crate::value::Value;

const INVALID_INDEX: &str = "Invalid index";
const NO_ELEMENT: &str = "The given key does not identify an element in this collection value";
const UNSUPPORTED: &str = "Unsupported attribute";

/// Returns an attribute of a value.
pub(crate) fn attribute(value: &Value, name: &str, range: Range) -> Result<Value, Diagnostic> {
    let refuse = |detail: String| Err(Diagnostic::new(UNSUPPORTED, detail, range));
    let element_name = |kind: &Type| match kind {
        Type::Object(object) => Some(object.attributes.contains_key(name)),
        _ => None,
    };
    match value {
        Value::Null(_) => Err(Diagnostic::new(
            "Attempt to get attribute from null value",
            "This value is null, so it does not have any attributes.",
            range,
        )),
        Value::Unknown(Type::Object(object)) => match object.attributes.get(name) {
            Some(attribute) => Ok(Value::Unknown(attribute.clone())),
            None => refuse(format!("This object does not have an attribute named {}.", quote(name))),
        },
        Value::Unknown(Type::Map(element)) => Ok(Value::Unknown((**element).clone())),
        Value::Unknown(_) => Ok(Value::UNKNOWN),
        Value::Object(mapping) => match mapping.entries.get(name) {
            Some(value) => Ok(value.clone()),
            None => refuse(format!("This object does not have an attribute named {}.", quote(name))),
        },
        Value::Map(mapping) => mapping.entries.get(name).cloned().ok_or_else(|| {
            Diagnostic::new(
                "Missing map element",
                format!("This map does not have an element with the key {}.", quote(name)),
                range,
            )
        }),
        Value::List(sequence) => match element_name(&sequence.element) {
            Some(true) => refuse(format!(
                "Can't access attributes on a list of objects. Did you mean to access attribute {} \
                 for a specific element of the list, or across all elements of the list?",
                quote(name)
            )),
            Some(false) => refuse(
                "Can't access attributes on a list of objects. Did you mean to access an attribute \
                 for a specific element of the list, or across all elements of the list?"
                    .into(),
            ),
            None => refuse("This value does not have any attributes.".into()),
        },
        Value::Set(sequence) if element_name(&sequence.element).is_some() => refuse(
            "Can't access attributes on a set of objects. Did you mean to access an attribute \
             across all elements of the set?"
                .into(),
        ),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => refuse(format!(
            "Can't access attributes on a primitive-typed value ({}).",
            value.type_of().name()
        )),
        _ => refuse("This value does not have any attributes.".into()),
    }
}

/// Returns an element of a value.
pub(crate) fn index(value: &Value, key: &Value, range: Range) -> Result<Value, Diagnostic> {
    let refuse = |detail: String| Err(Diagnostic::new(INVALID_INDEX, detail, range));
    if value.is_null() {
        return Err(Diagnostic::new(
            "Attempt to index null value",
            "This value is null, so it does not have any indices.",
            range,
        ));
    }
    if key.is_null() {
        return refuse("Can't use a null value as an indexing key.".into());
    }
    if !value.is_known() || !key.is_known() {
        return Ok(Value::UNKNOWN);
    }
    let converted = |want: &Type| {
        convert(key, want).map_err(|error| {
            Diagnostic::new(INVALID_INDEX, format!("{NO_ELEMENT}: {error}."), range)
        })
    };
    match value {
        Value::List(sequence) | Value::Tuple(sequence) => {
            element(&sequence.items, &converted(&Type::Number)?)
                .or_else(|reason| refuse(format!("{NO_ELEMENT}: {reason}.")))
        }
        Value::Map(mapping) => {
            let key = converted(&Type::String)?;
            let found = key.as_text().and_then(|key| mapping.entries.get(key));
            match found {
                Some(value) => Ok(value.clone()),
                None => refuse(format!("{NO_ELEMENT}.")),
            }
        }
        Value::Object(mapping) => {
            let text = converted(&Type::String)?;
            let found = text.as_text().and_then(|key| mapping.entries.get(key));
            match found {
                Some(value) => Ok(value.clone()),
                None if matches!(key, Value::Number(_)) => refuse(format!(
                    "{NO_ELEMENT}. An object only supports looking up attributes by name, not by \
                     numeric index."
                )),
                None => refuse(format!("{NO_ELEMENT}.")),
            }
        }
        Value::Set(_) => refuse(
            "Elements of a set are identified only by their value and don't have any separate \
             index or key to select with, so it's only possible to perform operations across all \
             elements of the set."
                .into(),
        ),
        _ => refuse("This value does not have any indices.".into()),
    }
}

/// Returns an element of a sequence, or says why there is none.
fn element(items: &[Value], key: &Value) -> Result<Value, &'static str> {
    let Value::Number(number) = key else {
        return Err("a number is required");
    };
    if !number.is_whole() {
        return Err(
            "indexing a sequence requires a whole number, but the given index has a fractional \
             part",
        );
    }
    if number.is_negative() && !number.is_zero() {
        return Err("a negative number is not a valid index for a sequence");
    }
    let found = number.to_i64().and_then(|index| items.get(usize::try_from(index).ok()?));
    match found {
        Some(value) => Ok(value.clone()),
        None if items.is_empty() => Err("the collection has no elements"),
        None => Err("the given index is greater than or equal to the length of the collection"),
    }
}

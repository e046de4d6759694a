//! Conversions of values between types.
//!
//! A conversion is chosen by the types alone, and then carried out on the value: a list literal
//! whose elements can't all become one type is refused before any element is looked at.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::number::Number;
use crate::types::{ObjectType, Type};
use crate::unify;
use crate::value::{Entries, Value};

mod mismatch;

pub(crate) use mismatch::message as mismatch;

/// Converts a value to a type.
///
/// # Errors
/// Says what is required if there is no conversion, or if the value has none.
pub(crate) fn convert(value: &Value, want: &Type) -> Result<Value, String> {
    if *want == Type::Dynamic {
        return Ok(value.clone());
    }
    let have = value.type_of();
    if have == want.without_optional() {
        return Ok(value.clone());
    }
    if !is_possible(&have, want, true) {
        return Err(mismatch(&have, want));
    }
    apply(value, want)
}

/// Returns `true` if values of a type can be converted to another type.
///
/// A conversion that may fail for some values is possible only if it may be `lossy`.
pub(crate) fn is_possible(have: &Type, want: &Type, lossy: bool) -> bool {
    match (have, want) {
        (_, Type::Dynamic) | (Type::Number | Type::Bool, Type::String) => true,
        (Type::Dynamic, _) | (Type::String, Type::Number | Type::Bool) => lossy,
        (Type::Object(have), Type::Object(want)) => is_object_possible(have, want, lossy),
        (Type::Tuple(have), Type::Tuple(want)) => {
            have.len() == want.len()
                && have
                    .iter()
                    .zip(want.iter())
                    .all(|pair| is_same_or_possible(pair.0, pair.1, lossy))
        }
        (Type::List(have), Type::Set(want)) => lossy && is_same_or_possible(have, want, lossy),
        (Type::List(have) | Type::Set(have), Type::List(want))
        | (Type::Set(have), Type::Set(want))
        | (Type::Map(have), Type::Map(want)) => is_same_or_possible(have, want, lossy),
        (Type::Tuple(have), Type::List(want) | Type::Set(want)) => {
            is_structure_possible(have.iter(), want, lossy)
        }
        (Type::Object(have), Type::Map(want)) => {
            is_structure_possible(have.attributes.values(), want, lossy)
        }
        (Type::Map(have), Type::Object(want)) => {
            lossy
                && want.attributes.iter().all(|(name, attribute)| {
                    want.optional.contains(name) || is_same_or_possible(have, attribute, lossy)
                })
        }
        _ => have == want && have.is_primitive(),
    }
}

/// Returns `true` if the types are equal or a conversion exists.
fn is_same_or_possible(have: &Type, want: &Type, lossy: bool) -> bool {
    have == want || is_possible(have, want, lossy)
}

/// Returns `true` if all required attributes exist and can be converted.
fn is_object_possible(have: &ObjectType, want: &ObjectType, lossy: bool) -> bool {
    want.attributes.iter().all(|(name, attribute)| match have.attributes.get(name) {
        Some(given) => is_same_or_possible(given, attribute, lossy),
        None => want.optional.contains(name),
    })
}

/// Returns `true` if elements of a type each can become elements of one type.
fn is_structure_possible<'a>(
    have: impl Iterator<Item = &'a Type> + Clone,
    want: &Type,
    lossy: bool,
) -> bool {
    if have.clone().next().is_none() {
        return true;
    }
    if *want != Type::Dynamic {
        return have.clone().all(|element| is_same_or_possible(element, want, lossy));
    }
    let elements: Vec<Type> = have.cloned().collect();
    match unify::unify(&elements, lossy) {
        None => false,
        Some(Type::Dynamic) => elements.iter().all(|element| *element == Type::Dynamic),
        Some(_) => true,
    }
}

/// Carries out a conversion that is possible by type.
fn apply(value: &Value, want: &Type) -> Result<Value, String> {
    match (value, want) {
        (value, Type::Dynamic) => Ok(value.clone()),
        (Value::Unknown(_), want) => Ok(Value::Unknown(want.without_optional())),
        (Value::Null(_), want) => Ok(Value::Null(want.without_optional())),
        (Value::Number(number), Type::String) => Ok(Value::text(number.to_string())),
        (Value::Bool(value), Type::String) => Ok(Value::text(value.to_string())),
        (Value::String(text), Type::Number) => {
            Number::parse(text).map(Value::Number).ok_or_else(|| "a number is required".into())
        }
        (Value::String(text), Type::Bool) => text_to_bool(text),
        (Value::Object(mapping), Type::Object(want)) => object(&mapping.entries, want),
        (Value::Map(mapping), Type::Object(want)) => map_to_object(&mapping.entries, want),
        (Value::Map(mapping) | Value::Object(mapping), Type::Map(element)) => {
            let given = match value {
                Value::Map(mapping) => Some(mapping.element.clone()),
                _ => None,
            };
            entries(&mapping.entries, element, given)
        }
        (Value::Tuple(sequence), Type::Tuple(want)) => {
            let items = sequence.items.iter().zip(want.iter());
            let items = items.map(|pair| convert(pair.0, pair.1));
            Ok(Value::tuple(items.collect::<Result<_, _>>()?))
        }
        (
            Value::List(sequence) | Value::Set(sequence) | Value::Tuple(sequence),
            Type::List(element) | Type::Set(element),
        ) => {
            let given = match value {
                Value::Tuple(_) => None,
                _ => Some(sequence.element.clone()),
            };
            let is_set = matches!(want, Type::Set(_));
            elements(&sequence.items, element, given, is_set)
        }
        _ if value.type_of() == *want => Ok(value.clone()),
        _ => Err(mismatch(&value.type_of(), want)),
    }
}

/// Reads a boolean.
fn text_to_bool(text: &str) -> Result<Value, String> {
    match text {
        "true" | "1" => Ok(Value::Bool(true)),
        "false" | "0" => Ok(Value::Bool(false)),
        _ => {
            let lower = text.to_lowercase();
            Err(if lower == "true" || lower == "false" {
                format!("a bool is required; to convert from string, use lowercase \"{lower}\"")
            } else {
                "a bool is required".into()
            })
        }
    }
}

/// Converts the attributes of an object. Others are dropped.
fn object(given: &Entries, want: &ObjectType) -> Result<Value, String> {
    let mut converted = BTreeMap::new();
    for (name, attribute) in &want.attributes {
        let value = match given.get(name) {
            Some(value) => convert(value, attribute)?,
            None => Value::Null(attribute.without_optional()),
        };
        converted.insert(name.clone(), value);
    }
    Ok(Value::object(converted))
}

/// Takes the attributes of an object from a map.
fn map_to_object(given: &Entries, want: &ObjectType) -> Result<Value, String> {
    for name in want.attributes.keys() {
        if !given.contains_key(name) && !want.optional.contains(name) {
            return Err(format!("map has no element for required attribute {name:?}"));
        }
    }
    object(given, want)
}

/// Converts the values of a map or object to one type.
fn entries(given: &Entries, element: &Type, map: Option<Type>) -> Result<Value, String> {
    let element = match element {
        Type::Dynamic => match map {
            Some(element) => element,
            None => common(given.values())?,
        },
        element => element.clone(),
    };
    let mut converted = BTreeMap::new();
    for (name, value) in given {
        converted.insert(name.clone(), convert(value, &element)?);
    }
    let element = settled(&element, converted.values());
    if converted.values().any(|value| !conforms(value, &element)) {
        return Err("attribute types must all match for conversion to map".into());
    }
    Ok(Value::map(element, converted))
}

/// Converts elements to one type.
fn elements(
    given: &[Value],
    element: &Type,
    collection: Option<Type>,
    is_set: bool,
) -> Result<Value, String> {
    let element = match element {
        Type::Dynamic => match collection {
            Some(element) => element,
            None => common(given.iter())?,
        },
        element => element.clone(),
    };
    let converted = given.iter().map(|value| convert(value, &element));
    let mut converted = converted.collect::<Result<Vec<_>, _>>()?;
    let element = settled(&element, converted.iter());
    if converted.iter().any(|value| !conforms(value, &element)) {
        let kind = if is_set { "set" } else { "list" };
        let types: Vec<Type> = converted.iter().map(Value::type_of).collect();
        let Some(common) = unify::unify(&types, true) else {
            return Err(format!("element types must all match for conversion to {kind}"));
        };
        converted =
            converted.iter().map(|value| convert(value, &common)).collect::<Result<_, _>>()?;
    }
    Ok(if is_set { Value::set(element, converted) } else { Value::list(element, converted) })
}

/// Returns `true` if a value may stand among elements of a type.
fn conforms(value: &Value, element: &Type) -> bool {
    let have = value.type_of();
    have == *element || have == Type::Dynamic || element.has_dynamic()
}

/// Fills in what isn't known of an element's type from the elements.
fn settled<'a>(element: &Type, mut values: impl Iterator<Item = &'a Value>) -> Type {
    let element = element.without_optional();
    if !element.has_dynamic() {
        return element;
    }
    values.find(|value| !value.is_null()).map_or(element, Value::type_of)
}

/// Returns the one type that all values can have.
fn common<'a>(values: impl Iterator<Item = &'a Value>) -> Result<Type, String> {
    let types: Vec<Type> = values.map(Value::type_of).collect();
    if types.is_empty() {
        return Ok(Type::Dynamic);
    }
    unify::unify(&types, true).ok_or_else(|| "all elements must have the same type".into())
}

/// Converts a value to text.
///
/// # Errors
/// Fails for everything that isn't text, a number or a boolean.
pub(crate) fn to_text(value: &Value) -> Result<Rc<str>, String> {
    match convert(value, &Type::String)? {
        Value::String(text) => Ok(text),
        Value::Null(_) => Err("null value is not allowed".into()),
        _ => Err("value must be known".into()),
    }
}

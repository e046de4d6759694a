//! Values as JSON.

use std::rc::Rc;

use crate::number::Number;
use crate::types::Type;
use crate::value::{Entries, Value};

mod reader;

pub(crate) use reader::{Json, read};

/// Writes a value as JSON.
///
/// # Errors
/// Fails for numbers that have no digits.
pub(crate) fn encode(value: &Value) -> Result<String, String> {
    let mut text = String::new();
    write(value, &mut text)?;
    Ok(text)
}

/// Writes a value whose type may be any with that type beside it.
pub(crate) fn encode_as(value: &Value, want: &Type) -> Result<String, String> {
    if *want != Type::Dynamic {
        return encode(value);
    }
    let kind = value.type_of().to_json();
    Ok(format!("{{\"value\":{},\"type\":{kind}}}", encode(value)?))
}

/// Appends a value.
fn write(value: &Value, text: &mut String) -> Result<(), String> {
    match value {
        Value::Unknown(_) => return Err("value is not known".into()),
        Value::Null(_) => text.push_str("null"),
        Value::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) if number.is_infinite() => {
            return Err("cannot serialize infinity as JSON".into());
        }
        Value::Number(number) => text.push_str(&number.to_string()),
        Value::String(value) => write_text(value, text),
        Value::List(sequence) | Value::Set(sequence) | Value::Tuple(sequence) => {
            text.push('[');
            for (index, item) in sequence.items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write(item, text)?;
            }
            text.push(']');
        }
        Value::Map(mapping) | Value::Object(mapping) => {
            text.push('{');
            for (index, (name, value)) in mapping.entries.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_text(name, text);
                text.push(':');
                write(value, text)?;
            }
            text.push('}');
        }
    }
    Ok(())
}

/// Appends text in quotes. Characters that mean something in HTML are escaped.
fn write_text(value: &str, text: &mut String) {
    text.push('"');
    for character in value.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                crate::quote::escape(text, "\\u", 4, character);
            }
            character => text.push(character),
        }
    }
    text.push('"');
}

/// Reads JSON, its types as they are written.
///
/// # Errors
/// Says what is no JSON.
pub(crate) fn decode(text: &str) -> Result<Value, String> {
    Ok(natural(&read(text)?))
}

/// Makes a value of JSON.
fn natural(json: &Json) -> Value {
    match json {
        Json::Null => Value::NULL,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(text) => Value::Number(Number::parse(text).unwrap_or_else(Number::zero)),
        Json::Text(text) => Value::text(text),
        Json::Array(items) => Value::tuple(items.iter().map(natural).collect()),
        Json::Object(properties) => {
            let entries =
                properties.iter().map(|(name, value)| (Rc::from(name.as_str()), natural(value)));
            Value::object(entries.collect::<Entries>())
        }
    }
}

/// Reads JSON as a value of a type.
///
/// # Errors
/// Says what isn't JSON or doesn't fit.
pub(crate) fn decode_as(text: &str, want: &Type) -> Result<Value, String> {
    let json = read(text).map_err(|error| match want {
        Type::List(_) => format!("failed to read list value: {error}"),
        Type::Set(_) => format!("failed to read set value: {error}"),
        Type::Map(_) => format!("failed to read map value: {error}"),
        Type::Tuple(_) => format!("failed to read tuple value: {error}"),
        Type::Object(_) => format!("failed to read object value: {error}"),
        _ => error,
    })?;
    fit(&json, want)
}

/// Makes a value of a type of JSON.
fn fit(json: &Json, want: &Type) -> Result<Value, String> {
    match (json, want) {
        (Json::Null, want) => Ok(Value::Null(want.without_optional())),
        (json, Type::Dynamic) => match json {
            Json::Object(properties) => dynamic(properties),
            _ => Err("missing expected {".into()),
        },
        (Json::Bool(value), Type::Bool) => Ok(Value::Bool(*value)),
        (Json::Text(text), Type::Bool) => crate::convert::convert(&Value::text(text), &Type::Bool),
        (_, Type::Bool) => Err("bool is required".into()),
        (Json::Number(text) | Json::Text(text), Type::Number) => {
            Number::parse(text).map(Value::Number).ok_or_else(|| "a number is required".into())
        }
        (_, Type::Number) => Err("number is required".into()),
        (Json::Text(text) | Json::Number(text), Type::String) => Ok(Value::text(text)),
        (Json::Bool(value), Type::String) => Ok(Value::text(value.to_string())),
        (_, Type::String) => Err("string is required".into()),
        (Json::Array(items), Type::List(element)) => {
            Ok(Value::list((**element).clone(), fit_all(items, element)?))
        }
        (Json::Array(items), Type::Set(element)) => {
            Ok(Value::set((**element).clone(), fit_all(items, element)?))
        }
        (Json::Array(items), Type::Tuple(elements)) => {
            if items.len() > elements.len() {
                return Err(format!("too many tuple elements (need {})", elements.len()));
            }
            if items.len() < elements.len() {
                return Err(format!("not enough tuple elements (need {})", elements.len()));
            }
            let fitted = items.iter().zip(elements.iter()).map(|pair| fit(pair.0, pair.1));
            Ok(Value::tuple(fitted.collect::<Result<_, _>>()?))
        }
        (_, Type::List(_) | Type::Set(_) | Type::Tuple(_)) => Err("missing expected [".into()),
        (Json::Object(properties), Type::Map(element)) => {
            let mut entries = Entries::new();
            for (name, value) in properties {
                entries.insert(Rc::from(name.as_str()), fit(value, element)?);
            }
            Ok(Value::map((**element).clone(), entries))
        }
        (Json::Object(properties), Type::Object(object)) => {
            let mut entries = Entries::new();
            for (name, value) in properties {
                let Some(attribute) = object.attributes.get(name.as_str()) else {
                    return Err(format!("unsupported attribute {}", crate::quote::quote(name)));
                };
                entries.insert(Rc::from(name.as_str()), fit(value, attribute)?);
            }
            for (name, attribute) in &object.attributes {
                if !entries.contains_key(name) {
                    entries.insert(name.clone(), Value::Null(attribute.without_optional()));
                }
            }
            Ok(Value::object(entries))
        }
        (_, Type::Map(_) | Type::Object(_)) => Err("missing expected {".into()),
        (_, Type::Bytes) => Err("unsupported type bytes".into()),
    }
}

/// Makes elements of a type.
fn fit_all(items: &[Json], element: &Type) -> Result<Vec<Value>, String> {
    items.iter().map(|item| fit(item, element)).collect()
}

/// Reads a value that is written with its type beside it.
fn dynamic(properties: &[(String, Json)]) -> Result<Value, String> {
    let property =
        |name: &str| properties.iter().find(|property| property.0 == name).map(|found| &found.1);
    let known = properties.iter().find(|property| property.0 != "type" && property.0 != "value");
    if let Some(other) = known {
        return Err(format!("invalid key {:?} in dynamically-typed value", other.0));
    }
    let kind = property("type").ok_or("missing type in dynamically-typed value")?;
    let value = property("value").ok_or("missing value in dynamically-typed value")?;
    fit(value, &type_of(kind).ok_or("failed to decode type for dynamic value")?)
}

/// Reads a type.
fn type_of(json: &Json) -> Option<Type> {
    match json {
        Json::Text(text) => match text.as_str() {
            "bool" => Some(Type::Bool),
            "number" => Some(Type::Number),
            "string" => Some(Type::String),
            "dynamic" => Some(Type::Dynamic),
            _ => None,
        },
        Json::Array(items) => match items.as_slice() {
            [Json::Text(kind), inner] => match (kind.as_str(), inner) {
                ("list", inner) => Some(Type::list(type_of(inner)?)),
                ("set", inner) => Some(Type::set(type_of(inner)?)),
                ("map", inner) => Some(Type::map(type_of(inner)?)),
                ("tuple", Json::Array(elements)) => {
                    Some(Type::Tuple(elements.iter().map(type_of).collect::<Option<_>>()?))
                }
                ("object", Json::Object(properties)) => {
                    let attributes = properties
                        .iter()
                        .map(|(name, kind)| Some((Rc::from(name.as_str()), type_of(kind)?)));
                    Some(Type::object(attributes.collect::<Option<_>>()?))
                }
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

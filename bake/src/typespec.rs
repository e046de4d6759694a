//! Types as they are written in a definition: `list(string)`.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::diagnostic::Diagnostic;
use crate::expression::{Call, Expression, Kind};
use crate::quote::quote;
use crate::source::Range;
use crate::types::{ObjectType, Type};

/// Reads a type.
pub(crate) fn read(expression: &Expression) -> Result<Type, Diagnostic> {
    let refuse = |detail: String| Err(invalid(detail, expression.range));
    match expression.keyword() {
        Some("bool") => return Ok(Type::Bool),
        Some("string") => return Ok(Type::String),
        Some("number") => return Ok(Type::Number),
        Some("any") => return Ok(Type::Dynamic),
        Some(word @ ("list" | "set" | "map" | "object" | "tuple")) => {
            return refuse(constructor_needs(word));
        }
        Some(word) => {
            return refuse(format!(
                "The keyword {} is not a valid type specification.",
                quote(word)
            ));
        }
        None => {}
    }
    let Some(call) = expression.call() else {
        return refuse(
            "A type specification is either a primitive type keyword (bool, number, string) or a \
             complex type constructor call, like list(string)."
                .into(),
        );
    };
    constructor(call, expression.range)
}

/// Says that something is no type.
fn invalid(detail: impl Into<String>, range: Range) -> Diagnostic {
    Diagnostic::new("Invalid type specification", detail, range)
}

/// Says what a constructor needs.
fn constructor_needs(word: &str) -> String {
    match word {
        "object" => "The object type constructor requires one argument specifying the attribute \
                     types and values as a map."
            .into(),
        "tuple" => "The tuple type constructor requires one argument specifying the element types \
                    as a list."
            .into(),
        _ => format!(
            "The {word} type constructor requires one argument specifying the element type."
        ),
    }
}

/// Reads a constructor and its argument.
fn constructor(call: &Call, range: Range) -> Result<Type, Diagnostic> {
    let arguments = call.open.to(call.close);
    let name = &*call.name;
    match name {
        "bool" | "string" | "number" => {
            return Err(invalid(
                format!("Primitive type keyword {} does not expect arguments.", quote(name)),
                arguments,
            ));
        }
        "any" => {
            return Err(invalid(
                "Type constraint keyword \"any\" does not expect arguments.",
                arguments,
            ));
        }
        "optional" => {
            return Err(invalid(
                "Keyword \"optional\" is valid only as a modifier for object type attributes.",
                call.name_range,
            ));
        }
        "list" | "set" | "map" | "object" | "tuple" => {}
        _ => {
            return Err(invalid(
                format!("Keyword {} is not a valid type constructor.", quote(name)),
                range,
            ));
        }
    }
    let [argument] = call.arguments.as_slice() else {
        let place = match call.arguments.as_slice() {
            [_, second, .., last] => second.range.to(last.range),
            [_, second] => second.range,
            _ => arguments,
        };
        return Err(invalid(constructor_needs(name), place));
    };
    match name {
        "list" => Ok(Type::list(read(argument)?)),
        "set" => Ok(Type::set(read(argument)?)),
        "map" => Ok(Type::map(read(argument)?)),
        "object" => object(argument),
        _ => {
            let Some(items) = argument.items() else {
                return Err(invalid(
                    "Tuple type constructor requires a list of element types.",
                    argument.range,
                ));
            };
            Ok(Type::Tuple(items.iter().map(read).collect::<Result<_, _>>()?))
        }
    }
}

/// Reads the attributes of an object.
fn object(argument: &Expression) -> Result<Type, Diagnostic> {
    let pairs: Vec<(&Expression, &Expression)> = match &argument.kind {
        Kind::Object { items, .. } => items.iter().map(|item| (&item.key, &item.value)).collect(),
        Kind::JsonObject { items, .. } => {
            items.iter().map(|item| (&item.key, &item.value)).collect()
        }
        _ => {
            return Err(invalid(
                "Object type constructor requires a map whose keys are attribute names and whose \
                 values are the corresponding attribute types.",
                argument.range,
            ));
        }
    };
    let mut attributes: BTreeMap<Rc<str>, Type> = BTreeMap::new();
    let mut optional = BTreeSet::new();
    for (key, value) in pairs {
        let Some(name) = key.keyword() else {
            return Err(invalid("Object constructor map keys must be attribute names.", key.range));
        };
        let name: Rc<str> = name.into();
        if attributes.contains_key(&name) {
            return Err(invalid("Object constructor map keys must be unique.", key.range));
        }
        let mut kind = value;
        if let Some(call) = value.call().filter(|call| &*call.name == "optional") {
            let place = call.open.to(call.close);
            match call.arguments.as_slice() {
                [only] => kind = only,
                [] => {
                    return Err(invalid(
                        "Optional attribute modifier requires the attribute type as its argument.",
                        place,
                    ));
                }
                _ => {
                    return Err(invalid(
                        "Optional attribute modifier expects only one argument: the attribute \
                         type.",
                        place,
                    ));
                }
            }
            optional.insert(name.clone());
        }
        attributes.insert(name, read(kind)?);
    }
    Ok(Type::Object(Rc::new(ObjectType { attributes, optional })))
}

//! Messages about values of the wrong type.

use super::is_possible;
use crate::quote::quote;
use crate::types::{ObjectType, Type};

/// Says what is required where a type has no conversion to another one.
pub(crate) fn message(have: &Type, want: &Type) -> String {
    match (have, want) {
        (Type::Object(have), Type::Object(want)) => objects(have, want),
        (Type::Tuple(_), Type::List(element)) if **element == Type::Dynamic => {
            "all list elements must have the same type".into()
        }
        (Type::Tuple(_), Type::Set(element)) if **element == Type::Dynamic => {
            "all set elements must have the same type".into()
        }
        (Type::Object(_), Type::Map(element)) if **element == Type::Dynamic => {
            "all map elements must have the same type".into()
        }
        (Type::Tuple(elements), Type::List(want) | Type::Set(want)) => {
            let wrong = elements.iter().enumerate().find(|pair| is_wrong(pair.1, want));
            match wrong {
                Some((index, element)) => format!("element {index}: {}", message(element, want)),
                None => format!("all elements must be {}", want.requirement()),
            }
        }
        (Type::Object(object), Type::Map(want)) => {
            let wrong = object.attributes.iter().find(|pair| is_wrong(pair.1, want));
            match wrong {
                Some((name, attribute)) => {
                    format!("element {}: {}", quote(name), message(attribute, want))
                }
                None => format!("all elements must be {}", want.requirement()),
            }
        }
        (Type::Tuple(_) | Type::Object(_), want) if want.is_collection() => {
            format!("{} required", want.requirement())
        }
        (have, want) if have.is_collection() && want.is_collection() => collections(have, want),
        (have, want) if !is_confusing(have, want) => {
            format!("{} required, but have {}", want.name(), have.name())
        }
        (_, want) => format!("{} required", want.requirement()),
    }
}

/// Returns `true` if an element can't be converted.
fn is_wrong(have: &Type, want: &Type) -> bool {
    have != want && !is_possible(have, want, true)
}

/// Says which attributes of an object are missing or wrong.
fn objects(have: &ObjectType, want: &ObjectType) -> String {
    let missing: Vec<String> = want
        .attributes
        .keys()
        .filter(|name| !have.attributes.contains_key(*name) && !want.optional.contains(*name))
        .map(|name| quote(name))
        .collect();
    match missing.as_slice() {
        [] => {}
        [one] => return format!("attribute {one} is required"),
        [one, two] => return format!("attributes {one} and {two} are required"),
        [others @ .., last] => {
            return format!("attributes {}, and {last} are required", others.join(", "));
        }
    }
    for lossy in [true, false] {
        let wrong = want.attributes.iter().find_map(|(name, attribute)| {
            let given = have.attributes.get(name)?;
            (given != attribute && !is_possible(given, attribute, lossy))
                .then(|| format!("attribute {}: {}", quote(name), message(given, attribute)))
        });
        if let Some(wrong) = wrong {
            return wrong;
        }
    }
    "incorrect object attributes".into()
}

/// Says how a collection differs from another kind of collection.
fn collections(have: &Type, want: &Type) -> String {
    let noun = match (have, want) {
        (Type::List(_) | Type::Set(_), Type::List(_)) => "list",
        (Type::List(_) | Type::Set(_), Type::Set(_)) => "set",
        (Type::Map(_), Type::Map(_)) => "map",
        _ => return format!("{} required", want.requirement()),
    };
    match (have.element(), want.element()) {
        (Some(have), Some(want)) => {
            format!("incorrect {noun} element type: {}", message(have, want))
        }
        _ => format!("{} required", want.requirement()),
    }
}

/// Returns `true` if naming the type that was given would confuse the reader.
fn is_confusing(have: &Type, want: &Type) -> bool {
    let clear = have.is_primitive() != want.is_primitive()
        || *want == Type::String
        || matches!(
            (have, want),
            (Type::Number, Type::Bool)
                | (Type::Bool, Type::Number)
                | (Type::Tuple(_), Type::Object(_))
        );
    !clear
}

//! The types of values.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The type of a value, or what a value must convert to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Type {
    /// Not known yet, or any type.
    Dynamic,
    /// `true` or `false`.
    Bool,
    /// A number.
    Number,
    /// Text.
    String,
    /// A buffer of bytes, which no expression can make.
    Bytes,
    /// A list of elements of one type.
    List(Rc<Type>),
    /// A set of elements of one type.
    Set(Rc<Type>),
    /// A map from text to elements of one type.
    Map(Rc<Type>),
    /// A sequence of elements of a type each.
    Tuple(Rc<[Type]>),
    /// Attributes of a type each.
    Object(Rc<ObjectType>),
}

/// The attributes of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ObjectType {
    /// The type of each attribute.
    pub(crate) attributes: BTreeMap<Rc<str>, Type>,
    /// The attributes that may be absent from a value that is converted.
    pub(crate) optional: BTreeSet<Rc<str>>,
}

impl Type {
    /// Returns the type of a list.
    pub(crate) fn list(element: Self) -> Self {
        Self::List(Rc::new(element))
    }

    /// Returns the type of a set.
    pub(crate) fn set(element: Self) -> Self {
        Self::Set(Rc::new(element))
    }

    /// Returns the type of a map.
    pub(crate) fn map(element: Self) -> Self {
        Self::Map(Rc::new(element))
    }

    /// Returns the type of an object whose attributes are all required.
    pub(crate) fn object(attributes: BTreeMap<Rc<str>, Self>) -> Self {
        Self::Object(Rc::new(ObjectType { attributes, optional: BTreeSet::new() }))
    }

    /// Returns `true` for text, numbers and booleans.
    pub(crate) fn is_primitive(&self) -> bool {
        matches!(self, Self::Bool | Self::Number | Self::String)
    }

    /// Returns `true` for lists, sets and maps.
    pub(crate) fn is_collection(&self) -> bool {
        matches!(self, Self::List(_) | Self::Set(_) | Self::Map(_))
    }

    /// Returns the type of the elements of a list, set or map.
    pub(crate) fn element(&self) -> Option<&Self> {
        match self {
            Self::List(element) | Self::Set(element) | Self::Map(element) => Some(element),
            _ => None,
        }
    }

    /// Returns `true` if a part of the type isn't known.
    pub(crate) fn has_dynamic(&self) -> bool {
        match self {
            Self::Dynamic => true,
            Self::Bool | Self::Number | Self::String | Self::Bytes => false,
            Self::List(element) | Self::Set(element) | Self::Map(element) => element.has_dynamic(),
            Self::Tuple(elements) => elements.iter().any(Self::has_dynamic),
            Self::Object(object) => object.attributes.values().any(Self::has_dynamic),
        }
    }

    /// Returns the type without marks for optional attributes.
    pub(crate) fn without_optional(&self) -> Self {
        match self {
            Self::List(element) => Self::list(element.without_optional()),
            Self::Set(element) => Self::set(element.without_optional()),
            Self::Map(element) => Self::map(element.without_optional()),
            Self::Tuple(elements) => {
                Self::Tuple(elements.iter().map(Self::without_optional).collect())
            }
            Self::Object(object) => Self::object(
                object
                    .attributes
                    .iter()
                    .map(|(name, attribute)| (name.clone(), attribute.without_optional()))
                    .collect(),
            ),
            other => other.clone(),
        }
    }

    /// Returns the name of the type in messages.
    pub(crate) fn name(&self) -> String {
        self.described(false)
    }

    /// Returns the name of the type as a requirement.
    pub(crate) fn requirement(&self) -> String {
        self.described(true)
    }

    /// Names the type.
    fn described(&self, as_requirement: bool) -> String {
        let of = |kind: &str, element: &Self| {
            if as_requirement && *element == Self::Dynamic {
                format!("{kind} of any single type")
            } else {
                format!("{kind} of {}", element.described(as_requirement))
            }
        };
        match self {
            Self::Dynamic if as_requirement => "any type".into(),
            Self::Dynamic => "dynamic".into(),
            Self::Bool => "bool".into(),
            Self::Number => "number".into(),
            Self::String => "string".into(),
            Self::Bytes => "bytes".into(),
            Self::List(element) => of("list", element),
            Self::Set(element) => of("set", element),
            Self::Map(element) => of("map", element),
            Self::Tuple(_) => "tuple".into(),
            Self::Object(_) => "object".into(),
        }
    }

    /// Returns the type as JSON, the way it is written beside a value of any type.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::{Value, json};
        match self {
            Self::Dynamic => json!("dynamic"),
            Self::Bool => json!("bool"),
            Self::Number => json!("number"),
            Self::String | Self::Bytes => json!("string"),
            Self::List(element) => json!(["list", element.to_json()]),
            Self::Set(element) => json!(["set", element.to_json()]),
            Self::Map(element) => json!(["map", element.to_json()]),
            Self::Tuple(elements) => {
                let elements: Vec<Value> = elements.iter().map(Self::to_json).collect();
                json!(["tuple", elements])
            }
            Self::Object(object) => {
                let attributes: serde_json::Map<String, Value> = object
                    .attributes
                    .iter()
                    .map(|(name, attribute)| (name.to_string(), attribute.to_json()))
                    .collect();
                json!(["object", attributes])
            }
        }
    }
}

//! The values of expressions.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::rc::Rc;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use crate::number::Number;
use crate::types::Type;

/// The attributes of an object, or the entries of a map.
pub(crate) type Entries = BTreeMap<Rc<str>, Value>;

/// A value. Parts are shared, so that a copy is cheap.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// A value that isn't known: a place holder after an error.
    Unknown(Type),
    /// No value, of a type.
    Null(Type),
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// Text in normal form C.
    String(Rc<str>),
    /// A list: elements of one type.
    List(Rc<Sequence>),
    /// A set: elements of one type, sorted and without duplicates.
    Set(Rc<Sequence>),
    /// A map: entries of one type.
    Map(Rc<Mapping>),
    /// A tuple. Its `element` type is of no account.
    Tuple(Rc<Sequence>),
    /// An object. Its `element` type is of no account.
    Object(Rc<Mapping>),
}

/// The elements of a list, set or tuple.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sequence {
    /// The type of the elements of a list or set.
    pub(crate) element: Type,
    /// The elements.
    pub(crate) items: Vec<Value>,
    /// The number of values within, shared ones counted at each place.
    weight: u64,
}

/// The entries of a map or object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mapping {
    /// The type of the values of a map.
    pub(crate) element: Type,
    /// The entries.
    pub(crate) entries: Entries,
    /// The number of values within, shared ones counted at each place.
    weight: u64,
}

impl Value {
    /// The value of an expression that failed.
    pub(crate) const UNKNOWN: Self = Self::Unknown(Type::Dynamic);
    /// `null` as it is written in a file.
    pub(crate) const NULL: Self = Self::Null(Type::Dynamic);

    /// Makes text, in normal form C.
    pub(crate) fn text(text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        if text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes {
            return Self::String(text.into());
        }
        Self::String(text.nfc().collect::<String>().into())
    }

    /// Makes a list.
    pub(crate) fn list(element: Type, items: Vec<Self>) -> Self {
        Self::List(Rc::new(Sequence::new(element, items)))
    }

    /// Makes a list of text.
    pub(crate) fn texts(items: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        Self::list(Type::String, items.into_iter().map(Self::text).collect())
    }

    /// Makes a set.
    pub(crate) fn set(element: Type, mut items: Vec<Self>) -> Self {
        items.sort_by(Self::set_order);
        items.dedup_by(|left, right| left.equals(right) == Some(true));
        Self::Set(Rc::new(Sequence::new(element, items)))
    }

    /// Makes a map.
    pub(crate) fn map(element: Type, entries: Entries) -> Self {
        Self::Map(Rc::new(Mapping::new(element, entries)))
    }

    /// Makes a tuple.
    pub(crate) fn tuple(items: Vec<Self>) -> Self {
        Self::Tuple(Rc::new(Sequence::new(Type::Dynamic, items)))
    }

    /// Makes an object.
    pub(crate) fn object(entries: Entries) -> Self {
        Self::Object(Rc::new(Mapping::new(Type::Dynamic, entries)))
    }

    /// Returns the number of values within this one, itself included.
    pub(crate) fn weight(&self) -> u64 {
        match self {
            Self::List(sequence) | Self::Set(sequence) | Self::Tuple(sequence) => sequence.weight,
            Self::Map(mapping) | Self::Object(mapping) => mapping.weight,
            Self::String(text) => 1 + text.len() as u64 / 64,
            _ => 1,
        }
    }

    /// Returns the type.
    pub(crate) fn type_of(&self) -> Type {
        match self {
            Self::Unknown(kind) | Self::Null(kind) => kind.clone(),
            Self::Bool(_) => Type::Bool,
            Self::Number(_) => Type::Number,
            Self::String(_) => Type::String,
            Self::List(sequence) => Type::list(sequence.element.clone()),
            Self::Set(sequence) => Type::set(sequence.element.clone()),
            Self::Map(mapping) => Type::map(mapping.element.clone()),
            Self::Tuple(sequence) => {
                Type::Tuple(sequence.items.iter().map(Self::type_of).collect())
            }
            Self::Object(mapping) => Type::object(
                mapping
                    .entries
                    .iter()
                    .map(|(name, value)| (name.clone(), value.type_of()))
                    .collect(),
            ),
        }
    }

    /// Returns `true` for a null of any type.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Self::Null(_))
    }

    /// Returns `true` unless the value as a whole isn't known.
    pub(crate) fn is_known(&self) -> bool {
        !matches!(self, Self::Unknown(_))
    }

    /// Returns `true` if all parts of the value are known.
    pub(crate) fn is_wholly_known(&self) -> bool {
        match self {
            Self::Unknown(_) => false,
            Self::List(sequence) | Self::Set(sequence) | Self::Tuple(sequence) => {
                sequence.items.iter().all(Self::is_wholly_known)
            }
            Self::Map(mapping) | Self::Object(mapping) => {
                mapping.entries.values().all(Self::is_wholly_known)
            }
            _ => true,
        }
    }

    /// Returns the text of a string.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the elements of a list, set or tuple.
    pub(crate) fn items(&self) -> Option<&[Self]> {
        match self {
            Self::List(sequence) | Self::Set(sequence) | Self::Tuple(sequence) => {
                Some(&sequence.items)
            }
            _ => None,
        }
    }

    /// Returns the entries of a map or object.
    pub(crate) fn entries(&self) -> Option<&Entries> {
        match self {
            Self::Map(mapping) | Self::Object(mapping) => Some(&mapping.entries),
            _ => None,
        }
    }

    /// Compares two values. `None` means that the answer isn't known.
    pub(crate) fn equals(&self, other: &Self) -> Option<bool> {
        match (self, other) {
            (Self::Null(_), Self::Null(_)) => Some(true),
            (Self::Unknown(_), _) | (_, Self::Unknown(_)) => None,
            (Self::Bool(left), Self::Bool(right)) => Some(left == right),
            (Self::Number(left), Self::Number(right)) => Some(left == right),
            (Self::String(left), Self::String(right)) => Some(left == right),
            (Self::List(left), Self::List(right)) | (Self::Set(left), Self::Set(right)) => {
                if left.element != right.element {
                    return Some(false);
                }
                equal_items(&left.items, &right.items)
            }
            (Self::Tuple(left), Self::Tuple(right)) => equal_items(&left.items, &right.items),
            (Self::Map(left), Self::Map(right)) => {
                if left.element != right.element {
                    return Some(false);
                }
                equal_entries(&left.entries, &right.entries)
            }
            (Self::Object(left), Self::Object(right)) => {
                equal_entries(&left.entries, &right.entries)
            }
            _ => Some(false),
        }
    }

    /// Orders the elements of a set: text and numbers by their value, null last.
    fn set_order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::String(left), Self::String(right)) => left.cmp(right),
            (Self::Number(left), Self::Number(right)) => left.cmp(right),
            (Self::Bool(left), Self::Bool(right)) => left.cmp(right),
            (Self::Null(_), Self::Null(_)) => Ordering::Equal,
            (Self::Null(_), _) => Ordering::Greater,
            (_, Self::Null(_)) => Ordering::Less,
            (Self::Map(left) | Self::Object(left), Self::Map(right) | Self::Object(right)) => left
                .entries
                .iter()
                .map(|(name, value)| (name, Some(value)))
                .fold(Ordering::Equal, |order, (name, value)| {
                    order.then_with(|| match (value, right.entries.get(name)) {
                        (Some(left), Some(right)) => left.set_order(right),
                        _ => Ordering::Less,
                    })
                }),
            _ => match (self.items(), other.items()) {
                (Some(left), Some(right)) => {
                    let order = left.iter().zip(right).fold(Ordering::Equal, |order, pair| {
                        order.then_with(|| pair.0.set_order(pair.1))
                    });
                    order.then(left.len().cmp(&right.len()))
                }
                _ => Ordering::Equal,
            },
        }
    }
}

impl Sequence {
    /// Makes a sequence and weighs it.
    fn new(element: Type, items: Vec<Value>) -> Self {
        let weight = items.iter().map(Value::weight).fold(1, u64::saturating_add);
        Self { element, items, weight }
    }
}

impl Mapping {
    /// Makes a mapping and weighs it.
    fn new(element: Type, entries: Entries) -> Self {
        let weight = entries
            .iter()
            .map(|(name, value)| value.weight() + name.len() as u64 / 64)
            .fold(1, u64::saturating_add);
        Self { element, entries, weight }
    }
}

/// Compares elements in order.
fn equal_items(left: &[Value], right: &[Value]) -> Option<bool> {
    if left.len() != right.len() {
        return Some(false);
    }
    let mut is_known = true;
    for (left, right) in left.iter().zip(right) {
        match left.equals(right) {
            Some(false) => return Some(false),
            Some(true) => {}
            None => is_known = false,
        }
    }
    is_known.then_some(true)
}

/// Compares entries by their names.
fn equal_entries(left: &Entries, right: &Entries) -> Option<bool> {
    if left.len() != right.len() || !left.keys().eq(right.keys()) {
        return Some(false);
    }
    let mut is_known = true;
    for (left, right) in left.values().zip(right.values()) {
        match left.equals(right) {
            Some(false) => return Some(false),
            Some(true) => {}
            None => is_known = false,
        }
    }
    is_known.then_some(true)
}

//! The JSON syntax of definitions: the same bodies and expressions, written as JSON.
//!
//! Every text is a template. What is a block and what an attribute is decided by the reader of a
//! body, not by the syntax.

mod body;
mod parser;
mod scanner;

use std::rc::Rc;

use crate::expression::{Expression, JsonItem, JsonText, Kind};
use crate::number::Number;
use crate::source::Range;
use crate::value::Value;

pub(crate) use body::JsonBody;
pub(crate) use parser::parse;

/// A value in JSON, with its place.
#[derive(Debug)]
pub(crate) enum Node {
    Null(Range),
    Bool(bool, Range),
    Number(Number, Range),
    Text(String, Range),
    Array(Array),
    Object(Object),
}

/// An array.
#[derive(Debug)]
pub(crate) struct Array {
    items: Vec<Rc<Node>>,
    range: Range,
    open: Range,
}

/// An object.
#[derive(Debug)]
pub(crate) struct Object {
    properties: Vec<Property>,
    range: Range,
    open: Range,
    close: Range,
}

/// A property of an object.
#[derive(Clone, Debug)]
pub(crate) struct Property {
    name: Rc<str>,
    name_range: Range,
    value: Rc<Node>,
}

impl Node {
    /// Returns the place.
    fn range(&self) -> Range {
        match self {
            Self::Null(range)
            | Self::Bool(_, range)
            | Self::Number(_, range)
            | Self::Text(_, range) => *range,
            Self::Array(array) => array.range,
            Self::Object(object) => object.range,
        }
    }

    /// Returns the place at which the value begins.
    fn start(&self) -> Range {
        match self {
            Self::Array(array) => array.open,
            Self::Object(object) => object.open,
            other => other.range(),
        }
    }

    /// Makes an expression of the value.
    pub(crate) fn expression(&self) -> Expression {
        let kind = match self {
            Self::Null(_) => Kind::Literal(Value::NULL),
            Self::Bool(value, _) => Kind::Literal(Value::Bool(*value)),
            Self::Number(number, _) => Kind::Literal(Value::Number(number.clone())),
            Self::Text(text, range) => Kind::JsonText(Rc::new(JsonText::new(text.clone(), *range))),
            Self::Array(array) => Kind::Tuple {
                items: array.items.iter().map(|item| item.expression()).collect(),
                open: array.open,
            },
            Self::Object(object) => Kind::JsonObject {
                items: object.properties.iter().map(Property::item).collect(),
                open: object.open,
            },
        };
        Expression { kind, range: self.range() }
    }
}

impl Property {
    /// Makes an entry of an object.
    fn item(&self) -> JsonItem {
        let key = JsonText::new(self.name.to_string(), self.name_range);
        JsonItem {
            key: Expression { kind: Kind::JsonText(Rc::new(key)), range: self.name_range },
            value: self.value.expression(),
        }
    }
}

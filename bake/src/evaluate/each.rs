//! Loops and splats.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::rc::Rc;

use super::{Binding, Evaluator, Scope};
use crate::convert::{convert, to_text};
use crate::diagnostic::Diagnostic;
use crate::expression::{Expression, For};
use crate::number::Number;
use crate::types::Type;
use crate::unify::unify;
use crate::value::{Entries, Value};

/// An element of a collection and its key.
pub(crate) struct Element {
    /// The index or name.
    pub(crate) key: Value,
    /// The element.
    pub(crate) value: Value,
}

/// Returns the elements of a collection with their keys, or `None` if the value is no collection.
pub(crate) fn elements(value: &Value) -> Option<Vec<Element>> {
    match value {
        Value::List(sequence) | Value::Tuple(sequence) => {
            let items = sequence.items.iter().enumerate();
            Some(
                items
                    .map(|(index, value)| Element {
                        key: Value::Number(Number::from(index)),
                        value: value.clone(),
                    })
                    .collect(),
            )
        }
        Value::Set(sequence) => {
            let items = sequence.items.iter();
            Some(items.map(|value| Element { key: value.clone(), value: value.clone() }).collect())
        }
        Value::Map(mapping) | Value::Object(mapping) => {
            let entries = mapping.entries.iter();
            Some(
                entries
                    .map(|(name, value)| Element {
                        key: Value::String(name.clone()),
                        value: value.clone(),
                    })
                    .collect(),
            )
        }
        _ => None,
    }
}

impl Evaluator<'_> {
    /// Evaluates a loop.
    pub(super) fn each(
        &self,
        each: &For,
        scope: &Scope<'_>,
        errors: &mut Vec<Diagnostic>,
    ) -> Value {
        let collection = self.evaluate(&each.collection, scope, errors);
        if collection.is_null() {
            errors.push(Diagnostic::new(
                "Iteration over null value",
                "A null value cannot be used as the collection in a 'for' expression.",
                each.collection.range,
            ));
            return Value::UNKNOWN;
        }
        if matches!(collection, Value::Unknown(Type::Dynamic)) {
            return Value::UNKNOWN;
        }
        let Some(elements) = elements(&collection) else {
            if collection.is_known() || collection.type_of().is_primitive() {
                errors.push(Diagnostic::new(
                    "Iteration over non-iterable value",
                    format!(
                        "A value of type {} cannot be used as the collection in a 'for' expression.",
                        collection.type_of().name()
                    ),
                    each.collection.range,
                ));
            }
            return Value::UNKNOWN;
        };
        if !self.check_condition(each, scope, errors) {
            return Value::UNKNOWN;
        }
        match &each.key {
            Some(key) => self.object_of(each, key, elements, scope, errors),
            None => self.tuple_of(each, elements, scope, errors),
        }
    }

    /// Evaluates the condition with unknown names, to find errors that every element would repeat.
    fn check_condition(&self, each: &For, scope: &Scope<'_>, errors: &mut Vec<Diagnostic>) -> bool {
        let Some(condition) = &each.condition else {
            return true;
        };
        let inner = bind(each, Value::UNKNOWN, Value::UNKNOWN, scope);
        let before = errors.len();
        let value = self.evaluate(condition, &inner, errors);
        if value.is_null() {
            errors.push(Diagnostic::new(
                "Condition is null",
                "The value of the 'if' clause must not be null.",
                condition.range,
            ));
        } else if let Err(error) = convert(&value, &Type::Bool) {
            errors.push(invalid_condition(&error, condition));
        }
        errors.len() == before
    }

    /// Returns whether an element is taken, or `None` after an error.
    fn is_taken(
        &self,
        condition: &Expression,
        scope: &Scope<'_>,
        errors: &mut Vec<Diagnostic>,
    ) -> Option<bool> {
        let value = self.evaluate(condition, scope, errors);
        if value.is_null() {
            errors.push(Diagnostic::new(
                "Invalid 'for' condition",
                "The value of the 'if' clause must not be null.",
                condition.range,
            ));
            return None;
        }
        match convert(&value, &Type::Bool) {
            Ok(Value::Bool(taken)) => Some(taken),
            Ok(_) => None,
            Err(error) => {
                errors.push(invalid_condition(&error, condition));
                None
            }
        }
    }

    /// Makes a tuple of a collection.
    fn tuple_of(
        &self,
        each: &For,
        elements: Vec<Element>,
        scope: &Scope<'_>,
        errors: &mut Vec<Diagnostic>,
    ) -> Value {
        let mut items = Vec::new();
        let mut is_known = true;
        for element in elements {
            let inner = bind(each, element.key, element.value, scope);
            if let Some(condition) = &each.condition {
                match self.is_taken(condition, &inner, errors) {
                    Some(true) => {}
                    Some(false) => continue,
                    None => {
                        is_known = false;
                        continue;
                    }
                }
            }
            items.push(self.evaluate(&each.value, &inner, errors));
            if self.budget.is_spent() {
                return Value::UNKNOWN;
            }
        }
        if is_known { Value::tuple(items) } else { Value::UNKNOWN }
    }

    /// Makes an object of a collection.
    fn object_of(
        &self,
        each: &For,
        key: &Expression,
        elements: Vec<Element>,
        scope: &Scope<'_>,
        errors: &mut Vec<Diagnostic>,
    ) -> Value {
        let mut entries = Entries::new();
        let mut groups: BTreeMap<Rc<str>, Vec<Value>> = BTreeMap::new();
        let mut is_known = true;
        for element in elements {
            let inner = bind(each, element.key, element.value, scope);
            let taken = match &each.condition {
                Some(condition) => self.is_taken(condition, &inner, errors),
                None => Some(true),
            };
            if taken == Some(false) {
                continue;
            }
            let name = taken.and_then(|_| self.entry_name(key, &inner, errors));
            let Some(name) = name else {
                is_known = false;
                continue;
            };
            let value = self.evaluate(&each.value, &inner, errors);
            if each.groups {
                groups.entry(name).or_default().push(value);
            } else {
                match entries.entry(name) {
                    Entry::Vacant(place) => {
                        place.insert(value);
                    }
                    Entry::Occupied(place) => errors.push(Diagnostic::new(
                        "Duplicate object key",
                        format!(
                            "Two different items produced the key {} in this 'for' expression. If \
                             duplicates are expected, use the ellipsis (...) after the value \
                             expression to enable grouping by key.",
                            crate::quote::quote(place.key())
                        ),
                        key.range,
                    )),
                }
            }
            if self.budget.is_spent() {
                return Value::UNKNOWN;
            }
        }
        if !is_known {
            return Value::UNKNOWN;
        }
        entries.extend(groups.into_iter().map(|(name, items)| (name, Value::tuple(items))));
        Value::object(entries)
    }

    /// Evaluates the key of an entry.
    fn entry_name(
        &self,
        key: &Expression,
        scope: &Scope<'_>,
        errors: &mut Vec<Diagnostic>,
    ) -> Option<Rc<str>> {
        let value = self.evaluate(key, scope, errors);
        let mut invalid = |detail: String| {
            errors.push(Diagnostic::new("Invalid object key", detail, key.range));
            None
        };
        if value.is_null() {
            return invalid(
                "Key expression in 'for' expression must not produce a null value.".into(),
            );
        }
        if !value.is_known() {
            return None;
        }
        match to_text(&value) {
            Ok(name) => Some(name),
            Err(error) => {
                invalid(format!("The key expression produced an invalid result: {error}."))
            }
        }
    }

    /// Evaluates a splat.
    pub(super) fn splat(
        &self,
        source: &Expression,
        each: &Expression,
        scope: &Scope<'_>,
        errors: &mut Vec<Diagnostic>,
    ) -> Value {
        let before = errors.len();
        let value = self.evaluate(source, scope, errors);
        if errors.len() > before {
            return Value::UNKNOWN;
        }
        let kind = value.type_of();
        let is_sequence = matches!(kind, Type::List(_) | Type::Set(_) | Type::Tuple(_));
        if value.is_null() {
            if !is_sequence {
                return Value::tuple(Vec::new());
            }
            errors.push(Diagnostic::new(
                "Splat of null value",
                "Splat expressions (with the * symbol) cannot be applied to null sequences.",
                source.range,
            ));
            return Value::UNKNOWN;
        }
        if !value.is_known() {
            return Value::UNKNOWN;
        }
        let items = match value.items() {
            Some(items) => items.to_vec(),
            None => vec![value],
        };
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            self.elements.borrow_mut().push(item);
            values.push(self.evaluate(each, scope, errors));
            self.elements.borrow_mut().pop();
        }
        if errors.len() > before {
            return Value::UNKNOWN;
        }
        match kind {
            Type::List(element) | Type::Set(element) => {
                self.list_of(&element, values, each, scope, errors)
            }
            _ => Value::tuple(values),
        }
    }

    /// Makes a list of the values of a splat.
    fn list_of(
        &self,
        element: &Type,
        values: Vec<Value>,
        each: &Expression,
        scope: &Scope<'_>,
        errors: &mut Vec<Diagnostic>,
    ) -> Value {
        let types: Vec<Type> = values.iter().map(Value::type_of).collect();
        let Some(first) = types.first() else {
            self.elements.borrow_mut().push(Value::Unknown(element.clone()));
            let value = self.evaluate(each, scope, errors);
            self.elements.borrow_mut().pop();
            return Value::list(value.type_of(), Vec::new());
        };
        if types.iter().all(|kind| kind == first) {
            return Value::list(first.clone(), values);
        }
        if let Some(common) = unify(&types, false)
            && types.iter().all(|kind| *kind == common || *kind == Type::Dynamic)
        {
            return Value::list(common, values);
        }
        errors.push(Diagnostic::new(
            "Invalid nested splat expressions",
            "The second level of splat expression produced elements of different types, so it \
             isn't possible to construct a valid list to represent the top-level result.",
            each.range,
        ));
        Value::UNKNOWN
    }
}

/// Makes the names of a loop known.
fn bind<'a>(each: &For, key: Value, value: Value, scope: &'a Scope<'a>) -> Scope<'a> {
    let mut names = Vec::with_capacity(2);
    names.push(Binding { name: each.value_name.clone(), value });
    if let Some(name) = &each.key_name {
        names.push(Binding { name: name.clone(), value: key });
    }
    Scope { parent: Some(scope), names }
}

/// Says that a condition is no boolean.
fn invalid_condition(error: &str, condition: &Expression) -> Diagnostic {
    Diagnostic::new(
        "Invalid 'for' condition",
        format!("The 'if' clause value is invalid: {error}."),
        condition.range,
    )
}

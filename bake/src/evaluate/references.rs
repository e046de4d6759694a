//! The names and functions that an expression needs.

use std::rc::Rc;

use crate::expression::{Expression, Kind, Reference, To};

/// A name that an expression needs, and how it steps into its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FreeName {
    /// The name.
    pub(crate) root: Rc<str>,
    /// The steps. `None` is a step by an index.
    pub(crate) steps: Vec<Option<Rc<str>>>,
}

/// Returns the names that an expression needs, in the order in which they stand.
pub(crate) fn free_names(expression: &Expression) -> Vec<FreeName> {
    let mut names = Vec::new();
    collect(expression, &mut Vec::new(), &mut names);
    names
}

/// Returns the names of the functions that an expression calls.
///
/// In JSON, only text that is an expression without a template around it counts.
pub(crate) fn called_functions(expression: &Expression) -> Vec<Rc<str>> {
    let mut names = Vec::new();
    calls(expression, &mut names);
    names
}

/// Collects names, without those that loops make.
fn collect(expression: &Expression, bound: &mut Vec<Rc<str>>, names: &mut Vec<FreeName>) {
    match &expression.kind {
        Kind::Reference(reference) => {
            if !bound.contains(&reference.root) {
                names.push(free_name(reference));
            }
        }
        Kind::For(each) => {
            collect(&each.collection, bound, names);
            let length = bound.len();
            bound.extend(each.key_name.clone());
            bound.push(each.value_name.clone());
            let inner = each.key.iter().chain([&each.value]).chain(&each.condition);
            for part in inner {
                collect(part, bound, names);
            }
            bound.truncate(length);
        }
        Kind::JsonText(text) => {
            if let Ok(template) = text.template() {
                collect(template, bound, names);
            }
        }
        _ => {
            for part in parts(expression) {
                collect(part, bound, names);
            }
        }
    }
}

/// Describes a reference.
fn free_name(reference: &Reference) -> FreeName {
    let steps = reference.steps.iter().map(|step| match &step.to {
        To::Attribute(name) => Some(name.clone()),
        To::Index(_) => None,
    });
    FreeName { root: reference.root.clone(), steps: steps.collect() }
}

/// Collects calls.
fn calls(expression: &Expression, names: &mut Vec<Rc<str>>) {
    match &expression.kind {
        Kind::Call(call) => {
            names.push(call.name.clone());
            for argument in &call.arguments {
                calls(argument, names);
            }
        }
        Kind::For(each) => {
            let parts = [&each.collection, &each.value];
            for part in parts.into_iter().chain(&each.key).chain(&each.condition) {
                calls(part, names);
            }
        }
        Kind::JsonText(text) => {
            if let Some(expression) = text.expression() {
                calls(expression, names);
            }
        }
        _ => {
            for part in parts(expression) {
                calls(part, names);
            }
        }
    }
}

/// Returns the parts of an expression that makes no names.
fn parts(expression: &Expression) -> Vec<&Expression> {
    match &expression.kind {
        Kind::Relative { source, .. } => vec![source],
        Kind::Call(call) => call.arguments.iter().collect(),
        Kind::Conditional { condition, yes, no } => vec![condition, yes, no],
        Kind::Index { collection, key, .. } => vec![collection, key],
        Kind::Tuple { items, .. } | Kind::Template(items) => items.iter().collect(),
        Kind::Object { items, .. } => {
            let mut parts = Vec::with_capacity(items.len() * 2);
            for item in items {
                if item.key_is_computed || item.key.keyword().is_none() {
                    parts.push(&item.key);
                }
                parts.push(&item.value);
            }
            parts
        }
        Kind::JsonObject { items, .. } => {
            items.iter().flat_map(|item| [&item.key, &item.value]).collect()
        }
        Kind::Splat { source, each, .. } => vec![source, each],
        Kind::Binary { left, right, .. } => vec![left, right],
        Kind::Unary { operand, .. } => vec![operand],
        Kind::Parentheses(inner) | Kind::Join(inner) | Kind::Wrapped(inner) => vec![inner],
        Kind::Literal(_)
        | Kind::Reference(_)
        | Kind::Element
        | Kind::For(_)
        | Kind::JsonText(_) => Vec::new(),
    }
}

//! Conditional expressions.

use super::{Evaluator, Scope};
use crate::convert::convert;
use crate::diagnostic::Diagnostic;
use crate::expression::Expression;
use crate::quote::quote;
use crate::types::Type;
use crate::unify::unify;
use crate::value::Value;

const INCONSISTENT: &str = "Inconsistent conditional result types";

/// The parts of a conditional expression.
pub(super) struct Parts<'a> {
    pub(super) condition: &'a Expression,
    pub(super) yes: &'a Expression,
    pub(super) no: &'a Expression,
}

impl Evaluator<'_> {
    /// Evaluates a conditional expression.
    ///
    /// Both results are evaluated, because they share a type. Only the errors of the chosen one
    /// count.
    pub(super) fn conditional(
        &self,
        parts: &Parts<'_>,
        scope: &Scope<'_>,
        errors: &mut Vec<Diagnostic>,
    ) -> Value {
        let mut yes_errors = Vec::new();
        let mut no_errors = Vec::new();
        let yes = self.evaluate(parts.yes, scope, &mut yes_errors);
        let no = self.evaluate(parts.no, scope, &mut no_errors);
        let Some(result) = common_type(&yes, &no) else {
            errors.push(Diagnostic::new(
                INCONSISTENT,
                format!(
                    "The true and false result expressions must have consistent types. {}.",
                    mismatch(&yes.type_of(), &no.type_of())
                ),
                parts.yes.range.to(parts.no.range),
            ));
            return Value::UNKNOWN;
        };
        let condition = self.evaluate(parts.condition, scope, errors);
        if condition.is_null() {
            errors.push(Diagnostic::new(
                "Null condition",
                "The condition value is null. Conditions must either be true or false.",
                parts.condition.range,
            ));
            return Value::Unknown(result);
        }
        if !condition.is_known() {
            return Value::Unknown(result);
        }
        let Ok(Value::Bool(chosen)) = convert(&condition, &Type::Bool) else {
            errors.push(Diagnostic::new(
                "Incorrect condition type",
                "The condition expression must be of type bool.",
                parts.condition.range,
            ));
            return Value::Unknown(result);
        };
        let (value, own_errors, name, place) = if chosen {
            (yes, yes_errors, "true", parts.yes.range)
        } else {
            (no, no_errors, "false", parts.no.range)
        };
        errors.extend(own_errors);
        convert(&value, &result).unwrap_or_else(|error| {
            errors.push(Diagnostic::new(
                INCONSISTENT,
                format!("The {name} result value has the wrong type: {error}."),
                place,
            ));
            Value::Unknown(result)
        })
    }
}

/// Returns the type of the result, whichever is chosen.
fn common_type(yes: &Value, no: &Value) -> Option<Type> {
    if matches!(yes, Value::Null(Type::Dynamic)) {
        return Some(no.type_of());
    }
    if matches!(no, Value::Null(Type::Dynamic)) {
        return Some(yes.type_of());
    }
    let types = [yes.type_of(), no.type_of()];
    if types.contains(&Type::Dynamic) {
        return Some(Type::Dynamic);
    }
    unify(&types, true)
}

/// Says how two types differ.
fn mismatch(yes: &Type, no: &Type) -> String {
    match (yes, no) {
        (Type::Object(yes_object), Type::Object(no_object)) => {
            for (name, attribute) in &yes_object.attributes {
                match no_object.attributes.get(name) {
                    None => {
                        return format!(
                            "The 'true' value includes object attribute {}, which is absent in the \
                             'false' value",
                            quote(name)
                        );
                    }
                    Some(other) if other != attribute => {
                        return format!(
                            "Type mismatch for object attribute {}: {}",
                            quote(name),
                            mismatch(attribute, other)
                        );
                    }
                    Some(_) => {}
                }
            }
            let missing =
                no_object.attributes.keys().find(|name| !yes_object.attributes.contains_key(*name));
            match missing {
                Some(name) => format!(
                    "The 'false' value includes object attribute {}, which is absent in the \
                     'true' value",
                    quote(name)
                ),
                None => names(yes, no),
            }
        }
        (Type::Tuple(yes_items), Type::Tuple(no_items)) => {
            if yes_items.len() != no_items.len() {
                return format!(
                    "The 'true' tuple has length {}, but the 'false' tuple has length {}",
                    yes_items.len(),
                    no_items.len()
                );
            }
            let differing =
                yes_items.iter().zip(no_items.iter()).enumerate().find(|item| item.1.0 != item.1.1);
            match differing {
                Some((index, pair)) => {
                    format!("Type mismatch for tuple element {index}: {}", mismatch(pair.0, pair.1))
                }
                None => names(yes, no),
            }
        }
        _ => names(yes, no),
    }
}

/// Names two types that differ.
fn names(yes: &Type, no: &Type) -> String {
    if yes.name() == no.name() {
        return "At least one deeply-nested attribute or element is not compatible across both the \
                'true' and the 'false' value"
            .into();
    }
    format!("The 'true' value is {}, but the 'false' value is {}", yes.name(), no.name())
}

//! Templates.

use super::{Evaluator, Scope};
use crate::convert::to_text;
use crate::diagnostic::Diagnostic;
use crate::expression::Expression;
use crate::limits;
use crate::types::Type;
use crate::value::Value;

const INVALID: &str = "Invalid template interpolation value";

impl Evaluator<'_> {
    /// Evaluates a template: the texts of its parts, one after the other.
    pub(super) fn template(
        &self,
        parts: &[Expression],
        scope: &Scope<'_>,
        errors: &mut Vec<Diagnostic>,
    ) -> Value {
        let before = errors.len();
        let mut text = String::new();
        let mut is_known = true;
        for part in parts {
            let value = self.evaluate(part, scope, errors);
            if value.is_null() {
                errors.push(Diagnostic::new(
                    INVALID,
                    "The expression result is null. Cannot include a null value in a string \
                     template.",
                    part.range,
                ));
                continue;
            }
            if !value.is_known() {
                is_known = false;
                continue;
            }
            match to_text(&value) {
                Ok(part) => text.push_str(&part),
                Err(error) => errors.push(Diagnostic::new(
                    INVALID,
                    format!("Cannot include the given value in a string template: {error}."),
                    part.range,
                )),
            }
            if !self.has_room(&text) {
                errors.push(limits::too_large(part.range));
                return Value::Unknown(Type::String);
            }
        }
        if !is_known || errors.len() > before {
            return Value::Unknown(Type::String);
        }
        Value::text(text)
    }

    /// Joins the texts of a loop in a template.
    pub(super) fn join(
        &self,
        each: &Expression,
        scope: &Scope<'_>,
        errors: &mut Vec<Diagnostic>,
    ) -> Value {
        let Value::Tuple(sequence) = self.evaluate(each, scope, errors) else {
            return Value::Unknown(Type::String);
        };
        let mut text = String::new();
        for value in &sequence.items {
            if value.is_null() {
                errors.push(Diagnostic::new(
                    INVALID,
                    "An iteration result is null. Cannot include a null value in a string \
                     template.",
                    each.range,
                ));
                continue;
            }
            if !value.is_known() {
                return Value::Unknown(Type::String);
            }
            match to_text(value) {
                Ok(part) => text.push_str(&part),
                Err(error) => errors.push(Diagnostic::new(
                    INVALID,
                    format!(
                        "Cannot include one of the interpolation results into the string template: \
                         {error}."
                    ),
                    each.range,
                )),
            }
            if !self.has_room(&text) {
                errors.push(limits::too_large(each.range));
                return Value::Unknown(Type::String);
            }
        }
        Value::text(text)
    }

    /// Returns `true` if a text may still grow. Long texts cost steps.
    fn has_room(&self, text: &str) -> bool {
        let weight = text.len() as u64 / 64;
        limits::Budget::allows(weight) && self.budget.take(weight / 64)
    }
}

//! Evaluation of expressions.
//!
//! An error doesn't end evaluation: it is noted, and its expression has an unknown value. What
//! depends on an unknown value is unknown as well, without another error.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::convert::{convert, to_text};
use crate::diagnostic::Diagnostic;
use crate::expression::{Expression, Item, JsonItem, JsonText, Kind, Reference, Step, To};
use crate::functions;
use crate::limits::{self, Budget};
use crate::quote::quote;
use crate::source::{FileNames, Range};
use crate::suggest;
use crate::surroundings::Surroundings;
use crate::types::Type;
use crate::value::{Entries, Value};

mod access;
mod calls;
mod conditional;
mod each;
mod operators;
mod references;
mod templates;

pub(crate) use each::elements;
pub(crate) use operators::apply as apply_operator;
pub(crate) use references::{FreeName, called_functions, free_names};

/// A function that the definition itself makes.
#[derive(Debug)]
pub(crate) struct UserFunction {
    /// The names of the parameters.
    pub(crate) parameters: Vec<Rc<str>>,
    /// The name for all further arguments.
    pub(crate) variadic: Option<Rc<str>>,
    /// The expression of the result.
    pub(crate) result: Rc<Expression>,
}

/// Names that are known everywhere.
#[derive(Debug, Default)]
pub(crate) struct Globals {
    /// The values.
    pub(crate) values: RefCell<HashMap<Rc<str>, Value>>,
    /// The functions of the definition.
    pub(crate) functions: RefCell<HashMap<Rc<str>, Rc<UserFunction>>>,
}

/// Names that are known in a part of an expression.
#[derive(Debug, Default)]
pub(crate) struct Scope<'a> {
    /// The names around.
    pub(crate) parent: Option<&'a Scope<'a>>,
    /// The names.
    pub(crate) names: Vec<Binding>,
}

/// A name and its value.
#[derive(Clone, Debug)]
pub(crate) struct Binding {
    /// The name.
    pub(crate) name: Rc<str>,
    /// The value.
    pub(crate) value: Value,
}

impl Scope<'_> {
    /// Returns the value of a name, if it is known in this part of an expression.
    fn get(&self, name: &str) -> Option<&Value> {
        let own = self.names.iter().find(|binding| &*binding.name == name);
        match own {
            Some(binding) => Some(&binding.value),
            None => self.parent.and_then(|parent| parent.get(name)),
        }
    }

    /// Returns all names.
    fn all_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.names.iter().map(|binding| &*binding.name).collect();
        if let Some(parent) = self.parent {
            names.extend(parent.all_names());
        }
        names
    }
}

/// An evaluator.
pub(crate) struct Evaluator<'a> {
    /// The names that are known everywhere.
    pub(crate) globals: Globals,
    /// The names of the files.
    pub(crate) files: FileNames,
    /// The remaining budget of evaluation.
    pub(crate) budget: Budget,
    /// The world, as functions see it.
    pub(crate) surroundings: &'a dyn Surroundings,
    /// The elements at which the splats look that are being evaluated.
    elements: RefCell<Vec<Value>>,
}

impl<'a> Evaluator<'a> {
    /// Makes an evaluator that knows no names.
    pub(crate) fn new(surroundings: &'a dyn Surroundings) -> Self {
        Self {
            globals: Globals::default(),
            files: FileNames::default(),
            budget: Budget::new(),
            surroundings,
            elements: RefCell::default(),
        }
    }

    /// Evaluates an expression. Errors are added to the list.
    pub(crate) fn evaluate(
        &self,
        expression: &Expression,
        scope: &Scope<'_>,
        errors: &mut Vec<Diagnostic>,
    ) -> Value {
        if !self.budget.take(1) {
            if errors.is_empty() {
                errors.push(limits::too_long(expression.range));
            }
            return Value::UNKNOWN;
        }
        let value = if self.budget.enter() {
            self.evaluate_kind(expression, scope, errors)
        } else {
            errors.push(limits::too_deep(expression.range));
            Value::UNKNOWN
        };
        self.budget.leave();
        Self::weighed(value, expression.range, errors)
    }

    /// Returns a value unless it is too large.
    fn weighed(value: Value, range: Range, errors: &mut Vec<Diagnostic>) -> Value {
        if Budget::allows(value.weight()) {
            return value;
        }
        errors.push(limits::too_large(range));
        Value::UNKNOWN
    }

    /// Evaluates an expression of any kind.
    fn evaluate_kind(
        &self,
        expression: &Expression,
        scope: &Scope<'_>,
        errors: &mut Vec<Diagnostic>,
    ) -> Value {
        match &expression.kind {
            Kind::Literal(value) => value.clone(),
            Kind::Reference(reference) => self.reference(reference, scope, errors),
            Kind::Relative { source, steps } => {
                let value = self.evaluate(source, scope, errors);
                self.steps(value, steps, errors)
            }
            Kind::Call(call) => self.call(call, expression, scope, errors),
            Kind::Conditional { condition, yes, no } => {
                self.conditional(&conditional::Parts { condition, yes, no }, scope, errors)
            }
            Kind::Index { collection, key, bracket, .. } => {
                let collection = self.evaluate(collection, scope, errors);
                let key = self.evaluate(key, scope, errors);
                access::index(&collection, &key, *bracket).unwrap_or_else(|error| {
                    errors.push(error);
                    Value::UNKNOWN
                })
            }
            Kind::Tuple { items, .. } => {
                let items = items.iter().map(|item| self.evaluate(item, scope, errors));
                Value::tuple(items.collect())
            }
            Kind::Object { items, .. } => self.object(items, scope, errors),
            Kind::JsonObject { items, .. } => self.json_object(items, scope, errors),
            Kind::For(each) => self.each(each, scope, errors),
            Kind::Splat { source, each, .. } => self.splat(source, each, scope, errors),
            Kind::Element => self.elements.borrow().last().cloned().unwrap_or(Value::UNKNOWN),
            Kind::Binary { operator, left, right } => {
                let operation = operators::Operation { operator: *operator, left, right };
                self.binary(&operation, expression.range, scope, errors)
            }
            Kind::Unary { operator, operand, .. } => self.unary(*operator, operand, scope, errors),
            Kind::Parentheses(inner) | Kind::Wrapped(inner) => self.evaluate(inner, scope, errors),
            Kind::Template(parts) => self.template(parts, scope, errors),
            Kind::Join(each) => self.join(each, scope, errors),
            Kind::JsonText(text) => self.json_text(text, scope, errors),
        }
    }

    /// Evaluates a text of a JSON file.
    fn json_text(&self, text: &JsonText, scope: &Scope<'_>, errors: &mut Vec<Diagnostic>) -> Value {
        match text.template() {
            Ok(template) => self.evaluate(template, scope, errors),
            Err(error) => {
                errors.push(error.clone());
                Value::UNKNOWN
            }
        }
    }

    /// Looks up a name and takes the steps into its value.
    fn reference(
        &self,
        reference: &Reference,
        scope: &Scope<'_>,
        errors: &mut Vec<Diagnostic>,
    ) -> Value {
        let root = &reference.root;
        let value =
            scope.get(root).cloned().or_else(|| self.globals.values.borrow().get(root).cloned());
        if let Some(value) = value {
            return self.steps(value, &reference.steps, errors);
        }
        let globals = self.globals.values.borrow();
        let known = scope.all_names().into_iter().chain(globals.keys().map(|name| &**name));
        let hint = suggest::nearest(root, known)
            .map(|near| format!(" Did you mean {}?", quote(near)))
            .unwrap_or_default();
        errors.push(Diagnostic::new(
            "Unknown variable",
            format!("There is no variable named {}.{hint}", quote(root)),
            reference.root_range,
        ));
        Value::UNKNOWN
    }

    /// Takes steps into a value, up to the first one that fails.
    fn steps(&self, value: Value, steps: &[Step], errors: &mut Vec<Diagnostic>) -> Value {
        let mut value = value;
        for step in steps {
            if !self.budget.take(1) {
                return Value::UNKNOWN;
            }
            let next = match &step.to {
                To::Attribute(name) => access::attribute(&value, name, step.range),
                To::Index(key) => access::index(&value, key, step.range),
            };
            match next {
                Ok(next) => value = next,
                Err(error) => {
                    errors.push(error);
                    return Value::UNKNOWN;
                }
            }
        }
        value
    }

    /// Makes an object.
    fn object(&self, items: &[Item], scope: &Scope<'_>, errors: &mut Vec<Diagnostic>) -> Value {
        let mut entries = Entries::new();
        let mut is_known = true;
        for item in items {
            let before = errors.len();
            let key = self.object_key(item, scope, errors);
            let has_key = errors.len() == before;
            let value = self.evaluate(&item.value, scope, errors);
            let key = match key {
                _ if !has_key => None,
                Value::Null(_) => {
                    errors.push(Diagnostic::new(
                        "Null value as key",
                        "Can't use a null value as a key.",
                        item.value.range,
                    ));
                    None
                }
                Value::Unknown(_) => None,
                key => match to_text(&key) {
                    Ok(key) => Some(key),
                    Err(error) => {
                        errors.push(Diagnostic::new(
                            "Incorrect key type",
                            format!("Can't use this value as a key: {error}."),
                            item.key.range,
                        ));
                        None
                    }
                },
            };
            match key {
                Some(key) => {
                    entries.insert(key, value);
                }
                None => is_known = false,
            }
        }
        if is_known { Value::object(entries) } else { Value::UNKNOWN }
    }

    /// Evaluates a key of an object, where a bare word stands for itself.
    fn object_key(&self, item: &Item, scope: &Scope<'_>, errors: &mut Vec<Diagnostic>) -> Value {
        if item.key_is_computed {
            return self.evaluate(&item.key, scope, errors);
        }
        if let Some(word) = item.key.keyword() {
            return Value::text(word);
        }
        if let Kind::Reference(_) = &item.key.kind {
            errors.push(Diagnostic::new(
                "Ambiguous attribute key",
                "If this expression is intended to be a reference, wrap it in parentheses. If it's \
                 instead intended as a literal name containing periods, wrap it in quotes to \
                 create a string literal.",
                item.key.range,
            ));
            return Value::UNKNOWN;
        }
        self.evaluate(&item.key, scope, errors)
    }

    /// Makes an object of one in JSON.
    fn json_object(
        &self,
        items: &[JsonItem],
        scope: &Scope<'_>,
        errors: &mut Vec<Diagnostic>,
    ) -> Value {
        let mut entries = Entries::new();
        let mut is_known = true;
        for item in items {
            let key = self.evaluate(&item.key, scope, errors);
            let value = self.evaluate(&item.value, scope, errors);
            let place = item.key.range;
            let key = match convert(&key, &Type::String) {
                Ok(Value::String(key)) => key,
                Ok(Value::Null(_)) => {
                    errors.push(Diagnostic::new(
                        "Invalid object key expression",
                        "Cannot use null value as an object key.",
                        place,
                    ));
                    continue;
                }
                Ok(_) => {
                    is_known = false;
                    continue;
                }
                Err(error) => {
                    errors.push(Diagnostic::new(
                        "Invalid object key expression",
                        format!("Cannot use this expression as an object key: {error}."),
                        place,
                    ));
                    continue;
                }
            };
            if entries.contains_key(&key) {
                errors.push(Diagnostic::new(
                    "Duplicate object attribute",
                    format!("An attribute named {} was already defined.", quote(&key)),
                    place,
                ));
                continue;
            }
            entries.insert(key, value);
        }
        if is_known { Value::object(entries) } else { Value::UNKNOWN }
    }

    /// Returns the function of a name, the built-in one first.
    fn function(&self, name: &str) -> Option<calls::Callee> {
        if let Some(function) = functions::find(name) {
            return Some(calls::Callee::BuiltIn(function));
        }
        let functions = self.globals.functions.borrow();
        functions.get(name).map(|function| calls::Callee::User(Rc::clone(function)))
    }
}

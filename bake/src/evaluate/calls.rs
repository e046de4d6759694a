//! Calls of functions.

use std::borrow::Cow;
use std::rc::Rc;

use super::{Binding, Evaluator, Scope, UserFunction};
use crate::convert::convert;
use crate::diagnostic::{self, Diagnostic};
use crate::expression::{Call, Expression};
use crate::functions::{self, Failure, Function, Parameter};
use crate::quote::quote;
use crate::source::Range;
use crate::suggest;
use crate::types::Type;
use crate::typespec;
use crate::value::Value;

/// The function that a call means.
pub(super) enum Callee {
    /// A built-in one.
    BuiltIn(&'static Function),
    /// One of the definition.
    User(Rc<UserFunction>),
}

/// An argument: an expression, or a value that an expanded argument brought.
enum Argument<'a> {
    Expression(&'a Expression),
    Value { value: Value, range: Range },
}

impl Argument<'_> {
    /// Returns the place at which the argument begins.
    fn start(&self) -> Range {
        match self {
            Self::Expression(expression) => expression.start(),
            Self::Value { range, .. } => *range,
        }
    }
}

impl Callee {
    /// Returns the number of parameters that need an argument.
    fn required(&self) -> usize {
        match self {
            Self::BuiltIn(function) => function.parameters.len(),
            Self::User(function) => function.parameters.len(),
        }
    }

    /// Returns `true` if any number of further arguments is taken.
    fn is_variadic(&self) -> bool {
        match self {
            Self::BuiltIn(function) => function.variadic.is_some(),
            Self::User(function) => function.variadic.is_some(),
        }
    }

    /// Returns the parameter of an argument.
    fn parameter(&self, index: usize) -> Parameter {
        match self {
            Self::BuiltIn(function) => {
                let parameter = function.parameters.get(index).or(function.variadic.as_ref());
                parameter.cloned().unwrap_or(Parameter::any(""))
            }
            Self::User(_) => Parameter::any(""),
        }
    }

    /// Returns the name of the parameter of an argument.
    fn parameter_name(&self, index: usize) -> Cow<'static, str> {
        match self {
            Self::BuiltIn(_) => self.parameter(index).name.into(),
            Self::User(function) => {
                let name = function.parameters.get(index).or(function.variadic.as_ref());
                name.map(ToString::to_string).unwrap_or_default().into()
            }
        }
    }
}

impl Evaluator<'_> {
    /// Evaluates a call.
    pub(super) fn call(
        &self,
        call: &Call,
        expression: &Expression,
        scope: &Scope<'_>,
        errors: &mut Vec<Diagnostic>,
    ) -> Value {
        let Some(callee) = self.function(&call.name) else {
            errors.push(self.unknown_function(call));
            return Value::UNKNOWN;
        };
        let before = errors.len();
        let Some(arguments) = self.arguments(call, scope, errors) else {
            return Value::UNKNOWN;
        };
        if let Some(error) = wrong_number(call, &callee, &arguments) {
            errors.push(error);
            return Value::UNKNOWN;
        }
        if let Callee::BuiltIn(function) = &callee
            && let Some(special) = function.special
        {
            let expressions: Vec<&Expression> = arguments
                .iter()
                .filter_map(|argument| match argument {
                    Argument::Expression(expression) => Some(*expression),
                    Argument::Value { .. } => None,
                })
                .collect();
            return self.special(special, &expressions, expression, scope, errors);
        }
        let mut values = Vec::with_capacity(arguments.len());
        for (index, argument) in arguments.iter().enumerate() {
            let value = match argument {
                Argument::Expression(expression) => self.evaluate(expression, scope, errors),
                Argument::Value { value, .. } => value.clone(),
            };
            match convert(&value, &callee.parameter(index).kind.as_type()) {
                Ok(value) => values.push(value),
                Err(error) => errors.push(invalid_argument(
                    &callee.parameter_name(index),
                    &error,
                    argument.start(),
                )),
            }
        }
        if errors.len() > before {
            return Value::UNKNOWN;
        }
        match self.run(&callee, &values) {
            Ok(value) => value,
            Err(failure) => {
                errors.push(Self::failed(call, &callee, &arguments, &failure));
                Value::UNKNOWN
            }
        }
    }

    /// Says that a function doesn't exist.
    fn unknown_function(&self, call: &Call) -> Diagnostic {
        const SUMMARY: &str = "Call to unknown function";
        if let Some((namespace, _)) = call.name.rsplit_once("::") {
            return Diagnostic::new(
                SUMMARY,
                format!(
                    "There are no functions in namespace {}.",
                    quote(&format!("{namespace}::"))
                ),
                call.name_range,
            );
        }
        let own: Vec<Rc<str>> = self.globals.functions.borrow().keys().cloned().collect();
        let mut names: Vec<&str> = functions::names().collect();
        names.extend(own.iter().map(|name| &**name));
        let hint = suggest::nearest(&call.name, names)
            .map(|near| format!(" Did you mean {}?", quote(near)))
            .unwrap_or_default();
        Diagnostic::new(
            SUMMARY,
            format!("There is no function named {}.{hint}", quote(&call.name)),
            call.name_range,
        )
    }

    /// Returns the arguments, the last one expanded if it stands for several.
    fn arguments<'b>(
        &self,
        call: &'b Call,
        scope: &Scope<'_>,
        errors: &mut Vec<Diagnostic>,
    ) -> Option<Vec<Argument<'b>>> {
        let expanded = if call.expands { call.arguments.last() } else { None };
        let count = call.arguments.len() - usize::from(expanded.is_some());
        let mut arguments: Vec<Argument<'b>> =
            call.arguments[..count].iter().map(Argument::Expression).collect();
        let Some(last) = expanded else {
            return Some(arguments);
        };
        let before = errors.len();
        let value = self.evaluate(last, scope, errors);
        if errors.len() > before || !value.is_known() {
            return None;
        }
        let mut invalid = |detail: &str| {
            errors.push(Diagnostic::new("Invalid expanding argument value", detail, last.range));
            None
        };
        if value.is_null() {
            return invalid("The expanding argument (indicated by ...) must not be null.");
        }
        let Some(items) = value.items() else {
            return invalid(
                "The expanding argument (indicated by ...) must be of a tuple, list, or set type.",
            );
        };
        let range = last.range;
        arguments.extend(items.iter().map(|value| Argument::Value { value: value.clone(), range }));
        Some(arguments)
    }

    /// Runs a function.
    fn run(&self, callee: &Callee, values: &[Value]) -> Result<Value, Failure> {
        let mut is_known = true;
        for (index, value) in values.iter().enumerate() {
            let parameter = callee.parameter(index);
            if value.is_null() && !parameter.null {
                return Err(Failure::argument(index, "argument must not be null"));
            }
            is_known &= value.is_known() || parameter.unknown;
        }
        match callee {
            Callee::BuiltIn(function) if is_known => {
                let weight: u64 = values.iter().map(Value::weight).sum();
                self.budget.take(weight / 8);
                (function.run)(self.surroundings, values)
            }
            Callee::BuiltIn(function) => Ok(Value::Unknown(function.returns.as_type())),
            Callee::User(_) if !is_known => Ok(Value::UNKNOWN),
            Callee::User(function) => self.run_user(function, values),
        }
    }

    /// Runs a function of the definition. It sees its parameters and the global names.
    fn run_user(&self, function: &UserFunction, values: &[Value]) -> Result<Value, Failure> {
        let count = function.parameters.len();
        let mut names: Vec<Binding> = function
            .parameters
            .iter()
            .zip(values)
            .map(|(name, value)| Binding { name: name.clone(), value: value.clone() })
            .collect();
        if let Some(name) = &function.variadic {
            let rest = Value::tuple(values[count..].to_vec());
            names.push(Binding { name: name.clone(), value: rest });
        }
        let mut errors = Vec::new();
        let scope = Scope { parent: None, names };
        let value = self.evaluate(&function.result, &scope, &mut errors);
        if errors.is_empty() {
            return Ok(value);
        }
        Err(Failure::new(diagnostic::describe(&errors, &self.files)))
    }

    /// Evaluates a call of a function that gets its arguments as expressions.
    fn special(
        &self,
        special: functions::Special,
        arguments: &[&Expression],
        expression: &Expression,
        scope: &Scope<'_>,
        errors: &mut Vec<Diagnostic>,
    ) -> Value {
        match special {
            functions::Special::Try => self.try_each(arguments, expression, scope, errors),
            functions::Special::Can => {
                let mut own = Vec::new();
                let value = match arguments.first() {
                    Some(argument) => self.evaluate(argument, scope, &mut own),
                    None => Value::UNKNOWN,
                };
                match own.is_empty() {
                    true if value.is_wholly_known() => Value::Bool(true),
                    true => Value::Unknown(Type::Bool),
                    false => Value::Bool(false),
                }
            }
            functions::Special::Convert => {
                let [value, kind] = arguments else {
                    return Value::UNKNOWN;
                };
                let given = self.evaluate(value, scope, errors);
                let want = match typespec::read(kind) {
                    Ok(want) => want,
                    Err(error) => {
                        errors.push(error);
                        return Value::UNKNOWN;
                    }
                };
                convert(&given, &want).unwrap_or_else(|error| {
                    errors.push(invalid_argument("value", &error, value.start()));
                    Value::UNKNOWN
                })
            }
        }
    }

    /// Returns the value of the first expression without an error.
    fn try_each(
        &self,
        arguments: &[&Expression],
        expression: &Expression,
        scope: &Scope<'_>,
        errors: &mut Vec<Diagnostic>,
    ) -> Value {
        let mut all = Vec::new();
        for argument in arguments {
            let mut own = Vec::new();
            let value = self.evaluate(argument, scope, &mut own);
            if own.is_empty() {
                return if value.is_wholly_known() { value } else { Value::UNKNOWN };
            }
            all.append(&mut own);
        }
        let mut text = String::from("no expression succeeded:\n");
        for error in &all {
            let place = error
                .range
                .map(|range| format!(" (at {})", self.files.describe(range)))
                .unwrap_or_default();
            for part in ["- ", &error.summary, &place, "\n  ", &error.detail, "\n"] {
                text.push_str(part);
            }
        }
        text.push_str("\nAt least one expression must produce a successful result");
        if arguments.is_empty() {
            text = "at least one argument is required".into();
        }
        errors.push(Diagnostic::new(
            "Error in function call",
            format!("Call to function \"try\" failed: {text}."),
            expression.start(),
        ));
        Value::UNKNOWN
    }

    /// Says why a call failed, at the argument that is to blame.
    fn failed(
        call: &Call,
        callee: &Callee,
        arguments: &[Argument<'_>],
        failure: &Failure,
    ) -> Diagnostic {
        let whole = call.name_range.to(call.close);
        match failure.argument {
            Some(index) => {
                let place = arguments.get(index).map_or(whole, Argument::start);
                invalid_argument(&callee.parameter_name(index), &failure.message, place)
            }
            None => Diagnostic::new(
                "Error in function call",
                format!("Call to function {} failed: {}.", quote(&call.name), failure.message),
                call.name_range.to(call.open),
            ),
        }
    }
}

/// Says that an argument is wrong.
fn invalid_argument(parameter: &str, error: &str, range: Range) -> Diagnostic {
    Diagnostic::new(
        "Invalid function argument",
        format!("Invalid value for {} parameter: {error}.", quote(parameter)),
        range,
    )
}

/// Says that there are too few or too many arguments.
fn wrong_number(call: &Call, callee: &Callee, arguments: &[Argument<'_>]) -> Option<Diagnostic> {
    let required = callee.required();
    let name = quote(&call.name);
    if arguments.len() < required {
        let at_least = if callee.is_variadic() { " at least" } else { "" };
        let missing = quote(&callee.parameter_name(arguments.len()));
        return Some(Diagnostic::new(
            "Not enough function arguments",
            format!(
                "Function {name} expects{at_least} {required} argument(s). Missing value for \
                 {missing}."
            ),
            call.close,
        ));
    }
    let extra = arguments.get(required).filter(|_| !callee.is_variadic())?;
    Some(Diagnostic::new(
        "Too many function arguments",
        format!("Function {name} expects only {required} argument(s)."),
        extra.start(),
    ))
}

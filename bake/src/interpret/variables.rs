//! Variables and global attributes.

use std::rc::Rc;

use super::{Context, Interpreter, Trouble};
use crate::body::Attribute;
use crate::convert::{convert, to_text};
use crate::diagnostic::Diagnostic;
use crate::fields;
use crate::json_text;
use crate::number::Number;
use crate::quote::quote;
use crate::types::Type;
use crate::typespec;
use crate::value::{Entries, Value};

/// A variable and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VariableInfo {
    /// The name.
    pub(crate) name: String,
    /// The purpose of the variable.
    pub(crate) description: String,
    /// The declared type.
    pub(crate) kind: String,
    /// The value as text. Null has none.
    pub(crate) value: Option<String>,
}

/// The declared type of a variable.
#[derive(Clone)]
struct Declared {
    kind: Type,
    is_specified: bool,
}

/// A value from outside that overrides a variable.
struct Override {
    text: String,
    is_json: bool,
}

impl Interpreter<'_> {
    /// Resolves all variables.
    pub(super) fn resolve_variables(&mut self) -> Result<Vec<VariableInfo>, Vec<Diagnostic>> {
        let global = Context::global();
        let mut infos = Vec::with_capacity(self.variables.len());
        for index in 0..self.variables.len() {
            let name = self.variables[index].name.clone();
            let place = self.variables[index].place;
            self.resolve_name(&global, &name)
                .map_err(|trouble| trouble.at("Invalid value", place))?;
            let declared = declared_type(self.variables[index].kind.as_ref());
            let value = self.evaluator.globals.values.borrow().get(&name).cloned();
            infos.push(VariableInfo {
                name: name.to_string(),
                description: self.variables[index].description.clone(),
                kind: match &declared {
                    Ok(declared) if declared.is_specified => declared.kind.requirement(),
                    _ => String::new(),
                },
                value: value.and_then(|value| shown(&value, declared.ok())),
            });
        }
        Ok(infos)
    }

    /// Checks the conditions of all variables.
    pub(super) fn validate_variables(&mut self) -> Result<(), Vec<Diagnostic>> {
        let mut errors = Vec::new();
        for variable in &self.variables {
            for validation in &variable.validations {
                self.validate(validation, &mut errors);
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Checks a condition.
    fn validate(&self, validation: &super::declarations::Validation, errors: &mut Vec<Diagnostic>) {
        const INVALID: &str = "Invalid condition result";
        let global = Context::global();
        let place = validation.condition.as_ref().map_or(validation.place, |part| part.range);
        let before = errors.len();
        let value = match &validation.condition {
            Some(condition) => self.evaluate(condition, &global, errors),
            None => Value::NULL,
        };
        if errors.len() > before {
            return;
        }
        if value.is_null() {
            errors.push(Diagnostic::new(
                INVALID,
                "Condition expression must return either true or false, not null.",
                place,
            ));
            return;
        }
        match convert(&value, &Type::Bool) {
            Ok(Value::Bool(true)) => return,
            Ok(_) => {}
            Err(error) => {
                errors.push(Diagnostic::new(
                    INVALID,
                    format!("Invalid condition result value: {error}"),
                    place,
                ));
                return;
            }
        }
        let message = match &validation.message {
            Some(message) => self.evaluate(message, &global, errors),
            None => Value::NULL,
        };
        if errors.len() > before {
            return;
        }
        let message = to_text(&message).map_or_else(
            |_| "This check failed, but has an invalid error message.".to_owned(),
            |text| text.to_string(),
        );
        errors.push(Diagnostic::new("Validation failed", message, place));
    }

    /// Resolves a variable or a global attribute.
    pub(super) fn resolve_name(
        &mut self,
        context: &Context,
        name: &Rc<str>,
    ) -> Result<(), Trouble> {
        if context.has(name) || self.evaluator.globals.values.borrow().contains_key(name) {
            return Ok(());
        }
        if !self.touched.insert((context.id, name.clone())) {
            return Err(Trouble::Message(format!("variable cycle not allowed for {name}")));
        }
        let value = self.value_of(context, name)?;
        self.evaluator.globals.values.borrow_mut().insert(name.clone(), value);
        Ok(())
    }

    /// Computes the value of a name.
    fn value_of(&mut self, context: &Context, name: &Rc<str>) -> Result<Value, Trouble> {
        if let Some(text) = self.inputs.builtins.get(&**name) {
            return Ok(Value::text(text));
        }
        let attribute = self.attributes.iter().find(|attribute| attribute.name == *name).cloned();
        let variable = self.variables.iter().find(|variable| variable.name == *name);
        let is_variable = variable.is_some();
        let mut declared = Declared { kind: Type::Dynamic, is_specified: false };
        let mut context = context.clone();
        let default = match (attribute, variable) {
            (Some(attribute), _) => Some(attribute),
            (None, Some(variable)) => {
                context = Context::global();
                declared = declared_type(variable.kind.as_ref())?;
                variable.default.clone()
            }
            (None, None) => {
                return Err(Trouble::Undefined(format!(
                    "variable {} does not exist: undefined",
                    quote(name)
                )));
            }
        };
        let mut value = Value::NULL;
        match &default {
            None if self.override_of(name, false).is_none() => {
                return Ok(if declared.is_specified {
                    Value::Null(declared.kind.without_optional())
                } else {
                    Value::text("")
                });
            }
            None => {}
            Some(attribute) => value = self.default_value(&context, name, attribute, &declared)?,
        }
        let given = self.override_of(name, declared.is_specified).filter(|_| is_variable);
        match given {
            Some(given) => overridden(name, &given, &declared, default.is_some().then_some(&value))
                .map_err(Trouble::Message),
            None => Ok(value),
        }
    }

    /// Evaluates a default.
    fn default_value(
        &mut self,
        context: &Context,
        name: &str,
        attribute: &Attribute,
        declared: &Declared,
    ) -> Result<Value, Trouble> {
        self.resolve_needs(context, &attribute.value, &[], true).map_err(Trouble::Found)?;
        let mut errors = Vec::new();
        let value = self.evaluate(&attribute.value, context, &mut errors);
        if !errors.is_empty() {
            return Err(Trouble::Found(errors));
        }
        convert(&value, &declared.kind).map_err(|error| {
            Trouble::Message(format!(
                "invalid type {} for variable {name} default value: {error}",
                declared.kind.name()
            ))
        })
    }

    /// Returns what overrides a variable: its name, or its name with `_JSON`.
    fn override_of(&self, name: &str, favours_json: bool) -> Option<Override> {
        let plain = (self.inputs.lookup)(name);
        if plain.is_none() || favours_json {
            let json_name = format!("{name}_JSON");
            let is_declared = self.inputs.builtins.contains_key(&json_name)
                || self.variables.iter().any(|variable| *variable.name == *json_name);
            if !is_declared && let Some(text) = (self.inputs.lookup)(&json_name) {
                return Some(Override { text, is_json: true });
            }
        }
        plain.map(|text| Override { text, is_json: false })
    }
}

/// Reads the declared type.
fn declared_type(attribute: Option<&Attribute>) -> Result<Declared, Trouble> {
    let Some(attribute) = attribute.filter(|attribute| attribute.value.keyword() != Some("null"))
    else {
        return Ok(Declared { kind: Type::Dynamic, is_specified: false });
    };
    let kind = typespec::read(&attribute.value)?;
    let is_specified = kind != Type::Dynamic || attribute.value.keyword() == Some("any");
    Ok(Declared { kind, is_specified })
}

/// Writes a value for a list of variables.
fn shown(value: &Value, declared: Option<Declared>) -> Option<String> {
    if value.is_null() {
        return None;
    }
    let declared = declared.filter(|declared| declared.is_specified);
    if let Some(declared) = declared {
        let text = json_text::encode_as(value, &declared.kind).unwrap_or_default();
        return Some(match declared.kind {
            Type::String => text.trim_matches('"').to_owned(),
            _ => text,
        });
    }
    if value.type_of().is_primitive() {
        return to_text(value).ok().map(|text| text.to_string());
    }
    Some(json_text::encode(value).unwrap_or_default())
}

/// Reads the value that overrides a variable.
fn overridden(
    name: &str,
    given: &Override,
    declared: &Declared,
    default: Option<&Value>,
) -> Result<Value, String> {
    let text = &given.text;
    if declared.is_specified && given.is_json {
        return json_text::decode_as(text, &declared.kind)
            .map_err(|error| format!("failed to convert variable {name} from JSON: {error}"));
    }
    match &declared.kind {
        Type::List(_) | Type::Set(_) | Type::Tuple(_) | Type::Map(_) => {
            return from_csv(name, text, &declared.kind)
                .map_err(|error| format!("failed to convert variable {name} from CSV: {error}"));
        }
        kind if declared.is_specified && kind.is_primitive() => {
            return primitive(name, text, kind);
        }
        kind if declared.is_specified => {
            return Err(format!("unsupported type {} for variable {name}", kind.name()));
        }
        _ => {}
    }
    match default.map(Value::type_of) {
        None | Some(Type::Dynamic) => Ok(Value::text(text)),
        Some(kind) if kind.is_primitive() => primitive(name, text, &kind),
        Some(kind) => Err(format!("unsupported type {} for variable {name}", kind.name())),
    }
}

/// Reads text, a number or a boolean.
fn primitive(name: &str, text: &str, kind: &Type) -> Result<Value, String> {
    match kind {
        Type::String => Ok(Value::text(text)),
        Type::Bool => fields::parse_bool(text)
            .map(Value::Bool)
            .map_err(|error| format!("failed to parse {name} as bool: {error}")),
        Type::Number => {
            let value = fields::parse_float(text)
                .map_err(|error| format!("failed to parse {name} as number: {error}"))?;
            Ok(Value::Number(Number::from_f64(value).unwrap_or_else(Number::zero)))
        }
        other => Err(format!("{name} of type {} is not a primitive", other.name())),
    }
}

/// Reads a list, set, tuple or map from comma-separated values.
fn from_csv(name: &str, text: &str, kind: &Type) -> Result<Value, String> {
    let parts = fields::split(text, ',')
        .map_err(|error| format!("failed to parse {text} as CSV: {error}"))?;
    let unsupported = || format!("unsupported type {} for CSV specification", kind.name());
    let one = |part: &str, element: &Type, relation: &str| {
        primitive(name, part, element).map_err(|error| {
            format!("failed to parse element {relation} type {}: {error}", kind.name())
        })
    };
    match kind {
        Type::List(element) | Type::Set(element) => {
            if !element.is_primitive() {
                return Err(unsupported());
            }
            let items = parts.iter().map(|part| one(part, element, "of"));
            let items = items.collect::<Result<Vec<_>, _>>()?;
            Ok(match kind {
                Type::List(_) => Value::list((**element).clone(), items),
                _ => Value::set((**element).clone(), items),
            })
        }
        Type::Tuple(elements) => {
            if elements.len() != parts.len() {
                return Err(format!(
                    "{} expects {} elements but only {} provided",
                    kind.name(),
                    elements.len(),
                    parts.len()
                ));
            }
            let mut items = Vec::with_capacity(parts.len());
            for (part, element) in parts.iter().zip(elements.iter()) {
                if !element.is_primitive() {
                    return Err(unsupported());
                }
                items.push(one(part, element, "of")?);
            }
            Ok(Value::tuple(items))
        }
        Type::Map(element) => {
            if !element.is_primitive() {
                return Err(unsupported());
            }
            let mut entries = Entries::new();
            for part in &parts {
                let pair = fields::split(part, ':').map_err(|error| {
                    format!("failed to parse {part} as k/v for variable {name}: {error}")
                })?;
                let [key, value] = pair.as_slice() else {
                    return Err(format!(
                        "expected one k/v pair but got {} pieces from {part}",
                        pair.len()
                    ));
                };
                entries.insert(Rc::from(key.as_str()), one(value, element, "from")?);
            }
            Ok(Value::map((**element).clone(), entries))
        }
        _ => Err(unsupported()),
    }
}

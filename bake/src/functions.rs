//! The functions that every definition can call.

use crate::surroundings::Surroundings;
use crate::types::Type;
use crate::value::Value;

mod bytes;
mod collections;
mod comparison;
mod crypto;
mod csv;
mod dates;
mod encoding;
mod format;
mod json;
mod lists;
mod maps;
mod network;
mod numbers;
mod paths;
mod regexes;
mod rsa;
mod semver;
mod sets;
mod strings;

/// A function.
pub(crate) struct Function {
    /// The name.
    pub(crate) name: &'static str,
    /// The parameters that need an argument.
    pub(crate) parameters: &'static [Parameter],
    /// The parameter of all further arguments.
    pub(crate) variadic: Option<Parameter>,
    /// The type of the result.
    pub(crate) returns: ParameterKind,
    /// A function that gets its arguments as expressions.
    pub(crate) special: Option<Special>,
    /// Runs the function on arguments of the right types.
    pub(crate) run: Run,
}

/// Runs a function.
pub(crate) type Run = fn(&dyn Surroundings, &[Value]) -> Result<Value, Failure>;

/// A function that gets its arguments as expressions.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Special {
    /// `try`.
    Try,
    /// `can`.
    Can,
    /// `convert`.
    Convert,
}

/// A parameter.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    /// The name.
    pub(crate) name: &'static str,
    /// The type to which arguments are converted.
    pub(crate) kind: ParameterKind,
    /// `true` if null may be given.
    pub(crate) null: bool,
    /// `true` if a value that isn't known may be given.
    pub(crate) unknown: bool,
}

/// The type of a parameter or result.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ParameterKind {
    Any,
    Bool,
    Number,
    String,
    Bytes,
    ListOfAny,
    ListOfString,
    ListOfNumber,
    SetOfAny,
}

impl ParameterKind {
    /// Returns the type.
    pub(crate) fn as_type(self) -> Type {
        match self {
            Self::Any => Type::Dynamic,
            Self::Bool => Type::Bool,
            Self::Number => Type::Number,
            Self::String => Type::String,
            Self::Bytes => Type::Bytes,
            Self::ListOfAny => Type::list(Type::Dynamic),
            Self::ListOfString => Type::list(Type::String),
            Self::ListOfNumber => Type::list(Type::Number),
            Self::SetOfAny => Type::set(Type::Dynamic),
        }
    }
}

impl Parameter {
    /// A parameter of a type.
    pub(crate) const fn new(name: &'static str, kind: ParameterKind) -> Self {
        Self { name, kind, null: false, unknown: false }
    }

    /// A parameter of any type.
    pub(crate) const fn any(name: &'static str) -> Self {
        Self::new(name, ParameterKind::Any)
    }

    /// A parameter for text.
    pub(crate) const fn string(name: &'static str) -> Self {
        Self::new(name, ParameterKind::String)
    }

    /// A parameter for a number.
    pub(crate) const fn number(name: &'static str) -> Self {
        Self::new(name, ParameterKind::Number)
    }

    /// Allows null and values that aren't known.
    pub(crate) const fn open(self) -> Self {
        Self { null: true, unknown: true, ..self }
    }

    /// Allows null.
    pub(crate) const fn nullable(self) -> Self {
        Self { null: true, ..self }
    }
}

impl Function {
    /// A function with a fixed number of parameters.
    pub(crate) const fn new(
        name: &'static str,
        parameters: &'static [Parameter],
        returns: ParameterKind,
        run: Run,
    ) -> Self {
        Self { name, parameters, variadic: None, returns, special: None, run }
    }

    /// Takes any number of further arguments.
    pub(crate) const fn with_more(self, variadic: Parameter) -> Self {
        Self { variadic: Some(variadic), ..self }
    }

    /// A function that gets its arguments as expressions.
    const fn special(
        name: &'static str,
        parameters: &'static [Parameter],
        variadic: Option<Parameter>,
        special: Special,
    ) -> Self {
        Self {
            name,
            parameters,
            variadic,
            returns: ParameterKind::Any,
            special: Some(special),
            run: |_, _| Err(Failure::new("the arguments must be expressions")),
        }
    }
}

/// The reason for which a function has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The argument that is to blame.
    pub(crate) argument: Option<usize>,
    /// The reason.
    pub(crate) message: String,
}

impl Failure {
    /// A failure of the call as a whole.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { argument: None, message: message.into() }
    }

    /// A failure of an argument.
    pub(crate) fn argument(index: usize, message: impl Into<String>) -> Self {
        Self { argument: Some(index), message: message.into() }
    }
}

const TRY: &[Function] = &[
    Function::special("can", &[Parameter::any("expression")], None, Special::Can),
    Function::special(
        "convert",
        &[Parameter::any("value"), Parameter::any("type")],
        None,
        Special::Convert,
    ),
    Function::special("try", &[], Some(Parameter::any("expressions")), Special::Try),
];

/// All functions, in groups.
static GROUPS: &[&[Function]] = &[
    TRY,
    bytes::FUNCTIONS,
    collections::FUNCTIONS,
    comparison::FUNCTIONS,
    crypto::FUNCTIONS,
    csv::FUNCTIONS,
    dates::FUNCTIONS,
    encoding::FUNCTIONS,
    format::FUNCTIONS,
    json::FUNCTIONS,
    lists::FUNCTIONS,
    maps::FUNCTIONS,
    network::FUNCTIONS,
    numbers::FUNCTIONS,
    paths::FUNCTIONS,
    regexes::FUNCTIONS,
    semver::FUNCTIONS,
    sets::FUNCTIONS,
    strings::FUNCTIONS,
];

/// Returns the function of a name.
pub(crate) fn find(name: &str) -> Option<&'static Function> {
    GROUPS.iter().flat_map(|group| group.iter()).find(|function| function.name == name)
}

/// Returns the names of all functions.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    GROUPS.iter().flat_map(|group| group.iter()).map(|function| function.name)
}

/// Returns the text of an argument.
pub(crate) fn text(values: &[Value], index: usize) -> Result<&str, Failure> {
    values
        .get(index)
        .and_then(Value::as_text)
        .ok_or_else(|| Failure::argument(index, "string required"))
}

/// Returns the number of an argument.
pub(crate) fn number(values: &[Value], index: usize) -> Result<&crate::number::Number, Failure> {
    match values.get(index) {
        Some(Value::Number(number)) => Ok(number),
        _ => Err(Failure::argument(index, "number required")),
    }
}

/// Returns an argument as a whole number.
pub(crate) fn whole(values: &[Value], index: usize) -> Result<i64, Failure> {
    number(values, index)?.to_i64().ok_or_else(|| {
        Failure::new(format!("value must be a whole number, between {} and {}", i64::MIN, i64::MAX))
    })
}

/// Returns the elements of an argument.
pub(crate) fn items(values: &[Value], index: usize) -> Result<&[Value], Failure> {
    values
        .get(index)
        .and_then(Value::items)
        .ok_or_else(|| Failure::argument(index, "list required"))
}

#[cfg(test)]
mod tests {
    use super::names;
    use crate::target::ATTRIBUTES;

    #[test]
    fn the_documentation_has_every_function_and_attribute() {
        let text = include_str!("../../docs/reference/bake.md");
        let (above, functions) = text.split_once("\n## Functions\n").unwrap();
        let (functions, _) = functions.split_once("\n## ").unwrap();
        let mut known: Vec<&str> = names().collect();
        known.sort_unstable();
        let shown: Vec<&str> = functions
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .collect();
        assert_eq!(shown, known);
        for attribute in ATTRIBUTES {
            assert!(above.contains(&format!("\n| `{attribute}` |")), "{attribute}");
        }
    }
}

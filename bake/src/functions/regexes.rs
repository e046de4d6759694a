//! Regular expressions.

use regex::{Captures, Regex, RegexBuilder};

use super::{Failure, Function, Parameter, ParameterKind, text};
use crate::types::Type;
use crate::value::{Entries, Value};

const PATTERN: &[Parameter] = &[Parameter::string("pattern"), Parameter::string("string")];
/// The most memory of a compiled expression, in bytes.
const SIZE: usize = 4 * 1024 * 1024;
/// The longest result of a replacement.
const LONGEST: usize = 32 * 1024 * 1024;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("regex", PATTERN, ParameterKind::Any, |_, values| {
        let pattern = Pattern::read(text(values, 0)?)?;
        match pattern.expression.captures(text(values, 1)?) {
            Some(found) => Ok(pattern.result(&found)),
            None => Err(Failure::new("pattern did not match any part of the given string")),
        }
    }),
    Function::new(
        "regex_replace",
        &[Parameter::string("str"), Parameter::string("pattern"), Parameter::string("replace")],
        ParameterKind::String,
        |_, values| replace(values),
    ),
    Function::new("regexall", PATTERN, ParameterKind::Any, |_, values| {
        let pattern = Pattern::read(text(values, 0)?)?;
        let found = pattern.expression.captures_iter(text(values, 1)?);
        Ok(Value::list(pattern.kind(), found.map(|found| pattern.result(&found)).collect()))
    }),
];

/// Compiles a regular expression.
fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).size_limit(SIZE).dfa_size_limit(SIZE).build().map_err(|error| {
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("{reason} in {pattern}")
    })
}

/// A regular expression with either named or unnamed groups.
struct Pattern {
    expression: Regex,
    names: Vec<Option<String>>,
}

impl Pattern {
    /// Reads a pattern.
    fn read(pattern: &str) -> Result<Self, Failure> {
        let expression = compile(pattern)
            .map_err(|error| Failure::argument(0, format!("invalid regexp pattern: {error}")))?;
        let names: Vec<Option<String>> =
            expression.capture_names().skip(1).map(|name| name.map(str::to_owned)).collect();
        if names.iter().any(Option::is_some) && names.iter().any(Option::is_none) {
            return Err(Failure::argument(
                0,
                "invalid regexp pattern: cannot mix both named and unnamed capture groups",
            ));
        }
        Ok(Self { expression, names })
    }

    /// Returns the type of a match.
    fn kind(&self) -> Type {
        if self.names.is_empty() {
            return Type::String;
        }
        if self.names[0].is_none() {
            return Type::Tuple(self.names.iter().map(|_| Type::String).collect());
        }
        let names = self.names.iter().flatten();
        Type::object(names.map(|name| (name.as_str().into(), Type::String)).collect())
    }

    /// Makes a value of a match: its text, a tuple of its groups, or an object of its named groups.
    fn result(&self, found: &Captures<'_>) -> Value {
        let group = |index: usize| match found.get(index) {
            Some(group) => Value::text(group.as_str()),
            None => Value::Null(Type::String),
        };
        if self.names.is_empty() {
            return group(0);
        }
        if self.names[0].is_none() {
            return Value::tuple((1..=self.names.len()).map(group).collect());
        }
        let named = self.names.iter().enumerate();
        let entries =
            named.filter_map(|(index, name)| Some((name.as_deref()?.into(), group(index + 1))));
        Value::object(entries.collect::<Entries>())
    }
}

/// Replaces each match.
fn replace(values: &[Value]) -> Result<Value, Failure> {
    let whole = text(values, 0)?;
    let with = text(values, 2)?;
    let expression = compile(text(values, 1)?)
        .map_err(|error| Failure::new(format!("error parsing regexp: {error}")))?;
    let mut replaced = String::new();
    let mut last = 0;
    for found in expression.captures_iter(whole) {
        let Some(range) = found.get(0).map(|group| group.range()) else {
            continue;
        };
        replaced.push_str(&whole[last..range.start]);
        found.expand(with, &mut replaced);
        last = range.end;
        if replaced.len() > LONGEST {
            return Err(Failure::new("the result is too long"));
        }
    }
    replaced.push_str(&whole[last..]);
    Ok(Value::text(replaced))
}

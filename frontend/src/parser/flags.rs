//! The flags of instructions.

use crate::instruction::Flag;
use crate::suggest::{Case, suggest};

/// The type of a flag's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueKind {
    /// A boolean: `true`, `false`, or no value for `true`.
    Truth,
    /// A string, given at most once.
    Text,
    /// A string, given any number of times.
    Texts,
}

/// The flags that an instruction accepts, with their types.
pub(super) type Known = [(&'static str, ValueKind)];

/// The flags of an instruction, checked.
#[derive(Debug, Default)]
pub(super) struct Flags {
    given: Vec<Flag>,
}

impl Flags {
    /// Checks the flags in `written` against the accepted ones.
    pub(super) fn parse(written: &[String], known: &Known) -> Result<Self, String> {
        let mut given: Vec<Flag> = Vec::new();
        for flag in written {
            given.push(check(split(flag), &given, known)?);
        }
        Ok(Self { given })
    }

    /// Fails if there are any flags.
    pub(super) fn none(written: &[String]) -> Result<(), String> {
        Self::parse(written, &[]).map(drop)
    }

    /// Returns the value of a string flag, or an empty string if it is not given.
    pub(super) fn text(&self, name: &str) -> String {
        self.texts(name).pop().unwrap_or_default()
    }

    /// Returns all values of a string flag.
    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        let found = self.given.iter().filter(|flag| flag.name == name);
        found.filter_map(|flag| flag.value.clone()).collect()
    }

    /// Returns the value of a boolean flag, if it is given.
    pub(super) fn truth(&self, name: &str) -> Option<bool> {
        let flag = self.given.iter().find(|flag| flag.name == name)?;
        Some(flag.value.as_deref().is_none_or(|value| value.eq_ignore_ascii_case("true")))
    }

    /// Returns all flags in order.
    pub(super) fn into_given(self) -> Vec<Flag> {
        self.given
    }
}

fn split(written: &str) -> Flag {
    let body = written.strip_prefix("--").unwrap_or(written);
    match body.split_once('=') {
        Some((name, value)) => Flag { name: name.into(), value: Some(value.into()) },
        None => Flag { name: body.into(), value: None },
    }
}

fn check(flag: Flag, given: &[Flag], known: &Known) -> Result<Flag, String> {
    let name = &flag.name;
    let Some((_, takes)) = known.iter().find(|(known, _)| known == name) else {
        let message = format!("unknown flag: --{name}");
        return Err(suggest(message, name, known.iter().map(|(name, _)| *name), Case::Sensitive));
    };
    if *takes != ValueKind::Texts && given.iter().any(|other| other.name == *name) {
        return Err(format!("duplicate flag specified: --{name}"));
    }
    let missing = Err(format!("missing a value on flag: --{name}"));
    match (takes, flag.value.as_deref()) {
        (ValueKind::Truth, Some("")) | (ValueKind::Text | ValueKind::Texts, None) => missing,
        (ValueKind::Truth, Some(value))
            if !value.eq_ignore_ascii_case("true") && !value.eq_ignore_ascii_case("false") =>
        {
            Err(format!("expecting boolean value for flag --{name}, not: {value}"))
        }
        _ => Ok(flag),
    }
}

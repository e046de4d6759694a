//! Policies about sources.

use serde::{Serialize, Serializer};
use serde_json::json;

use super::{Entry, text_map_value};
use crate::convert::{mismatch, to_text};
use crate::fields;
use crate::types::Type;
use crate::value::Value;

/// A policy about the sources of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The files with rules.
    pub files: Vec<String>,
    /// `true` if the policies before this one are dropped.
    pub reset: bool,
    /// `true` if policies are turned off.
    pub disabled: bool,
    /// `true` if an undecided source is refused.
    pub strict: Option<bool>,
    /// The level of the log.
    pub log_level: Option<String>,
}

const LEVELS: [&str; 7] = ["panic", "fatal", "error", "warning", "info", "debug", "trace"];

impl Policy {
    /// Reads fields.
    fn from_fields(fields: Vec<String>) -> Result<Self, String> {
        let mut policy = Self::default();
        for field in fields {
            let invalid = || format!("invalid value {field}");
            let (key, value) = field.split_once('=').ok_or_else(invalid)?;
            let flag =
                || fields::parse_bool(value).map_err(|error| format!("{}: {error}", invalid()));
            match key.to_lowercase().trim() {
                "filename" if !value.is_empty() => policy.files.push(value.to_owned()),
                "reset" => policy.reset = flag()?,
                "disabled" => policy.disabled = flag()?,
                "strict" => policy.strict = Some(flag()?),
                "log-level" => {
                    let level = match value.to_lowercase().as_str() {
                        "warn" => "warning".to_owned(),
                        other => other.to_owned(),
                    };
                    if !LEVELS.contains(&&*level) {
                        return Err(format!("{}: not a valid logrus Level: {value:?}", invalid()));
                    }
                    policy.log_level = Some(level);
                }
                _ => return Err(invalid()),
            }
        }
        Ok(policy)
    }
}

impl Entry for Policy {
    fn from_text(text: &str) -> Result<Vec<Self>, String> {
        Ok(vec![Self::from_fields(fields::split(text, ',')?)?])
    }

    fn from_object(value: &Value) -> Result<Self, String> {
        let Some(entries) = value.entries() else {
            return Err(mismatch(&value.type_of(), &Self::value_type()));
        };
        let mut fields = Vec::new();
        for (name, value) in entries {
            if value.is_null() || !value.is_known() || value.as_text() == Some("") {
                continue;
            }
            fields.push(format!("{name}={}", to_text(value)?));
        }
        Self::from_fields(fields)
    }

    fn to_value(&self) -> Value {
        let flag = |name, value: bool| (name, if value { "true" } else { "false" });
        let mut entries = Vec::new();
        if let Some(file) = self.files.first() {
            entries.push(("filename", &**file));
        }
        if self.reset {
            entries.push(flag("reset", true));
        }
        if self.disabled {
            entries.push(flag("disabled", true));
        }
        if let Some(strict) = self.strict {
            entries.push(flag("strict", strict));
        }
        if let Some(level) = &self.log_level {
            entries.push(("log-level", level));
        }
        text_map_value(entries.into_iter())
    }

    fn value_type() -> Type {
        Type::map(Type::String)
    }
}

impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let files: Option<Vec<_>> = (!self.files.is_empty()).then(|| {
            let files = self.files.iter();
            files.map(|file| json!({"Filename": file, "Data": null})).collect()
        });
        json!({
            "Files": files,
            "Reset": self.reset,
            "Disabled": self.disabled,
            "Strict": self.strict,
            "LogLevel": self.log_level,
        })
        .serialize(serializer)
    }
}

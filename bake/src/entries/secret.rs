//! Secrets.

use serde::Serialize;

use super::{Entry, optional_object, text_attribute};
use crate::convert::convert;
use crate::fields;
use crate::quote::quote;
use crate::types::Type;
use crate::value::{Entries, Value};

/// A secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Secret {
    /// The name by which steps know it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The file.
    #[serde(rename = "src", skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// The variable of the environment.
    #[serde(rename = "env", skip_serializing_if = "String::is_empty")]
    pub variable: String,
}

impl Entry for Secret {
    fn from_text(text: &str) -> Result<Vec<Self>, String> {
        let mut secret = Self::default();
        let mut kind = String::new();
        let parts = fields::split(text, ',')
            .map_err(|error| format!("failed to parse csv secret: {error}"))?;
        for field in parts {
            let Some((key, value)) = field.split_once('=') else {
                return Err(format!("invalid field '{field}' must be a key=value pair"));
            };
            let value = value.to_owned();
            match key.to_lowercase().as_str() {
                "type" if value == "file" || value == "env" => kind = value,
                "type" => return Err(format!("unsupported secret type {}", quote(&value))),
                "id" => secret.id = value,
                "source" | "src" => secret.file = value,
                "env" => secret.variable = value,
                key => return Err(format!("unexpected key '{key}' in '{field}'")),
            }
        }
        if kind == "env" && secret.variable.is_empty() {
            secret.variable = std::mem::take(&mut secret.file);
        }
        Ok(vec![secret])
    }

    fn from_object(value: &Value) -> Result<Self, String> {
        let given = convert(value, &Self::value_type())?;
        let text = |name: &str| text_attribute(&given, name).unwrap_or_default();
        Ok(Self { id: text("id"), file: text("src"), variable: text("env") })
    }

    fn to_value(&self) -> Value {
        let mut entries = Entries::new();
        entries.insert("id".into(), Value::text(&self.id));
        entries.insert("src".into(), Value::text(&self.file));
        entries.insert("env".into(), Value::text(&self.variable));
        Value::object(entries)
    }

    fn value_type() -> Type {
        optional_object(&[("id", Type::String), ("src", Type::String), ("env", Type::String)])
    }
}

//! Outputs.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::{Entry, text_map, text_map_value};
use crate::fields;
use crate::types::Type;
use crate::value::Value;

/// An output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The type, as `image`.
    pub kind: String,
    /// The file or folder, or nothing.
    pub destination: String,
    /// The other attributes.
    pub attributes: BTreeMap<String, String>,
}

impl Output {
    /// Returns an output with no attributes.
    pub(crate) fn of_kind(kind: &str) -> Self {
        Self { kind: kind.into(), ..Self::default() }
    }
}

impl Entry for Output {
    fn from_text(text: &str) -> Result<Vec<Self>, String> {
        let parts = fields::split(text, ',')?;
        if let [only] = parts.as_slice()
            && only == text
            && !text.starts_with("type=")
        {
            let kind = if text == "-" { "tar" } else { "local" };
            return Ok(vec![Self { destination: text.to_owned(), ..Self::of_kind(kind) }]);
        }
        let mut entry = Self::default();
        for field in parts {
            let (key, value) =
                field.split_once('=').ok_or_else(|| format!("invalid value {field}"))?;
            match key.to_lowercase().trim() {
                "type" => value.clone_into(&mut entry.kind),
                "dest" => value.clone_into(&mut entry.destination),
                key => {
                    entry.attributes.insert(key.to_owned(), value.to_owned());
                }
            }
        }
        if entry.kind.is_empty() {
            return Err("type is required for output".into());
        }
        Ok(vec![entry])
    }

    fn from_object(value: &Value) -> Result<Self, String> {
        let mut attributes = text_map(value)?;
        let kind = attributes.remove("type").unwrap_or_default();
        let destination = attributes.remove("dest").unwrap_or_default();
        if kind.is_empty() {
            return Err("type is required for output".into());
        }
        Ok(Self { kind, destination, attributes })
    }

    fn to_value(&self) -> Value {
        let own = self.attributes.iter().map(|(name, value)| (&**name, &**value));
        text_map_value(own.chain([("type", &*self.kind), ("dest", &*self.destination)]))
    }

    fn value_type() -> Type {
        Type::map(Type::String)
    }
}

impl Serialize for Output {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map: BTreeMap<&str, &str> =
            self.attributes.iter().map(|(name, value)| (&**name, &**value)).collect();
        map.insert("type", &self.kind);
        if !self.destination.is_empty() {
            map.insert("dest", &self.destination);
        }
        map.serialize(serializer)
    }
}

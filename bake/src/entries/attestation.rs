//! Attestations.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::{Entry, text_map, text_map_value};
use crate::fields;
use crate::types::Type;
use crate::value::Value;

/// An attestation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attestation {
    /// The type, as `provenance`.
    pub kind: String,
    /// `true` if it is turned off.
    pub disabled: bool,
    /// The other attributes.
    pub attributes: BTreeMap<String, String>,
}

impl Entry for Attestation {
    fn from_text(text: &str) -> Result<Vec<Self>, String> {
        let mut entry = Self::default();
        for field in fields::split(text, ',')? {
            let (key, value) =
                field.split_once('=').ok_or_else(|| format!("invalid value {field}"))?;
            match key.to_lowercase().trim() {
                "type" => value.clone_into(&mut entry.kind),
                "disabled" => {
                    entry.disabled = fields::parse_bool(value)
                        .map_err(|error| format!("invalid value {field}: {error}"))?;
                }
                _ => {
                    entry.attributes.insert(key.to_owned(), value.to_owned());
                }
            }
        }
        if entry.kind.is_empty() {
            return Err("attestation type not specified".into());
        }
        Ok(vec![entry])
    }

    fn from_object(value: &Value) -> Result<Self, String> {
        let mut attributes = text_map(value)?;
        let kind = attributes.remove("type").unwrap_or_default();
        let disabled = match attributes.remove("disabled") {
            Some(text) => fields::parse_bool(&text)?,
            None => false,
        };
        Ok(Self { kind, disabled, attributes })
    }

    fn to_value(&self) -> Value {
        let own = self.attributes.iter().map(|(name, value)| (&**name, &**value));
        let disabled = self.disabled.then_some(("disabled", "true"));
        text_map_value(own.chain([("type", &*self.kind)]).chain(disabled))
    }

    fn value_type() -> Type {
        Type::map(Type::String)
    }
}

impl Serialize for Attestation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map: BTreeMap<&str, serde_json::Value> = BTreeMap::new();
        for (name, value) in &self.attributes {
            map.insert(name, value.as_str().into());
        }
        map.insert("type", self.kind.as_str().into());
        if self.disabled {
            map.insert("disabled", true.into());
        }
        map.serialize(serializer)
    }
}

//! Caches that are imported or exported.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::{Entry, text_map, text_map_value};
use crate::fields;
use crate::json_text;
use crate::quote::quote;
use crate::types::Type;
use crate::value::Value;

/// A cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheEntry {
    /// The type, as `registry`.
    pub kind: String,
    /// The other attributes.
    pub attributes: BTreeMap<String, String>,
}

impl CacheEntry {
    /// Returns the cache that is an image of a registry.
    fn registry(reference: String) -> Self {
        let attributes = BTreeMap::from([("ref".to_owned(), reference)]);
        Self { kind: "registry".into(), attributes }
    }
}

impl Entry for CacheEntry {
    fn from_text(text: &str) -> Result<Vec<Self>, String> {
        let parts = fields::split(text, ',')?;
        if !text.contains('=') {
            return Ok(parts.into_iter().map(Self::registry).collect());
        }
        if let [only] = parts.as_slice()
            && !only.contains('=')
        {
            return Ok(vec![Self::registry(only.clone())]);
        }
        let mut entry = Self::default();
        for field in parts {
            let (key, value) =
                field.split_once('=').ok_or_else(|| format!("invalid value {field}"))?;
            match key.to_lowercase().as_str() {
                "type" => value.clone_into(&mut entry.kind),
                key => {
                    entry.attributes.insert(key.to_owned(), value.to_owned());
                }
            }
        }
        if entry.kind.is_empty() {
            return Err(format!("type required for {}", quote(text)));
        }
        Ok(vec![entry])
    }

    fn from_object(value: &Value) -> Result<Self, String> {
        let mut attributes = text_map(value)?;
        let kind = attributes.remove("type").unwrap_or_default();
        if kind.is_empty() {
            let text = json_text::encode(value).unwrap_or_default();
            return Err(format!("type required for {}", quote(&text)));
        }
        Ok(Self { kind, attributes })
    }

    fn to_value(&self) -> Value {
        let own = self.attributes.iter().map(|(name, value)| (&**name, &**value));
        text_map_value(own.chain([("type", &*self.kind)]))
    }

    fn value_type() -> Type {
        Type::map(Type::String)
    }
}

impl Serialize for CacheEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map: BTreeMap<&str, &str> =
            self.attributes.iter().map(|(name, value)| (&**name, &**value)).collect();
        map.insert("type", &self.kind);
        map.serialize(serializer)
    }
}

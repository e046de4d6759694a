//! SSH agents.

use serde::Serialize;

use super::{Entry, optional_object, text_attribute};
use crate::convert::convert;
use crate::types::Type;
use crate::value::{Entries, Value};

/// An SSH agent, or keys for one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Ssh {
    /// The name by which steps know it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The socket or the keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
}

impl Entry for Ssh {
    fn from_text(text: &str) -> Result<Vec<Self>, String> {
        let (id, paths) = text.split_once('=').map_or((text, None), |cut| (cut.0, Some(cut.1)));
        let paths = paths.map(|paths| paths.split(',').map(str::to_owned).collect());
        Ok(vec![Self { id: id.to_owned(), paths: paths.unwrap_or_default() }])
    }

    fn from_object(value: &Value) -> Result<Self, String> {
        let given = convert(value, &Self::value_type())?;
        let mut paths = Vec::new();
        let listed = given.entries().and_then(|entries| entries.get("paths"));
        for path in listed.and_then(Value::items).unwrap_or_default() {
            paths.push(path.as_text().ok_or("null value is not allowed")?.to_owned());
        }
        Ok(Self { id: text_attribute(&given, "id").unwrap_or_default(), paths })
    }

    fn to_value(&self) -> Value {
        let mut entries = Entries::new();
        entries.insert("id".into(), Value::text(&self.id));
        entries.insert("paths".into(), Value::texts(&self.paths));
        Value::object(entries)
    }

    fn value_type() -> Type {
        optional_object(&[("id", Type::String), ("paths", Type::list(Type::String))])
    }
}

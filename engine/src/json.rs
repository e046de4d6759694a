//! JSON values whose objects keep the order of their members.
//!
//! docker prints members in the order of Go's structs. A tree of `serde_json` values would sort
//! them.

use std::fmt;

use anyhow::{Context, Result};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Number;

/// A JSON value whose objects keep the order of their members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// The value `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string.
    String(String),
    /// An array.
    List(Vec<Self>),
    /// An object: names and values in order.
    Object(Vec<(String, Self)>),
}

impl Json {
    /// Serializes a value and keeps the order of its members.
    pub fn of(value: &impl Serialize) -> Result<Self> {
        let text = serde_json::to_string(value).context("encode as JSON")?;
        Self::parse(text.as_bytes())
    }

    /// Parses a JSON text.
    pub fn parse(text: &[u8]) -> Result<Self> {
        serde_json::from_slice(text).context("parse JSON")
    }

    /// Returns a member of an object. If several have the name, returns the last one.
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        members.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Returns the JSON text on one line, with the fewest possible escapes.
    pub fn compact(&self) -> String {
        // Serializing a tree of strings can't fail.
        let text = serde_json::to_string(self).unwrap_or_default();
        escape_separators(text)
    }

    /// Returns the JSON text on several lines, each level indented by `indent`.
    pub fn pretty(&self, indent: &str) -> String {
        let mut bytes = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
        if self.serialize(&mut serializer).is_err() {
            return String::new();
        }
        escape_separators(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Escapes the line separators that Go's encoder always escapes, since they end a line in
/// JavaScript.
fn escape_separators(text: String) -> String {
    if !text.contains(['\u{2028}', '\u{2029}']) {
        return text;
    }
    text.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

/// Escapes the characters that Go's encoder escapes by default because of HTML.
pub fn escape_html(text: &str) -> String {
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(value) => value.serialize(serializer),
            Self::String(value) => serializer.serialize_str(value),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Self::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                members.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Number::from_f64(value).map_or(Json::Null, Json::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            members.push(entry);
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order() {
        let text = r#"{"b":1,"a":[true,null,-2.5,"<x>"],"c":{"z":{},"y":[]}}"#;
        let json = Json::parse(text.as_bytes()).unwrap();
        assert_eq!(json.compact(), text);
        assert_eq!(
            json.get("c").unwrap().pretty("\t"),
            "{\n\t\"z\": {},\n\t\"y\": []\n}",
            "as Go indents"
        );
        assert_eq!(Json::String("a\u{2028}b".to_owned()).compact(), "\"a\\u2028b\"");
        assert!(Json::parse(b"{").is_err());
    }
}

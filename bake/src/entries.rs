//! The entries of a target's lists: outputs, caches, secrets and so on.
//!
//! Each can be written as text or as an object.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::convert::{convert, mismatch};
use crate::types::{ObjectType, Type};
use crate::value::{Entries, Value};

mod attestation;
mod cache;
mod output;
mod policy;
mod resources;
mod secret;
mod ssh;

pub use attestation::Attestation;
pub use cache::CacheEntry;
pub use output::Output;
pub use policy::Policy;
pub use resources::Resources;
pub use secret::Secret;
pub use ssh::Ssh;

/// An entry of a list.
pub(crate) trait Entry: Sized {
    /// Reads entries from text. There may be several in one text.
    fn from_text(text: &str) -> Result<Vec<Self>, String>;

    /// Makes an entry of an object.
    fn from_object(value: &Value) -> Result<Self, String>;

    /// Makes a value that expressions see.
    fn to_value(&self) -> Value;

    /// Returns the type of the values.
    fn value_type() -> Type;
}

/// Reads the entries of a list. Empty text is passed over.
///
/// # Errors
/// Says what is wrong with the first entry that can't be read.
pub(crate) fn from_value<E: Entry>(value: &Value) -> Result<Option<Vec<E>>, String> {
    let items = match value {
        Value::Null(_) => return Ok(None),
        Value::Unknown(_) => return Err("value must be known".into()),
        Value::List(sequence) | Value::Tuple(sequence) => &sequence.items,
        other => return Err(mismatch(&other.type_of(), &Type::list(E::value_type()))),
    };
    let mut entries = Vec::new();
    for item in items {
        match item {
            Value::Unknown(_) => {}
            Value::Null(_) => return Err("null value is not allowed".into()),
            Value::String(text) if text.is_empty() => {}
            Value::String(text) => entries.extend(E::from_text(text)?),
            object => entries.push(E::from_object(object)?),
        }
    }
    Ok(Some(entries))
}

/// Makes a list of entries.
pub(crate) fn to_value<E: Entry>(entries: Option<&[E]>) -> Value {
    let items = entries.unwrap_or_default().iter().map(E::to_value).collect();
    Value::list(E::value_type(), items)
}

/// Reads entries from texts. Empty text is passed over.
pub(crate) fn from_texts<E: Entry>(
    texts: impl IntoIterator<Item = impl AsRef<str>>,
) -> Result<Vec<E>, String> {
    let mut entries = Vec::new();
    for text in texts {
        let text = text.as_ref();
        if !text.is_empty() {
            entries.extend(E::from_text(text)?);
        }
    }
    Ok(entries)
}

/// Adds entries to a list and removes duplicates.
pub(crate) fn merge<E>(
    list: &mut Option<Vec<E>>,
    other: Option<Vec<E>>,
    normalize: impl Fn(&mut Vec<E>),
) {
    let Some(other) = other else {
        return;
    };
    match list {
        Some(list) => list.extend(other),
        None => *list = Some(other),
    }
    tidy(list, normalize);
}

/// Removes duplicates. An empty list is no list.
pub(crate) fn tidy<E>(list: &mut Option<Vec<E>>, normalize: impl Fn(&mut Vec<E>)) {
    if let Some(entries) = list {
        if entries.is_empty() {
            *list = None;
        } else {
            normalize(entries);
        }
    }
}

/// Removes entries that are equal to an earlier one. The last entry takes the place of a later one.
pub(crate) fn remove_equal<E: PartialEq>(entries: &mut Vec<E>) {
    for index in (0..entries.len().saturating_sub(1)).rev() {
        let later = (index + 1..entries.len()).find(|later| entries[*later] == entries[index]);
        if let Some(later) = later {
            entries.swap_remove(later);
        }
    }
}

/// Keeps the first place and the last value of entries with one key.
pub(crate) fn keep_last<E>(entries: &mut Vec<E>, same: impl Fn(&E, &E) -> bool) {
    let mut kept: Vec<E> = Vec::new();
    for entry in entries.drain(..) {
        match kept.iter_mut().find(|other| same(other, &entry)) {
            Some(other) => *other = entry,
            None => kept.push(entry),
        }
    }
    *entries = kept;
}

/// Reads an object as a map of text.
fn text_map(value: &Value) -> Result<BTreeMap<String, String>, String> {
    let converted = convert(value, &Type::map(Type::String))?;
    let mut map = BTreeMap::new();
    for (name, value) in converted.entries().into_iter().flatten() {
        match value {
            Value::String(text) => {
                map.insert(name.to_string(), text.to_string());
            }
            Value::Null(_) => return Err("null value is not allowed".into()),
            _ => {}
        }
    }
    Ok(map)
}

/// Makes a map of text.
fn text_map_value<'a>(entries: impl Iterator<Item = (&'a str, &'a str)>) -> Value {
    let entries = entries.map(|(name, value)| (Rc::from(name), Value::text(value)));
    Value::map(Type::String, entries.collect::<Entries>())
}

/// Returns the type of an object whose attributes may all be absent.
fn optional_object(attributes: &[(&str, Type)]) -> Type {
    let attributes = attributes.iter().map(|(name, kind)| (Rc::from(*name), kind.clone()));
    let attributes: BTreeMap<Rc<str>, Type> = attributes.collect();
    let optional = attributes.keys().cloned().collect();
    Type::Object(Rc::new(ObjectType { attributes, optional }))
}

/// Returns an attribute of text.
fn text_attribute(value: &Value, name: &str) -> Option<String> {
    value.entries()?.get(name)?.as_text().map(str::to_owned)
}

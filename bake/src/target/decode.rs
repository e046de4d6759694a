//! Attributes of targets as they are read.

use std::collections::BTreeMap;

use super::{OptionalTexts, Target};
use crate::convert::convert;
use crate::entries::{self, Resources};
use crate::types::Type;
use crate::value::Value;

/// The attributes of a target.
pub(crate) const ATTRIBUTES: &[&str] = &[
    "description",
    "inherits",
    "annotations",
    "attest",
    "context",
    "contexts",
    "dockerfile",
    "dockerfile-inline",
    "args",
    "labels",
    "tags",
    "cache-from",
    "cache-to",
    "target",
    "secret",
    "ssh",
    "platforms",
    "output",
    "pull",
    "no-cache",
    "network",
    "no-cache-filter",
    "shm-size",
    "ulimits",
    "resources",
    "call",
    "entitlements",
    "extra-hosts",
    "policy",
];

/// Sets an attribute of a target to a value.
///
/// # Errors
/// Says what is required if the value doesn't fit.
pub(crate) fn decode(target: &mut Target, name: &str, value: &Value) -> Result<(), String> {
    match name {
        "description" => target.description = text(value)?.ok_or(NULL)?,
        "inherits" => target.inherits = list(value)?,
        "annotations" => target.annotations = list(value)?,
        "attest" => target.attest = entries::from_value(value)?,
        "context" => target.context = text(value)?,
        "contexts" => target.contexts = map(value)?,
        "dockerfile" => target.dockerfile = text(value)?,
        "dockerfile-inline" => target.dockerfile_inline = text(value)?,
        "args" => target.args = texts(value)?,
        "labels" => target.labels = texts(value)?,
        "tags" => target.tags = list(value)?,
        "cache-from" => target.cache_from = entries::from_value(value)?,
        "cache-to" => target.cache_to = entries::from_value(value)?,
        "target" => target.stage = text(value)?,
        "secret" => target.secrets = entries::from_value(value)?,
        "ssh" => target.ssh = entries::from_value(value)?,
        "platforms" => target.platforms = list(value)?,
        "output" => target.outputs = entries::from_value(value)?,
        "pull" => target.pull = flag(value)?,
        "no-cache" => target.no_cache = flag(value)?,
        "network" => target.network = text(value)?,
        "no-cache-filter" => target.no_cache_filter = list(value)?,
        "shm-size" => target.shm_size = text(value)?,
        "ulimits" => target.ulimits = list(value)?,
        "resources" => target.resources = Resources::from_value(value)?,
        "call" => target.call = text(value)?,
        "entitlements" => target.entitlements = list(value)?,
        "extra-hosts" => target.extra_hosts = texts(value)?,
        "policy" => target.policy = entries::from_value(value)?,
        _ => {}
    }
    Ok(())
}

const NULL: &str = "null value is not allowed";
const UNKNOWN: &str = "value must be known";

/// Reads text. Null is no text.
pub(crate) fn text(value: &Value) -> Result<Option<String>, String> {
    match convert(value, &Type::String)? {
        Value::String(text) => Ok(Some(text.to_string())),
        Value::Null(_) => Ok(None),
        _ => Err(UNKNOWN.into()),
    }
}

/// Reads a boolean. Null is none.
fn flag(value: &Value) -> Result<Option<bool>, String> {
    match convert(value, &Type::Bool)? {
        Value::Bool(value) => Ok(Some(value)),
        Value::Null(_) => Ok(None),
        _ => Err(UNKNOWN.into()),
    }
}

/// Reads a list of text. Null is no list, and can't be an element.
pub(crate) fn list(value: &Value) -> Result<Option<Vec<String>>, String> {
    let converted = convert(value, &Type::list(Type::String))?;
    let items = match &converted {
        Value::List(sequence) => &sequence.items,
        Value::Null(_) => return Ok(None),
        _ => return Err(UNKNOWN.into()),
    };
    let texts = items.iter().map(|item| match item {
        Value::String(text) => Ok(text.to_string()),
        Value::Null(_) => Err(NULL.to_owned()),
        _ => Err(UNKNOWN.into()),
    });
    Ok(Some(texts.collect::<Result<_, _>>()?))
}

/// Reads a map of text. Null is no map.
fn texts(value: &Value) -> Result<Option<OptionalTexts>, String> {
    let converted = convert(value, &Type::map(Type::String))?;
    let entries = match &converted {
        Value::Map(mapping) => &mapping.entries,
        Value::Null(_) => return Ok(None),
        _ => return Err(UNKNOWN.into()),
    };
    let texts = entries.iter().map(|(name, value)| match value {
        Value::String(text) => Ok((name.to_string(), Some(text.to_string()))),
        Value::Null(_) => Ok((name.to_string(), None)),
        _ => Err(UNKNOWN.to_owned()),
    });
    Ok(Some(texts.collect::<Result<_, _>>()?))
}

/// Reads a map of text in which null can't be a value.
fn map(value: &Value) -> Result<Option<BTreeMap<String, String>>, String> {
    let Some(texts) = texts(value)? else {
        return Ok(None);
    };
    let texts = texts.into_iter().map(|(name, text)| match text {
        Some(text) => Ok((name, text)),
        None => Err(NULL.to_owned()),
    });
    Ok(Some(texts.collect::<Result<_, _>>()?))
}

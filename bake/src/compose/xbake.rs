//! The extension `x-bake` of services.

use super::service::{another, optional};
use super::yaml::Node;
use crate::entries;
use crate::target::Target;

/// Adds what the extension says to a target.
pub(super) fn apply(
    extension: &Node,
    target: &mut Target,
    local: impl Fn(String) -> String,
) -> Result<(), String> {
    add(&mut target.tags, texts(extension, "tags")?);
    add(&mut target.platforms, texts(extension, "platforms")?);
    add(&mut target.cache_from, entries::from_texts(texts(extension, "cache-from")?)?);
    add(&mut target.cache_to, entries::from_texts(texts(extension, "cache-to")?)?);
    add(&mut target.secrets, entries::from_texts(texts(extension, "secret")?)?);
    add(&mut target.ssh, entries::from_texts(texts(extension, "ssh")?)?);
    let outputs = entries::from_texts(texts(extension, "output")?)?;
    if !outputs.is_empty() {
        target.outputs = Some(outputs);
    }
    if let Some(pull) = flag(extension, "pull")? {
        target.pull = Some(pull);
    }
    if let Some(no_cache) = flag(extension, "no-cache")? {
        target.no_cache = Some(no_cache);
    }
    let filter = texts(extension, "no-cache-filter")?;
    if !filter.is_empty() {
        target.no_cache_filter = Some(filter);
    }
    for (name, value) in extension.get("contexts").into_iter().flat_map(Node::fields) {
        let context = value.text().unwrap_or_default();
        let context = another(&context).unwrap_or_else(|| local(context));
        let contexts = target.contexts.get_or_insert_default();
        contexts.entry(name.clone()).or_insert(context);
    }
    target.normalize();
    Ok(())
}

fn add<T>(list: &mut Option<Vec<T>>, more: Vec<T>) {
    if let Some(more) = optional(more) {
        list.get_or_insert_default().extend(more);
    }
}

/// Returns a list, or the words of a text.
fn texts(extension: &Node, name: &str) -> Result<Vec<String>, String> {
    match extension.get(name) {
        None => Ok(Vec::new()),
        Some(Node::Text(text)) => Ok(text.split_whitespace().map(str::to_owned).collect()),
        Some(Node::List(items)) => Ok(items.iter().filter_map(Node::text).collect()),
        Some(other) => Err(mismatch(other, "compose.stringArray")),
    }
}

fn flag(extension: &Node, name: &str) -> Result<Option<bool>, String> {
    match extension.get(name) {
        None => Ok(None),
        Some(Node::Bool(value)) => Ok(Some(*value)),
        Some(other) => Err(mismatch(other, "bool")),
    }
}

fn mismatch(node: &Node, wanted: &str) -> String {
    let kind = match node {
        Node::Text(_) => "!!str",
        Node::Whole(_) => "!!int",
        Node::Float(_) => "!!float",
        Node::Bool(_) => "!!bool",
        Node::List(_) => "!!seq",
        _ => "!!map",
    };
    let shown = node.text().map(|text| format!(" `{text}`")).unwrap_or_default();
    format!("yaml: unmarshal errors:\n  line 1: cannot unmarshal {kind}{shown} into {wanted}")
}

//! Targets as they are printed.

use std::collections::BTreeMap;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::{OptionalTexts, Target};

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.description.is_empty() {
            map.serialize_entry("description", &self.description)?;
        }
        list(&mut map, "inherits", self.inherits.as_ref())?;
        let annotations: Option<Vec<String>> =
            self.annotations.as_ref().map(|list| list.iter().map(|text| escaped(text)).collect());
        list(&mut map, "annotations", annotations.as_ref())?;
        list(&mut map, "attest", self.attest.as_ref())?;
        option(&mut map, "context", self.context.as_ref())?;
        if let Some(contexts) = self.contexts.as_ref().filter(|contexts| !contexts.is_empty()) {
            map.serialize_entry("contexts", contexts)?;
        }
        option(&mut map, "dockerfile", self.dockerfile.as_ref())?;
        let inline = self.dockerfile_inline.as_ref().map(|text| escaped(text));
        option(&mut map, "dockerfile-inline", inline.as_ref())?;
        texts(&mut map, "args", self.args.as_ref())?;
        texts(&mut map, "labels", self.labels.as_ref())?;
        list(&mut map, "tags", self.tags.as_ref())?;
        list(&mut map, "cache-from", self.cache_from.as_ref())?;
        list(&mut map, "cache-to", self.cache_to.as_ref())?;
        option(&mut map, "target", self.stage.as_ref())?;
        list(&mut map, "secret", self.secrets.as_ref())?;
        list(&mut map, "ssh", self.ssh.as_ref())?;
        list(&mut map, "platforms", self.platforms.as_ref())?;
        list(&mut map, "output", self.outputs.as_ref())?;
        option(&mut map, "pull", self.pull.as_ref())?;
        option(&mut map, "no-cache", self.no_cache.as_ref())?;
        option(&mut map, "network", self.network.as_ref())?;
        list(&mut map, "no-cache-filter", self.no_cache_filter.as_ref())?;
        option(&mut map, "shm-size", self.shm_size.as_ref())?;
        list(&mut map, "ulimits", self.ulimits.as_ref())?;
        option(&mut map, "resources", self.resources.as_ref())?;
        option(&mut map, "call", self.call.as_ref())?;
        list(&mut map, "entitlements", self.entitlements.as_ref())?;
        texts(&mut map, "extra-hosts", self.extra_hosts.as_ref())?;
        list(&mut map, "policy", self.policy.as_ref())?;
        map.end()
    }
}

/// Doubles the signs that would begin a template.
fn escaped(text: &str) -> String {
    text.replace("${", "$${").replace("%{", "%%{")
}

/// Writes a value that is set.
fn option<M: SerializeMap, T: Serialize>(
    map: &mut M,
    name: &str,
    value: Option<&T>,
) -> Result<(), M::Error> {
    match value {
        Some(value) => map.serialize_entry(name, value),
        None => Ok(()),
    }
}

/// Writes a list that isn't empty.
fn list<M: SerializeMap, T: Serialize>(
    map: &mut M,
    name: &str,
    value: Option<&Vec<T>>,
) -> Result<(), M::Error> {
    option(map, name, value.filter(|list| !list.is_empty()))
}

/// Writes texts, their templates escaped.
fn texts<M: SerializeMap>(
    map: &mut M,
    name: &str,
    value: Option<&OptionalTexts>,
) -> Result<(), M::Error> {
    let Some(value) = value.filter(|texts| !texts.is_empty()) else {
        return Ok(());
    };
    let escaped: BTreeMap<&String, Option<String>> =
        value.iter().map(|(name, text)| (name, text.as_deref().map(escaped))).collect();
    map.serialize_entry(name, &escaped)
}

//! Targets and groups as expressions see them.

use std::rc::Rc;

use super::{Group, OptionalTexts, Target};
use crate::entries::{self, Resources};
use crate::types::Type;
use crate::value::{Entries, Value};

impl Target {
    /// Makes an object of what the blocks of the target say.
    pub(crate) fn to_value(&self) -> Value {
        let mut object = Entries::new();
        let mut add = |name: &str, value: Value| {
            object.insert(Rc::from(name), value);
        };
        add("name", Value::text(&self.name));
        add("description", Value::text(&self.description));
        add("inherits", list(self.inherits.as_ref()));
        add("annotations", list(self.annotations.as_ref()));
        add("attest", entries::to_value(self.attest.as_deref()));
        add("context", text(self.context.as_ref()));
        let contexts = self.contexts.as_ref().map(|contexts| {
            let contexts = contexts.iter();
            contexts.map(|(name, context)| (name.clone(), Some(context.clone()))).collect()
        });
        add("contexts", texts(contexts.as_ref()));
        add("dockerfile", text(self.dockerfile.as_ref()));
        add("dockerfile-inline", text(self.dockerfile_inline.as_ref()));
        add("args", texts(self.args.as_ref()));
        add("labels", texts(self.labels.as_ref()));
        add("tags", list(self.tags.as_ref()));
        add("cache-from", entries::to_value(self.cache_from.as_deref()));
        add("cache-to", entries::to_value(self.cache_to.as_deref()));
        add("target", text(self.stage.as_ref()));
        add("secret", entries::to_value(self.secrets.as_deref()));
        add("ssh", entries::to_value(self.ssh.as_deref()));
        add("platforms", list(self.platforms.as_ref()));
        add("output", entries::to_value(self.outputs.as_deref()));
        add("pull", flag(self.pull));
        add("no-cache", flag(self.no_cache));
        add("network", text(self.network.as_ref()));
        add("no-cache-filter", list(self.no_cache_filter.as_ref()));
        add("shm-size", text(self.shm_size.as_ref()));
        add("ulimits", list(self.ulimits.as_ref()));
        add("resources", Resources::to_value(self.resources.as_ref()));
        add("call", text(self.call.as_ref()));
        add("entitlements", list(self.entitlements.as_ref()));
        add("extra-hosts", texts(self.extra_hosts.as_ref()));
        add("policy", entries::to_value(self.policy.as_deref()));
        Value::object(object)
    }
}

impl Group {
    /// Makes an object of what the block of the group says.
    pub(crate) fn to_value(&self) -> Value {
        let mut object = Entries::new();
        object.insert("name".into(), Value::text(&self.name));
        object.insert("description".into(), Value::text(&self.description));
        object.insert("targets".into(), list(self.targets.as_ref()));
        Value::object(object)
    }
}

/// Makes text, or null.
fn text(value: Option<&String>) -> Value {
    value.map_or(Value::Null(Type::String), Value::text)
}

/// Makes a boolean, or null.
fn flag(value: Option<bool>) -> Value {
    value.map_or(Value::Null(Type::Bool), Value::Bool)
}

/// Makes a list of text, or null.
fn list(value: Option<&Vec<String>>) -> Value {
    value.map_or_else(|| Value::Null(Type::list(Type::String)), Value::texts)
}

/// Makes a map of text, or null.
fn texts(value: Option<&OptionalTexts>) -> Value {
    let Some(texts) = value else {
        return Value::Null(Type::map(Type::String));
    };
    let entries = texts.iter().map(|(name, value)| (Rc::from(name.as_str()), text(value.as_ref())));
    Value::map(Type::String, entries.collect())
}

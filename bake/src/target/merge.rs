//! Merging of targets.

use super::{OptionalTexts, Target, same_agent, same_kind, same_secret};
use crate::entries::{merge, remove_equal};

impl Target {
    /// Takes what another target says over what this one says.
    pub(crate) fn merge(&mut self, other: Self) {
        self.base.merge(&other);
        replace(&mut self.context, other.context);
        replace(&mut self.dockerfile, other.dockerfile);
        replace(&mut self.dockerfile_inline, other.dockerfile_inline);
        merge_texts(&mut self.args, other.args);
        merge_texts(&mut self.labels, other.labels);
        merge_texts(&mut self.extra_hosts, other.extra_hosts);
        if let Some(contexts) = other.contexts.filter(|contexts| !contexts.is_empty()) {
            self.contexts.get_or_insert_default().extend(contexts);
        }
        replace(&mut self.tags, other.tags);
        replace(&mut self.stage, other.stage);
        replace(&mut self.call, other.call);
        append(&mut self.annotations, other.annotations);
        merge(&mut self.attest, other.attest, same_kind);
        append(&mut self.policy, other.policy);
        merge(&mut self.secrets, other.secrets, same_secret);
        merge(&mut self.ssh, other.ssh, same_agent);
        replace(&mut self.platforms, other.platforms);
        merge(&mut self.cache_from, other.cache_from, remove_equal);
        replace(&mut self.cache_to, other.cache_to);
        replace(&mut self.outputs, other.outputs);
        replace(&mut self.pull, other.pull);
        replace(&mut self.no_cache, other.no_cache);
        replace(&mut self.network, other.network);
        append(&mut self.no_cache_filter, other.no_cache_filter);
        replace(&mut self.shm_size, other.shm_size);
        append(&mut self.ulimits, other.ulimits);
        if let Some(resources) = other.resources {
            self.resources.get_or_insert_default().merge(resources);
        }
        if !other.description.is_empty() {
            self.description = other.description;
        }
        append(&mut self.entitlements, other.entitlements);
        append(&mut self.inherits, other.inherits);
    }
}

/// Takes another value if there is one.
fn replace<T>(own: &mut Option<T>, other: Option<T>) {
    if other.is_some() {
        *own = other;
    }
}

/// Adds the entries of another list.
fn append<T>(own: &mut Option<Vec<T>>, other: Option<Vec<T>>) {
    if let Some(other) = other {
        own.get_or_insert_default().extend(other);
    }
}

/// Takes the texts that are set.
fn merge_texts(own: &mut Option<OptionalTexts>, other: Option<OptionalTexts>) {
    for (name, text) in other.into_iter().flatten() {
        if text.is_some() {
            own.get_or_insert_default().insert(name, text);
        }
    }
}

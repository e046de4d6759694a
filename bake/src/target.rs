//! Targets and groups.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::entries::{
    self, Attestation, CacheEntry, Output, Policy, Resources, Secret, Ssh, keep_last, remove_equal,
};

mod decode;
mod merge;
mod print;
mod rebase;
mod value;

pub(crate) use decode::{ATTRIBUTES, decode, list as decode_list, text as decode_text};
pub(crate) use rebase::{Base, rebase_all, rebased};

/// Text by names. A name without text isn't set.
pub type OptionalTexts = BTreeMap<String, Option<String>>;

/// A group of targets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Group {
    /// The name.
    #[serde(skip)]
    pub name: String,
    /// The purpose of the group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The members: targets and groups.
    pub targets: Option<Vec<String>>,
}

/// A build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The name.
    pub name: String,
    /// The purpose of the target.
    pub description: String,
    /// The targets whose attributes this one takes.
    pub inherits: Option<Vec<String>>,
    /// Annotations for manifests and indexes, as `type:key=value`.
    pub annotations: Option<Vec<String>>,
    /// Attestations.
    pub attest: Option<Vec<Attestation>>,
    /// The build context.
    pub context: Option<String>,
    /// Further contexts by their names.
    pub contexts: Option<BTreeMap<String, String>>,
    /// The Dockerfile.
    pub dockerfile: Option<String>,
    /// The text of the Dockerfile.
    pub dockerfile_inline: Option<String>,
    /// Build arguments.
    pub args: Option<OptionalTexts>,
    /// Labels.
    pub labels: Option<OptionalTexts>,
    /// The names of the image.
    pub tags: Option<Vec<String>>,
    /// The caches that are imported.
    pub cache_from: Option<Vec<CacheEntry>>,
    /// The caches that are exported.
    pub cache_to: Option<Vec<CacheEntry>>,
    /// The stage that is built.
    pub stage: Option<String>,
    /// Secrets.
    pub secrets: Option<Vec<Secret>>,
    /// SSH agents.
    pub ssh: Option<Vec<Ssh>>,
    /// Platforms.
    pub platforms: Option<Vec<String>>,
    /// Outputs.
    pub outputs: Option<Vec<Output>>,
    /// `true` if images are looked up anew.
    pub pull: Option<bool>,
    /// `true` if the cache isn't used.
    pub no_cache: Option<bool>,
    /// The network of steps.
    pub network: Option<String>,
    /// The stages for which the cache isn't used.
    pub no_cache_filter: Option<Vec<String>>,
    /// The size of shared memory.
    pub shm_size: Option<String>,
    /// Limits of processes.
    pub ulimits: Option<Vec<String>>,
    /// Limits of the build.
    pub resources: Option<Resources>,
    /// The call in place of a build.
    pub call: Option<String>,
    /// The rights of steps beyond the usual.
    pub entitlements: Option<Vec<String>>,
    /// Names of hosts and their addresses.
    pub extra_hosts: Option<OptionalTexts>,
    /// Policies about sources.
    pub policy: Option<Vec<Policy>>,
    /// `true` if the target is only built because another one uses it.
    pub is_linked: bool,
    /// The folders to which relative contexts refer.
    pub(crate) base: Base,
}

impl Target {
    /// Removes duplicates and what is empty.
    pub(crate) fn normalize(&mut self) {
        for list in [
            &mut self.annotations,
            &mut self.tags,
            &mut self.platforms,
            &mut self.no_cache_filter,
            &mut self.ulimits,
        ] {
            remove_repeated(list);
        }
        entries::tidy(&mut self.attest, same_kind);
        entries::tidy(&mut self.secrets, same_secret);
        entries::tidy(&mut self.ssh, same_agent);
        entries::tidy(&mut self.cache_from, remove_equal);
        entries::tidy(&mut self.cache_to, remove_equal);
        entries::tidy(&mut self.outputs, remove_equal);
        if self.network.as_deref() == Some("host") {
            self.entitlements.get_or_insert_default().push("network.host".into());
        }
        remove_repeated(&mut self.entitlements);
        if let Some(contexts) = &mut self.contexts {
            contexts.retain(|_, context| !context.is_empty());
            if contexts.is_empty() {
                self.contexts = None;
            }
        }
    }
}

/// Keeps one attestation of each type.
fn same_kind(list: &mut Vec<Attestation>) {
    keep_last(list, |left, right| left.kind == right.kind);
}

/// Keeps one secret of each name.
fn same_secret(list: &mut Vec<Secret>) {
    keep_last(list, |left, right| left.id == right.id);
}

/// Keeps one agent of each name.
fn same_agent(list: &mut Vec<Ssh>) {
    keep_last(list, |left, right| left.id == right.id);
}

/// Removes empty and repeated texts.
pub(crate) fn remove_repeated(list: &mut Option<Vec<String>>) {
    if let Some(list) = list {
        let mut seen = std::collections::HashSet::new();
        list.retain(|text| !text.is_empty() && seen.insert(text.clone()));
    }
}

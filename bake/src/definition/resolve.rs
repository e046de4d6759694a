//! Targets that are chosen, with everything that they inherit and use.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Definition, ReadOptions};
use crate::checks;
use crate::entries::{Output, Policy};
use crate::error::Error;
use crate::overrides::Overrides;
use crate::target::{Group, Target, rebased};

/// The targets that are built and the groups by which they were chosen.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Plan {
    /// The groups.
    #[serde(rename = "group", skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, Group>,
    /// The targets.
    #[serde(rename = "target")]
    pub targets: BTreeMap<String, Target>,
}

/// The knowledge while targets are resolved.
struct Resolver<'a> {
    definition: &'a Definition,
    index: BTreeMap<&'a str, &'a Target>,
    overrides: BTreeMap<String, Overrides>,
}

/// The targets and groups of a group.
#[derive(Clone, Default)]
struct Members {
    targets: Vec<String>,
    groups: Vec<String>,
}

impl Definition {
    /// Chooses targets by names and patterns, and resolves them.
    ///
    /// # Errors
    /// Fails if there is no such target, and for overrides that can't be applied.
    pub fn plan(
        &self,
        names: &[String],
        overrides: &[String],
        options: &ReadOptions<'_>,
    ) -> Result<Plan, Error> {
        let mut chosen: Vec<String> = Vec::new();
        for name in names {
            for name in self.matching(&name.replace('.', "_"))? {
                if !chosen.contains(&name) {
                    chosen.push(name);
                }
            }
        }
        let lookup =
            |name: &str| options.uses_environment.then(|| options.surroundings.variable(name));
        let resolver = Resolver {
            definition: self,
            index: self.targets.iter().rev().map(|target| (&*target.name, target)).collect(),
            overrides: self.read_overrides(overrides, &lookup)?,
        };
        let mut plan = Plan::default();
        for name in &chosen {
            let members = resolver.members(name, &mut BTreeMap::new(), 0)?;
            for target in members.targets {
                if let Entry::Vacant(place) = plan.targets.entry(target) {
                    let resolved = resolver.target(place.key())?;
                    place.insert(resolved);
                }
            }
            for name in members.groups {
                if let Some(group) = self.groups.iter().find(|group| group.name == name) {
                    plan.groups.insert(name, group.clone());
                }
            }
        }
        plan.set_default(&chosen);
        let names: Vec<String> = plan.targets.keys().cloned().collect();
        let mut linked = BTreeSet::new();
        for name in names {
            resolver.links(&name, &mut plan, &mut Vec::new(), &mut linked)?;
        }
        Ok(plan)
    }
}

impl Plan {
    /// Makes the group `default` of what was chosen.
    fn set_default(&mut self, chosen: &[String]) {
        const DEFAULT: &str = "default";
        for name in chosen {
            if name == DEFAULT && self.groups.contains_key(DEFAULT) {
                continue;
            }
            let group = self
                .groups
                .entry(DEFAULT.into())
                .or_insert_with(|| Group { name: DEFAULT.into(), ..Group::default() });
            group.targets.get_or_insert_default().push(name.clone());
        }
        if let Some(Group { targets: Some(targets), .. }) = self.groups.get_mut(DEFAULT) {
            targets.sort_unstable();
            targets.dedup();
        }
    }

    /// Turns the policies of all targets off.
    pub fn disable_policies(&mut self) {
        for target in self.targets.values_mut() {
            target.policy = Some(vec![Policy { disabled: true, ..Policy::default() }]);
        }
    }

    /// Sets an argument of all targets that don't have it.
    pub fn set_missing_argument(&mut self, name: &str, value: &str) {
        for target in self.targets.values_mut() {
            let args = target.args.get_or_insert_default();
            args.entry(name.to_owned()).or_insert_with(|| Some(value.to_owned()));
        }
    }

    /// Cleans paths and checks what a build would use.
    ///
    /// # Errors
    /// Fails for secrets, agents and outputs that can't be used, and for limits that can't be read.
    pub fn check(&mut self, options: &ReadOptions<'_>) -> Result<(), Error> {
        for target in self.targets.values_mut() {
            checks::check(target, options.surroundings)?;
        }
        Ok(())
    }
}

impl Resolver<'_> {
    /// Returns the targets and groups of a group, or a target itself.
    fn members(
        &self,
        name: &str,
        visited: &mut BTreeMap<String, Members>,
        depth: usize,
    ) -> Result<Members, Error> {
        if let Some(members) = visited.get(name) {
            return Ok(members.clone());
        }
        let Some(group) = self.definition.groups.iter().find(|group| group.name == name) else {
            return Ok(Members { targets: vec![name.to_owned()], groups: Vec::new() });
        };
        if depth > crate::limits::CHAIN {
            return Err(Error::new(format!("the groups around {name} are nested too deeply")));
        }
        visited.insert(name.to_owned(), Members::default());
        let mut members = Members { targets: Vec::new(), groups: vec![name.to_owned()] };
        for member in group.targets.iter().flatten() {
            let inner = self.members(member, visited, depth + 1)?;
            if inner.targets.is_empty() {
                add_new(&mut members.targets, [member.clone()]);
            } else {
                add_new(&mut members.targets, inner.targets);
            }
            add_new(&mut members.groups, inner.groups);
        }
        visited.insert(name.to_owned(), members.clone());
        Ok(members)
    }

    /// Resolves a target.
    fn target(&self, name: &str) -> Result<Target, Error> {
        let resolved = self.inherited(name, &mut BTreeMap::new(), 0)?;
        let mut target = resolved.unwrap_or_default();
        target.inherits = None;
        name.clone_into(&mut target.name);
        if target.context.is_none() {
            let folder = target.base.default.as_deref().filter(|_| target.base.uses_default);
            target.context = Some(folder.map_or(".".into(), |folder| rebased(folder, ".")));
        }
        if target.dockerfile.as_deref().unwrap_or_default().is_empty() {
            target.dockerfile = Some("Dockerfile".into());
        }
        Ok(target)
    }

    /// Resolves a target with its parents. A circle brings nothing.
    fn inherited(
        &self,
        name: &str,
        visited: &mut BTreeMap<String, Option<Target>>,
        depth: usize,
    ) -> Result<Option<Target>, Error> {
        if let Some(target) = visited.get(name) {
            return Ok(target.clone());
        }
        if depth > crate::limits::CHAIN {
            return Err(Error::new(format!("target {name} inherits over too many levels")));
        }
        visited.insert(name.to_owned(), None);
        let own = self
            .index
            .get(name)
            .ok_or_else(|| Error::new(format!("failed to find target {name}")))?;
        let mut target = Target::default();
        for parent in own.inherits.iter().flatten() {
            if let Some(parent) = self.inherited(parent, visited, depth + 1)? {
                target.merge(parent);
            }
        }
        target.merge((*own).clone());
        if let Some(overrides) = self.overrides.get(name) {
            overrides.apply(&mut target)?;
        }
        target.normalize();
        // Otherwise the list would double wherever two parents have one of their own in common.
        target.inherits = None;
        if target.policy.as_ref().is_some_and(|list| list.len() > crate::limits::POLICIES) {
            return Err(Error::new(format!("target {name} has too many policies")));
        }
        visited.insert(name.to_owned(), Some(target.clone()));
        Ok(Some(target))
    }

    /// Resolves the targets that a target uses as contexts.
    fn links(
        &self,
        name: &str,
        plan: &mut Plan,
        path: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Result<(), Error> {
        path.push(name.to_owned());
        let contexts = plan.targets.get(name).and_then(|target| target.contexts.clone());
        for context in contexts.into_iter().flat_map(BTreeMap::into_values) {
            let Some(linked) = context.strip_prefix("target:") else {
                continue;
            };
            if linked == name {
                return Err(Error::new(format!("target {name} cannot link to itself")));
            }
            if path.iter().any(|other| other == linked) {
                return Err(Error::new(format!("infinite loop from {name} to {linked}")));
            }
            if path.len() > crate::limits::CHAIN {
                return Err(Error::new(format!("target {name} is linked over too many levels")));
            }
            if !plan.targets.contains_key(linked) {
                let mut target = self.target(linked)?;
                target.outputs = Some(vec![Output::of_kind("cacheonly")]);
                target.is_linked = true;
                plan.targets.insert(linked.to_owned(), target);
            }
            if !done.contains(linked) {
                self.links(linked, plan, path, done)?;
            }
            let Some(other) = plan.targets.get(linked) else {
                continue;
            };
            let entitlements = other.entitlements.clone().unwrap_or_default();
            let platforms = other.platforms.clone().unwrap_or_default();
            let Some(target) = plan.targets.get_mut(name) else {
                continue;
            };
            if !entitlements.is_empty() {
                add_new(target.entitlements.get_or_insert_default(), entitlements);
            }
            let own = target.platforms.clone().unwrap_or_default();
            let is_subset = own.iter().all(|platform| platforms.contains(platform));
            if own.len() > 1 && platforms.len() > 1 && !is_subset {
                return Err(Error::new(format!(
                    "target {linked} can't be used by {name} because its platforms [{}] are not a \
                     subset of [{}]",
                    own.join(" "),
                    platforms.join(" ")
                )));
            }
        }
        done.insert(name.to_owned());
        path.pop();
        Ok(())
    }
}

/// Adds names that aren't in a list yet.
fn add_new(list: &mut Vec<String>, names: impl IntoIterator<Item = String>) {
    for name in names {
        if !list.contains(&name) {
            list.push(name);
        }
    }
}

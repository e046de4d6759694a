//! Targets of services.

use std::collections::BTreeMap;

use super::interpolate::Values;
use super::load::{Loader, is_local};
use super::xbake;
use super::yaml::Node;
use crate::entries::{self, Attestation, Secret, Ssh};
use crate::fields;
use crate::target::{OptionalTexts, Target};

/// A reader of a service.
pub(super) struct Reader<'a> {
    pub(super) name: &'a str,
    pub(super) service: &'a Node,
    pub(super) build: &'a Node,
    pub(super) model: &'a Node,
}

impl Reader<'_> {
    /// Makes a target of the service.
    pub(super) fn target(&self, loader: &mut Loader<'_>) -> Result<Target, String> {
        let build = self.build;
        let text = |name: &str| build.get(name).and_then(Node::text);
        let filled = |name: &str| text(name).filter(|text| !text.is_empty());
        let mut target = Target {
            name: self.name.replace('.', "_"),
            context: Some(local(loader, filled("context").unwrap_or_else(|| ".".into()))),
            dockerfile: filled("dockerfile"),
            dockerfile_inline: filled("dockerfile_inline"),
            args: self.arguments(loader)?,
            labels: named_texts(build.get("labels")),
            tags: list(build, "tags"),
            stage: filled("target"),
            network: filled("network"),
            platforms: list(build, "platforms"),
            pull: is_on(build, "pull"),
            no_cache: is_on(build, "no_cache"),
            contexts: contexts(build, loader),
            cache_from: optional(entries::from_texts(
                list(build, "cache_from").into_iter().flatten(),
            )?),
            cache_to: optional(entries::from_texts(list(build, "cache_to").into_iter().flatten())?),
            attest: optional(attestations(build)?),
            extra_hosts: extra_hosts(build),
            secrets: optional(self.secrets(loader)?),
            ssh: optional(agents(build)?),
            ulimits: optional(ulimits(build)?),
            ..Target::default()
        };
        if let Some(size) = text("shm_size") {
            let size = fields::parse_size(&size)?;
            target.shm_size = (size != 0).then(|| fields::size_text(size));
        }
        if let Some(extension) = build.get("x-bake") {
            xbake::apply(extension, &mut target, |context| local(loader, context))?;
        }
        if target.tags.as_ref().is_none_or(Vec::is_empty)
            && let Some(image) = self.service.get("image").and_then(Node::text)
        {
            target.tags = (!image.is_empty()).then(|| vec![image]);
        }
        Ok(target)
    }

    /// Returns the arguments. Those without a value get it from around, or vanish.
    fn arguments(&self, loader: &Loader<'_>) -> Result<Option<OptionalTexts>, String> {
        let Some(given) = self.build.get("args") else { return Ok(None) };
        let mut environment: Option<BTreeMap<String, String>> = None;
        let mut arguments = OptionalTexts::new();
        for (name, value) in given.fields() {
            let mut value = value.text();
            if value.is_none() {
                if environment.is_none() {
                    environment = Some(self.environment(loader)?);
                }
                let own = environment.as_ref().and_then(|values| values.get(name).cloned());
                value = own.or_else(|| loader.value(name));
            }
            if let Some(value) = value {
                arguments.insert(name.clone(), Some(value));
            }
        }
        Ok((!arguments.is_empty()).then_some(arguments))
    }

    /// Returns the environment of the service.
    fn environment(&self, loader: &Loader<'_>) -> Result<BTreeMap<String, String>, String> {
        let mut values = BTreeMap::new();
        for entry in self.service.get("env_file").map(Node::items).unwrap_or_default() {
            let Some(file) = entry.get("path").or(Some(entry)).and_then(Node::text) else {
                continue;
            };
            let is_required = entry.get("required").and_then(Node::truth).unwrap_or(true);
            let file = loader.local(&file, ".");
            if is_required || loader.options.surroundings.is_folder(&file).is_some() {
                let read = loader.variables(&file);
                values.extend(read.map_err(|error| format!("env file {file} not found: {error}"))?);
            }
        }
        for (name, value) in self.service.get("environment").into_iter().flat_map(Node::fields) {
            if let Some(value) = value.text().or_else(|| loader.value(name)) {
                values.insert(name.clone(), value);
            }
        }
        Ok(values)
    }

    fn secrets(&self, loader: &Loader<'_>) -> Result<Vec<Secret>, String> {
        let mut secrets = Vec::new();
        for entry in self.build.get("secrets").map(Node::items).unwrap_or_default() {
            let id = entry.get("source").and_then(Node::text).unwrap_or_default();
            let described = self.model.get("secrets").and_then(|secrets| secrets.get(&id));
            let Some(described) = described else { continue };
            let text = |name: &str| described.get(name).and_then(Node::text);
            if described.get("external").is_some_and(|node| node.truth() != Some(false)) {
                return Err(format!("unsupported external secret {id}"));
            }
            let file = text("file").map(|file| loader.local(&file, ".")).unwrap_or_default();
            let variable = text("environment").unwrap_or_default();
            secrets.push(Secret { id, file, variable });
        }
        Ok(secrets)
    }
}

fn local(loader: &Loader<'_>, context: String) -> String {
    if is_local(&context) { loader.local(&context, ".") } else { context }
}

pub(super) fn optional<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn list(node: &Node, name: &str) -> Option<Vec<String>> {
    optional(node.get(name)?.items().iter().filter_map(Node::text).collect())
}

fn is_on(node: &Node, name: &str) -> Option<bool> {
    node.get(name).and_then(Node::truth).filter(|is_on| *is_on)
}

fn named_texts(node: Option<&Node>) -> Option<OptionalTexts> {
    let texts: OptionalTexts = node?
        .fields()
        .map(|(name, value)| (name.clone(), Some(value.text().unwrap_or_default())))
        .collect();
    (!texts.is_empty()).then_some(texts)
}

fn contexts(build: &Node, loader: &Loader<'_>) -> Option<BTreeMap<String, String>> {
    let mut contexts = BTreeMap::new();
    for (name, value) in build.get("additional_contexts")?.fields() {
        let context = value.text().unwrap_or_default();
        contexts.insert(name.clone(), local(loader, another(&context).unwrap_or(context)));
    }
    Some(contexts)
}

/// Returns the context that another service or target is.
pub(super) fn another(context: &str) -> Option<String> {
    let name = context.strip_prefix("service:").or_else(|| context.strip_prefix("target:"))?;
    Some(format!("target:{}", name.replace('.', "_")))
}

fn attestations(build: &Node) -> Result<Vec<Attestation>, String> {
    let mut texts = Vec::new();
    for kind in ["sbom", "provenance"] {
        let Some(value) = build.get(kind).and_then(Node::text) else { continue };
        match fields::parse_bool(&value) {
            Ok(true) => texts.push(format!("type={kind}")),
            Ok(false) => texts.push(format!("type={kind},disabled=true")),
            Err(_) if value.is_empty() => {}
            Err(_) => texts.push(format!("type={kind},{value}")),
        }
    }
    entries::from_texts(texts)
}

fn extra_hosts(build: &Node) -> Option<OptionalTexts> {
    let joined = |(name, addresses): (&String, &Node)| {
        let addresses: Vec<String> = addresses.items().iter().filter_map(Node::text).collect();
        (name.clone(), Some(addresses.join(",")))
    };
    Some(build.get("extra_hosts")?.fields().map(joined).collect())
}

fn agents(build: &Node) -> Result<Vec<Ssh>, String> {
    let mut agents = Vec::new();
    for (id, value) in build.get("ssh").into_iter().flat_map(Node::fields) {
        let path = value.text().filter(|path| !path.is_empty());
        if path.is_none() && id != "default" {
            return Err(format!("invalid ssh key \"{id}\""));
        }
        agents.push(Ssh { id: id.clone(), paths: path.into_iter().collect() });
    }
    Ok(agents)
}

/// Returns limits. A single number limits to nothing, as users of compose files know it.
fn ulimits(build: &Node) -> Result<Vec<String>, String> {
    let mut limits = Vec::new();
    for (name, value) in build.get("ulimits").into_iter().flat_map(Node::fields) {
        let limit = |key: &str| match value.get(key) {
            Some(Node::Whole(number)) => Ok(*number),
            Some(other) => other
                .text()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| format!("services.build.ulimits.{name}.{key} must be an integer")),
            None => Ok(0),
        };
        let (soft, hard) = (limit("soft")?, limit("hard")?);
        if hard != -1 && soft > hard {
            return Err(format!(
                "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
            ));
        }
        limits.push(format!("{name}={soft}:{hard}"));
    }
    Ok(limits)
}

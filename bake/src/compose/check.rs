//! Checks of compose files.

use super::yaml::Node;

/// The fields of `build`.
const BUILD: [&str; 26] = [
    "additional_contexts",
    "args",
    "cache_from",
    "cache_to",
    "context",
    "dockerfile",
    "dockerfile_inline",
    "entitlements",
    "extra_hosts",
    "isolation",
    "labels",
    "network",
    "no_cache",
    "no_cache_filter",
    "platforms",
    "privileged",
    "provenance",
    "pull",
    "sbom",
    "secrets",
    "shm_size",
    "ssh",
    "tags",
    "target",
    "ulimits",
    "x-bake",
];

/// Checks the kinds of what is read from a file.
pub(super) fn check_model(model: &Node) -> Result<(), String> {
    let Node::Map(fields) = model else {
        return Err("top-level object must be a mapping".into());
    };
    if !fields.contains_key("services") && !fields.contains_key("secrets") {
        return Err("empty compose file".into());
    }
    match fields.get("services") {
        None | Some(Node::Reset) => return Ok(()),
        Some(Node::Map(_) | Node::Override(_)) => {}
        Some(_) => return Err("services must be a mapping".into()),
    }
    for (name, service) in fields["services"].fields() {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || !name.bytes().all(fits) {
            return Err(format!("services additional properties '{name}' not allowed"));
        }
        let place = format!("services.{name}");
        match service {
            Node::Map(_) => check_service(service, &place)?,
            Node::Null | Node::Reset | Node::Override(_) => {}
            _ => return Err(format!("{place} must be a mapping")),
        }
    }
    Ok(())
}

fn check_service(service: &Node, place: &str) -> Result<(), String> {
    let Node::Map(fields) = service else { return Ok(()) };
    if let Some(image) = fields.get("image")
        && !matches!(image, Node::Text(_) | Node::Reset | Node::Override(_))
    {
        return Err(format!("{place}.image must be a string"));
    }
    named_scalars(fields.get("environment"), &format!("{place}.environment"))?;
    let place = format!("{place}.build");
    match fields.get("build") {
        None | Some(Node::Reset) => Ok(()),
        Some(Node::Null) => Err(format!("{place}: invalid type <nil> for build")),
        Some(Node::Override(build)) => check_build(build, &place),
        Some(build) => check_build(build, &place),
    }
}

fn check_build(build: &Node, place: &str) -> Result<(), String> {
    let Node::Map(fields) = build else {
        return match build {
            Node::Text(_) | Node::Null | Node::Reset => Ok(()),
            _ => Err(format!("{place} must be a string or a mapping")),
        };
    };
    for (name, value) in fields {
        let place = format!("{place}.{name}");
        let value = match value {
            Node::Override(inner) => inner,
            Node::Reset => continue,
            value => value,
        };
        match name.as_str() {
            "context" | "dockerfile" | "dockerfile_inline" | "isolation" | "network" | "target" => {
                if !matches!(value, Node::Text(_)) {
                    return Err(format!("{place} must be a string"));
                }
            }
            "args" | "labels" | "additional_contexts" => named_scalars(Some(value), &place)?,
            "cache_from" | "cache_to" | "tags" | "platforms" | "entitlements" => {
                texts(value, &place)?;
            }
            "no_cache" | "pull" | "privileged" => {
                if value.truth().is_none() {
                    return Err(format!("{place} must be a boolean or string"));
                }
            }
            "secrets" if !matches!(value, Node::List(_)) => {
                return Err(format!("{place} must be a array"));
            }
            "ulimits" if !matches!(value, Node::Map(_)) => {
                return Err(format!("{place} must be a mapping"));
            }
            name if BUILD.contains(&name) || name.starts_with("x-") => {}
            name => {
                let place = place.trim_end_matches(name).trim_end_matches('.');
                return Err(format!("{place} additional properties '{name}' not allowed"));
            }
        }
    }
    Ok(())
}

/// Checks a list of texts.
fn texts(node: &Node, place: &str) -> Result<(), String> {
    let Node::List(items) = node else { return Err(format!("{place} must be a array")) };
    for (index, item) in items.iter().enumerate() {
        if !matches!(item, Node::Text(_) | Node::Reset) {
            return Err(format!("{place}.{index} must be a string"));
        }
    }
    Ok(())
}

/// Checks scalars by their names, or a list of texts.
fn named_scalars(node: Option<&Node>, place: &str) -> Result<(), String> {
    match node {
        Some(Node::Map(fields)) => {
            for (name, value) in fields {
                if matches!(value, Node::List(_) | Node::Map(_)) {
                    return Err(format!(
                        "{place}.{name} must be a boolean, null, number or string"
                    ));
                }
            }
            Ok(())
        }
        None | Some(Node::Null | Node::Reset | Node::Override(_)) => Ok(()),
        Some(Node::List(_)) => Err(format!("{place} must be a list of strings")),
        Some(_) => Err(format!("{place} must be a mapping or an array")),
    }
}

/// Checks what services say about each other.
pub(super) fn check_consistency(model: &Node) -> Result<(), String> {
    let services = model.get("services");
    for (name, service) in services.into_iter().flat_map(Node::fields) {
        let invalid = |why: String| format!("service \"{name}\" {why}: invalid compose project");
        let build = service.get("build");
        if build.is_none() && service.get("image").is_none() && service.get("provider").is_none() {
            return Err(invalid("has neither an image nor a build context specified".into()));
        }
        let Some(build) = build else { continue };
        if build.get("dockerfile").is_some() && build.get("dockerfile_inline").is_some() {
            return Err(invalid(
                "declares mutualy exclusive dockerfile and dockerfile_inline".into(),
            ));
        }
        for (context, value) in build.get("additional_contexts").into_iter().flat_map(Node::fields)
        {
            let other = value.text().unwrap_or_default();
            if let Some(other) = other.strip_prefix("service:")
                && services.and_then(|found| found.get(other)?.get("build")).is_none()
            {
                let is_there = services.is_some_and(|services| services.get(other).is_some());
                let kind = if is_there { "non-buildable" } else { "unknown" };
                return Err(format!(
                    "service \"{name}\" declares {kind} service \"{other}\" as additional \
                     contexts {context}"
                ));
            }
        }
        for secret in build.get("secrets").map(Node::items).unwrap_or_default() {
            let source = secret.get("source").and_then(Node::text).unwrap_or_default();
            if model.get("secrets").and_then(|secrets| secrets.get(&source)).is_none() {
                return Err(invalid(format!("refers to undefined build secret {source}")));
            }
        }
    }
    Ok(())
}
